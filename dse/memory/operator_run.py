"""An operator as it was dispatched, without its tensors: what it takes to run it alone again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map

from dse.memory.site import Phase

Stride = tuple[int, ...]


@dataclass(frozen=True)
class TensorSpec:
    """The layout of a tensor that an operator was given.

    Attributes:
        shape, stride: of the tensor.
        dtype: of its elements.
        on_device: whether it lies on the device that the step runs on; optimizers keep their
            step counters on the CPU.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    on_device: bool

    def zeros(self, device: str) -> torch.Tensor:
        """A tensor of zeros laid out like it: indices within any range, and no slow numbers."""
        reach = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)) + 1
        elements = 0 if 0 in self.shape else reach
        place = device if self.on_device else "cpu"
        return torch.zeros(elements, dtype=self.dtype, device=place).as_strided(
            self.shape, self.stride
        )


@dataclass(frozen=True)
class OperatorRun:
    """One operator of a step.

    Attributes:
        position: how many events of the tape came before it ended, its results' births among them.
        phase: of the step.
        function: the dispatched overload.
        arguments: positional ones and (name, value) pairs, ``TensorSpec`` in place of tensors.
        results: for each thing that it returned the buffer that it made; None where it made none,
            as for views, results in place and gradients that aren't needed.
        strides: of each of these buffers as traced; None where it made none.
    """

    position: int
    phase: Phase
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    results: tuple[int | None, ...]
    strides: tuple[Stride | None, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for runs that allocate the same."""
        makes = tuple(result is not None for result in self.results)
        return (self.phase == "backward", self.function, self.arguments, makes)

    @property
    def call(self) -> tuple[Any, ...]:
        """Equal for runs that lay out their results alike."""
        return (self.function, self.arguments)

    def on(self, device: str) -> Callable[[], Any]:
        """The operator with arguments of zeros, ready to be called, again and again."""
        args, kwargs = _with_tensors(self.arguments, device)
        return lambda: self.function(*args, **dict(kwargs))


def argument_specs(args: Sequence[Any], kwargs: Mapping[str, Any], *, device_type: str) -> Any:
    """An operator's arguments as a run keeps them, see ``OperatorRun``."""

    def spec(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            on_device = value.device.type in (device_type, "meta")
            return TensorSpec(tuple(value.shape), value.stride(), value.dtype, on_device)
        return value

    return _frozen(tree_map(spec, (args, tuple(kwargs.items()))))


def recorded_run(
    function: Any,
    arguments: tuple[Any, ...],
    *,
    phase: Phase,
    position: int,
    results: tuple[int | None, ...],
    strides: tuple[Stride | None, ...],
) -> OperatorRun | None:
    """Note an operator that may allocate; None for views and questions.

    Args:
        function: the dispatched overload.
        arguments: see ``argument_specs``.
        phase: of the step.
        position: events of the tape so far.
        results: buffers that it made, see ``OperatorRun``.
        strides: of everything that it returned.
    """
    schema = function._schema  # noqa: SLF001  # no public name
    if any(each.alias_info is not None for each in schema.returns):
        results = (None,) * len(results)  # what it returns was made by somebody else
    if all(result is None for result in results) and not schema.is_mutable:
        return None
    made = tuple(
        None if result is None else stride for result, stride in zip(results, strides, strict=True)
    )
    return OperatorRun(position, phase, function, arguments, results, made)


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that runs can be told apart by equality."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(each) for each in value)
    return value


def _with_tensors(value: Any, device: str) -> Any:
    if isinstance(value, TensorSpec):
        return value.zeros(device)
    if isinstance(value, tuple):
        return tuple(_with_tensors(each, device) for each in value)
    return value
