"""Dispatched operators with the layouts of their tensors, so that each can be run again alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map

from dse.memory.site import Phase

Stride = tuple[int, ...]


@dataclass(frozen=True)
class TensorSpec:
    """The layout of a tensor argument of an operator.

    Attributes:
        shape, stride: Shape and strides of the tensor, in elements.
        dtype: Type of the elements.
        on_device: Whether the tensor is on the device that runs the step. Optimizers keep their
            step counters on the CPU.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    on_device: bool

    def zeros(self, device: str) -> torch.Tensor:
        """Return zeros with this layout. Zeros are valid indices and are never denormal (slow)."""
        # Allocate only the elements that the strides reach, as a broadcast tensor does.
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
        position: Number of the tape's events before the operator ended, including its results'
            births.
        phase: Phase of the step.
        function: The dispatched overload.
        arguments: Positional arguments and (name, value) pairs, with ``TensorSpec`` instead of
            tensors.
        results: For each returned value, the index of the buffer that the operator created. None
            for views, in-place results and gradients that are not needed.
        strides: Strides of each of these buffers in the trace. None where there is no buffer.
    """

    position: int
    phase: Phase
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    results: tuple[int | None, ...]
    strides: tuple[Stride | None, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Key that is equal for runs with equal allocations."""
        makes = tuple(result is not None for result in self.results)
        return (self.phase == "backward", self.function, self.arguments, makes)

    @property
    def call(self) -> tuple[Any, ...]:
        """Key that is equal for runs whose results have equal layouts."""
        return (self.function, self.arguments)

    def on(self, device: str) -> Callable[[], Any]:
        """Return a function that calls the operator with zeros as arguments. It is reusable."""
        args, kwargs = _with_tensors(self.arguments, device)
        return lambda: self.function(*args, **dict(kwargs))


def argument_specs(args: Sequence[Any], kwargs: Mapping[str, Any], *, device_type: str) -> Any:
    """Return an operator's arguments in the form that ``OperatorRun`` stores."""

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
    """Record an operator that may allocate. None for views and queries.

    Args:
        function: The dispatched overload.
        arguments: As returned by ``argument_specs``.
        phase: Phase of the step.
        position: Number of the tape's events so far.
        results: Buffers that the operator created, as in ``OperatorRun``.
        strides: Strides of everything that it returned.
    """
    schema = function._schema  # noqa: SLF001  # no public name
    if any(each.alias_info is not None for each in schema.returns):
        results = (None,) * len(results)  # aliases an argument, so the storage is not new
    if all(result is None for result in results) and not schema.is_mutable:
        return None
    made = tuple(
        None if result is None else stride for result, stride in zip(results, strides, strict=True)
    )
    return OperatorRun(position, phase, function, arguments, results, made)


def _frozen(value: Any) -> Any:
    """Convert lists to tuples recursively, so that runs can be compared and hashed."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(each) for each in value)
    return value


def _with_tensors(value: Any, device: str) -> Any:
    if isinstance(value, TensorSpec):
        return value.zeros(device)
    if isinstance(value, tuple):
        return tuple(_with_tensors(each, device) for each in value)
    return value
