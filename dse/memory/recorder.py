"""Record what a step does to memory while it runs.

The recorder sees every operator below autograd. Each new storage is a birth, and its end is a
death. Hooks on autograd's saved tensors show when a buffer is held for the backward pass. As
PyTorch itself decides what each operator saves, no table of operators is needed.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from dse.memory.chunking import MarkedChunks, RepeatedChunks
from dse.memory.cpu_dispatch import Run
from dse.memory.cpu_layout import run_as_on_cpu
from dse.memory.macs import operator_macs
from dse.memory.operator_run import OperatorRun, Stride, argument_specs, recorded_run
from dse.memory.placeholders import Placeholders
from dse.memory.position import Position, Watch
from dse.memory.site import Phase, Site
from dse.memory.tape import Event, Tape


class _Held:
    """Stands for a tensor that autograd saves. Its deletion means that the node has released it."""

    def __init__(self, tensor: torch.Tensor, released: Callable[[], None]) -> None:
        self.tensor = tensor
        self._released = released

    def __del__(self) -> None:
        self._released()


@dataclass
class _Noted:
    """A buffer under observation."""

    dims: tuple[int, ...]
    float_bytes: int
    category: str
    owner: int | None = None  # id of the parameter, if this is part of its optimizer state
    holders: int = 0  # autograd nodes that hold it
    chunk: tuple[int, int] | None = None  # that is being computed when it is made


class Recorder:
    """Records the tape of a step from its operators, as ``cpu_dispatch`` or a mode shows them."""

    def __init__(
        self,
        *,
        device_type: str | None = None,
        layouts: Mapping[Any, Sequence[Stride | None]] | None = None,
        chunks: MarkedChunks | RepeatedChunks | None = None,
    ) -> None:
        """Start an empty tape.

        Args:
            device_type: Type of the device whose tensors count, and whose operators are recorded
                with their arguments. If None, all tensors count and no operators are recorded.
            layouts: Strides that the device gives to operators' results, by ``OperatorRun.call``,
                where they differ from those of tensors without values.
            chunks: Knows which chunk is being computed; None if chunks aren't distinguished.
        """
        self.placeholders = Placeholders()
        self._device_type = device_type
        self._layouts = layouts or {}
        self._chunks = chunks
        self._runs: list[OperatorRun] = []
        self._noted: list[_Noted] = []
        self._alive: dict[int, int] = {}  # storage address -> buffer
        self._events: list[tuple[Event, int, int]] = []
        self._sites: dict[Site, int] = {}
        self._macs: list[tuple[int, ...]] = []
        self._at = Position()
        self._with_gradient: set[int] = set()

    def site(self) -> Site:
        """Return the current site of the step."""
        return Site(self._at.phase, self._at.operator, self._at.module())

    @property
    def failed_module(self) -> str | None:
        """Innermost module in which the step failed. None if it failed outside the network."""
        return self._at.failed

    def keep(self, category: str, tensors: Any, *, owner: torch.Tensor | None = None) -> None:
        """Record tensors that live before, during and after the step."""
        for tensor in tensors:
            self._note(tensor.detach(), category, owner=None if owner is None else id(owner))

    def watching(self, network: nn.Module) -> Watch:
        """Return a context manager that tracks the running module."""
        return Watch(network, self._at)

    def phase_hook(self, network: nn.Module) -> Callable[[str], None]:
        """Return a callback for the step's phases. It marks gradients when the optimizer begins."""

        def begin(phase: Phase) -> None:
            self._at.claim_nodes()
            self._at.phase, self._at.operator = phase, ""
            if phase == "optimizer":
                for parameter in network.parameters():
                    if parameter.grad is not None:
                        self._with_gradient.add(id(parameter))
                        # A gradient was born as temporary: only now is it known to be one.
                        index = self._alive[self.key_of(parameter.grad)]
                        self._noted[index].category = "gradients"

        return begin  # type: ignore[return-value]

    def hold(self, tensor: torch.Tensor) -> _Held:
        """Pack hook of autograd: called when a node begins to hold a tensor."""
        index = self._note(tensor, "temporary")
        noted = self._noted[index]
        noted.holders += 1
        if noted.holders == 1:
            self._record(Event.SAVE, index)

        def released() -> None:
            noted.holders -= 1
            if noted.holders == 0:
                self._record(Event.RELEASE, index)

        return _Held(tensor, released)

    def record(
        self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], run: Run
    ) -> Any:
        """Record an operator, run it, and return its result."""
        self._at.operator = function.name().partition(".")[0]
        if self._at.phase == "forward":
            self._at.claim_nodes()
        arguments: Any = ()
        strides: Sequence[Stride | None] = ()
        if self._device_type is not None:
            arguments = argument_specs(args, kwargs, device_type=self._device_type)
            strides = self._layouts.get((function, arguments), ())
        result = run(strides)
        category = "optimizer_temporary" if self._at.phase == "optimizer" else "temporary"
        known = len(self._noted)
        noted = [
            self._note(leaf, category) if isinstance(leaf, torch.Tensor) else -1
            for leaf in tree_leaves(result)
        ]
        if self._at.phase == "forward":
            self._macs.extend(operator_macs(self._at.operator, args, result))
        if self._device_type is not None:
            made = recorded_run(
                function,
                arguments,
                phase=self._at.phase,
                position=len(self._events),
                results=tuple(index if index >= known else None for index in noted),
                strides=tuple(
                    leaf.stride() if isinstance(leaf, torch.Tensor) else None
                    for leaf in tree_leaves(result)
                ),
            )
            if made is not None:
                self._runs.append(made)
        return result

    def _note(self, tensor: torch.Tensor, category: str, *, owner: int | None = None) -> int:
        key = self.key_of(tensor)
        if key in self._alive:
            return self._alive[key]
        index = len(self._noted)
        self._alive[key] = index
        size = tensor.element_size()
        dims = (*tensor.shape, size)
        held = self._watch(tensor, key, index)
        if tensor.numel() * size != held:  # seen first as a view: count the storage
            dims = (held // size, size)
        if self._device_type not in (None, tensor.device.type):
            dims = (0, size)  # e.g. an optimizer's step counter, which stays on the CPU
        float_bytes = size if tensor.is_floating_point() else 0
        chunk = None if self._chunks is None else self._chunks.now
        self._noted.append(_Noted(dims, float_bytes, category, owner, chunk=chunk))
        self._record(Event.BIRTH, index)
        return index

    def key_of(self, tensor: torch.Tensor) -> int:
        """Return the identity of a tensor's storage while it lives."""
        address = self.placeholders.address_of(tensor)
        # No other storage has a negative key. The data pointer of all meta storages is 0.
        return _address(tensor.untyped_storage()) if address is None else -address

    def _watch(self, tensor: torch.Tensor, key: int, index: int) -> int:
        """Have the death of a storage recorded, and return its size in bytes."""
        # A Python object of a placeholder's storage would count as another holder of it.
        if key < 0:
            self.placeholders.when_dead(-key, partial(self._died, key, index))
            return self.placeholders.bytes_at(-key)
        storage = tensor.untyped_storage()
        weakref.finalize(storage, self._died, key, index)
        return storage.nbytes()

    def _died(self, key: int, index: int) -> None:
        if self._alive.get(key) == index:
            del self._alive[key]
            self._record(Event.DEATH, index)

    def _record(self, event: Event, index: int) -> None:
        site = self._sites.setdefault(self.site(), len(self._sites))
        self._events.append((event, index, site))

    def tape(self) -> Tape:
        """Return the tape so far, without optimizer state of parameters that have no gradient."""
        kept = [
            index
            for index, noted in enumerate(self._noted)
            if noted.owner is None or noted.owner in self._with_gradient
        ]
        renumbered = {index: position for position, index in enumerate(kept)}
        before = [0, *accumulate(int(index in renumbered) for _, index, _ in self._events)]
        return Tape(
            dims=tuple(self._noted[index].dims for index in kept),
            float_bytes=tuple(self._noted[index].float_bytes for index in kept),
            category=tuple(self._noted[index].category for index in kept),
            events=tuple(
                _in_order(
                    (event, renumbered[index], site)
                    for event, index, site in self._events
                    if index in renumbered
                )
            ),
            sites=tuple(self._sites),
            macs=tuple(self._macs),
            chunks=tuple(self._noted[index].chunk for index in kept),
            runs=tuple(
                replace(
                    run,
                    position=before[run.position],
                    results=tuple(
                        None if index is None else renumbered[index] for index in run.results
                    ),
                )
                for run in self._runs
            ),
        )


class Intercepting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base is untyped
    """Shows a recorder the operators of devices that have no placeholders.

    While a mode is active, PyTorch adds gradients out of place, and takes other formulas for some
    operators' gradients.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func.name() == "prim::device":  # a frequent query on fake tensors that makes no tensor
            return func(*args, **named)
        return self._recorder.record(
            func,
            args,
            named,
            lambda strides: _laid_out(
                run_as_on_cpu(func, args, named),
                strides,
            ),
        )


def _laid_out(result: Any, strides: Sequence[Stride | None]) -> Any:
    """Give the tensors of an operator's result the strides that a device gives them."""
    if not strides:
        return result
    leaves, form = tree_flatten(result)
    return tree_unflatten(
        [
            leaf
            if stride is None
            else torch.empty_strided(leaf.shape, stride, dtype=leaf.dtype, device=leaf.device)
            for leaf, stride in zip(leaves, strides, strict=True)
        ],
        form,
    )


def _in_order(events: Iterable[tuple[Event, int, int]]) -> Iterator[tuple[Event, int, int]]:
    """Sort buffers that die together by number: caches release their tensors in arbitrary order."""
    for (event, _), run in groupby(events, key=lambda item: (item[0], item[2])):
        together = list(run)
        if event == Event.DEATH:
            together.sort(key=lambda item: item[1])
        yield from together


def _address(storage: torch.UntypedStorage) -> int:
    """Return the identity of a storage. The data pointer of all meta storages is 0."""
    return int(storage._cdata)  # noqa: SLF001  # no public name
