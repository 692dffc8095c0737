"""Follow skip connections: which modules return their input with a branch added to it.

A forward pass runs on the meta device. For each running module it is noted which tensors are its
input with nothing but branches added. What moves elements, such as a permutation, is repeated on
their numbers: an output counts only if every element has returned to its place.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dse.networks.forward import is_leaf, tensors_in
from dse.pruning.shape_kernels import ShapeKernels

_SAME = frozenset(("clone", "alias", "detach", "_to_copy", "slice", "expand"))
_RESHAPED = frozenset(("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze"))
_MOVED = frozenset(("permute", "transpose", "t"))
_ACTIVATIONS = frozenset(
    ("relu", "hardtanh", "silu", "gelu", "hardswish", "leaky_relu", "elu", "mish", "tanh")
)
_IDEMPOTENT = frozenset(("relu", "hardtanh"))
_NORMS = frozenset(
    (
        "native_layer_norm",
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "native_group_norm",
        "_fused_rms_norm",
    )
)
_KEEPING_SIGN = _SAME | _RESHAPED | _MOVED | {"max_pool2d_with_indices"}

SEVERAL = "it returns more than one tensor"
_NO_SKIP = "its output isn't its input with a branch added to it"


@dataclass(frozen=True)
class FollowedCall:
    """One call of a module that has modules and parameters.

    Attributes:
        name: Name of the module.
        inside: Names of the modules that called it, the outermost first.
        plain: Whether it took one positional tensor and returned one tensor.
        outputs: Number of values that it returned in a tuple; None for a tensor.
        shape: Shape of its output without the batch; empty if it returned no single tensor.
        additions: Numbers of the additions of branches to its input; empty if its output isn't its
            input with branches added.
        after: Operators that its output passes besides, such as a norm of the sum.
        trouble: Why it isn't a block with a skip connection; None if it is.
    """

    name: str
    inside: tuple[str, ...]
    plain: bool = False
    outputs: int | None = None
    shape: tuple[int, ...] = ()
    additions: frozenset[int] = frozenset()
    after: tuple[str, ...] = ()
    trouble: str | None = None


def followed_skips(network: nn.Module, sample: Tensor) -> tuple[FollowedCall, ...]:
    """Run a network and follow the skip connections of its modules.

    Args:
        network: Network in eval mode on the meta device.
        sample: One input, on the meta device.

    Returns:
        The calls of modules, in the order in which they ended.
    """
    noted = _Noted()
    with ExitStack() as stack:
        for name, module in network.named_modules():
            if name and not is_leaf(module) and next(module.parameters(), None) is not None:
                before = module.register_forward_pre_hook(
                    lambda _module, args, kwargs, name=name: noted.enter(name, args, kwargs),
                    with_kwargs=True,
                )
                after = module.register_forward_hook(
                    lambda _module, args, kwargs, out: noted.leave(args, kwargs, out),
                    with_kwargs=True,
                )
                stack.callback(before.remove)
                stack.callback(after.remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(ShapeKernels())
        stack.enter_context(_Watch(noted))
        network(sample)
    return tuple(noted.calls)


def first_tensor(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the first tensor among a module's arguments, which its skip connection takes."""
    return next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)


@dataclass(frozen=True, eq=False)
class _Carried:
    """A tensor that is a module's input with branches added."""

    tensor: Tensor  # kept, so that its id stays its own
    numbers: Tensor | None = None  # of the input's elements, once they were moved
    after: tuple[str, ...] = ()
    additions: frozenset[int] = frozenset()

    def is_in_place(self, given: Tensor) -> bool:
        """Whether every element of a module's input is where it was."""
        if self.tensor.shape != given.shape:
            return False
        return self.numbers is None or torch.equal(self.numbers, _numbered(given))


@dataclass(frozen=True, eq=False)
class _Ran:
    """An operator that has run."""

    name: str
    args: Sequence[Any]
    alpha: float
    result: Tensor
    number: int


@dataclass(frozen=True, eq=False)
class _Frame:
    """A module that is running."""

    name: str
    given: Tensor | None
    carried: dict[int, _Carried] = field(default_factory=dict)
    derived: dict[int, Tensor] = field(default_factory=dict)  # from its input


class _Noted:
    """Skip connections, filled during one forward pass."""

    def __init__(self) -> None:
        self.calls: list[FollowedCall] = []
        self._running: list[_Frame] = []
        self._activated: dict[int, tuple[Tensor, str]] = {}  # what an activation has computed
        self._numbers = count()

    def enter(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        given = first_tensor(args, kwargs)
        frame = _Frame(name, given)
        if given is not None:
            frame.carried[id(given)] = _Carried(given)
            frame.derived[id(given)] = given
        self._running.append(frame)

    def leave(self, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        frame = self._running.pop()
        call = FollowedCall(frame.name, tuple(one.name for one in self._running))
        self.calls.append(_ended(call, frame, args, kwargs, output))

    def ran(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        name = func._schema.name.removeprefix("aten::")  # noqa: SLF001  # no public name
        if name not in _SAME and not name.startswith("_"):
            name = name.removesuffix("_")
        inputs = list(tensors_in([*args, *kwargs.values()]))
        results = list(tensors_in(out))
        if not results:
            return
        ran = _Ran(name, args, kwargs.get("alpha", 1), results[0], next(self._numbers))
        for frame in self._running:
            if not any(id(one) in frame.derived for one in inputs):
                frame.carried.pop(id(results[0]), None)
                continue
            found = self._carried(frame, ran)
            frame.derived.update((id(one), one) for one in results)
            frame.carried.pop(id(results[0]), None)  # it may have been overwritten
            if found is not None:
                frame.carried[id(results[0])] = found
        self._note_activation(name, args, inputs, results[0])

    def _note_activation(
        self, name: str, args: Sequence[Any], inputs: Sequence[Tensor], result: Tensor
    ) -> None:
        before = self._activated.get(id(inputs[0])) if inputs else None
        self._activated.pop(id(result), None)
        if name in _IDEMPOTENT:
            self._activated[id(result)] = (result, _written(name, args))
        elif name in _KEEPING_SIGN and before is not None:
            self._activated[id(result)] = (result, before[1])

    def _carried(self, frame: _Frame, ran: _Ran) -> _Carried | None:
        """Return what an operator's result carries of a module's input; None if nothing."""
        if ran.name == "add":
            return _sum(frame, ran)
        first = frame.carried.get(id(ran.args[0])) if ran.args else None
        if first is None:
            return None
        if ran.name in _SAME | _RESHAPED | _MOVED:
            return _rearranged(first, ran)
        # What begins with a norm or an activation is a branch. After a sum it belongs to the block.
        if first.additions and ran.name in _NORMS | _ACTIVATIONS:
            given = self._activated.get(id(frame.given))
            if not first.after and given is not None and given[1] == _written(ran.name, ran.args):
                return replace(first, tensor=ran.result)  # applied again, it changes nothing
            word = "norm" if ran.name in _NORMS else ran.name
            return replace(first, tensor=ran.result, after=(*first.after, word))
        return None


def _ended(
    call: FollowedCall, frame: _Frame, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
) -> FollowedCall:
    """Complete the description of a call."""
    first, outputs = output, None
    if isinstance(output, tuple) and output and not any(tensors_in(list(output[1:]))):
        first, outputs = output[0], len(output)
    if frame.given is None:
        return replace(call, trouble="it takes no tensor")
    if not isinstance(first, Tensor):
        return replace(call, trouble=f"{SEVERAL} ({type(output).__name__})")
    if first.shape != frame.given.shape:
        shapes = [tuple(one.shape[1:]) for one in (frame.given, first)]
        return replace(call, trouble=f"it turns {shapes[0]} into {shapes[1]}")
    found = frame.carried.get(id(first))
    if found is None or not found.additions or not found.is_in_place(frame.given):
        return replace(call, trouble=_NO_SKIP)
    plain = outputs is None and len(args) == 1 and not kwargs
    return replace(
        call,
        plain=plain,
        outputs=outputs,
        shape=tuple(first.shape[1:]),
        additions=found.additions,
        after=found.after,
    )


def _sum(frame: _Frame, ran: _Ran) -> _Carried | None:
    """Return what a sum carries: the one of its terms that is the input; None if both are."""
    first, second = (frame.carried.get(id(one)) for one in ran.args[:2])
    if (first is None) == (second is None):
        return None
    carried, branch = (first, ran.args[1]) if second is None else (second, ran.args[0])
    if carried is None or ran.result.shape != carried.tensor.shape:
        return None
    if carried is second and ran.alpha != 1:
        return None
    # A sum with what doesn't come from the input, such as positions, is no branch.
    own = {ran.number} if id(branch) in frame.derived else set()
    return replace(carried, tensor=ran.result, additions=carried.additions | own)


def _rearranged(carried: _Carried, ran: _Ran) -> _Carried | None:
    """Return a tensor whose elements were moved or given another shape; None if some are lost."""
    if ran.name in _SAME:
        same = ran.result.shape == carried.tensor.shape
        return replace(carried, tensor=ran.result) if same else None
    numbers = _numbered(carried.tensor) if carried.numbers is None else carried.numbers
    if ran.name in _RESHAPED:
        return replace(carried, tensor=ran.result, numbers=numbers.reshape(ran.result.shape))
    if ran.name == "permute":
        return replace(carried, tensor=ran.result, numbers=numbers.permute(ran.args[1]))
    axes = ran.args[1:] or (0, 1)
    return replace(carried, tensor=ran.result, numbers=numbers.transpose(*axes))


def _numbered(tensor: Tensor) -> Tensor:
    return torch.arange(tensor.numel()).reshape(tensor.shape)


def _written(name: str, args: Sequence[Any]) -> str:
    """Name an activation with its limits, as in ``hardtanh 0.0 6.0``."""
    return " ".join([name, *(str(float(one)) for one in args[1:])])


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its base is untyped
    """Notes every operator that runs within this context."""

    def __init__(self, noted: _Noted) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._noted = noted

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self._noted.ran(func, args, kwargs or {}, out)
        return out
