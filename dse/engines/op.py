"""The interface of an operator that lean training can run, run again and differentiate."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dse.engines.layouts import Layout
from dse.errors import NetworkError

OUTPUT = -1
"""In ``Op.needs``: the operator's own output. Other numbers are positions in ``Op.inputs``."""

Modules = Mapping[str, nn.Module]
Grads = Sequence[Tensor | None]


def present(value: Tensor | None) -> Tensor:
    """Return a tensor that an operator has announced that it reads."""
    if value is None:
        raise RuntimeError("an operator reads a value that its schedule does not hold")
    return value


def refuse_second_derivative() -> None:
    """Refuse a backward pass that is itself to be differentiated.

    Raises:
        NetworkError: If gradients are being recorded.
    """
    if torch.is_grad_enabled():
        raise NetworkError(
            "a lean network can't be differentiated twice: leave create_graph off, or use "
            "dse.unlean(network)"
        )


def tensor_at(modules: Modules, name: str) -> Tensor | None:
    """Return the parameter or buffer of a dotted name."""
    owner, _, attribute = name.rpartition(".")
    return getattr(modules[owner], attribute)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Slice:
    """The channels that one chunk covers: ``start`` to ``stop`` of ``parts`` equal parts.

    Attributes:
        start, stop: First part, and the part after the last.
        parts: Number of parts that a tensor's channels consist of.
    """

    start: int
    stop: int
    parts: int

    def of(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """Return a view of the chunk's channels, which lie in dimension ``dim``."""
        span = tensor.shape[dim] // self.parts
        return tensor.narrow(dim, self.start * span, (self.stop - self.start) * span)


@dataclass(frozen=True)
class Wanted:
    """Which gradients an operator's backward pass must return.

    Attributes:
        inputs: One flag per input value.
        parameters: One flag per parameter.
    """

    inputs: tuple[bool, ...]
    parameters: tuple[bool, ...]

    def __bool__(self) -> bool:
        """Whether any gradient is wanted."""
        return any(self.inputs) or any(self.parameters)


@dataclass(frozen=True)
class Op(ABC):
    """One operator of a region.

    Its values are numbered: value 0 is the region's input, and value ``i + 1`` the output of the
    region's operator ``i``.

    Attributes:
        inputs: Numbers of the values that it reads.
        tensors: Dotted names of its parameters in the network, None where it has none.
    """

    inputs: tuple[int, ...]
    tensors: tuple[str | None, ...] = ()

    heavy: ClassVar[bool] = False  # too costly to run again unless memory demands it
    elementwise: ClassVar[bool] = False  # may overwrite its first input
    local: ClassVar[bool] = False  # computes every channel from the same channel alone
    same_in_slices: ClassVar[bool] = False  # and to the same bits, whatever channels are beside it
    views: ClassVar[bool] = False  # the output may share the input's memory
    either: ClassVar[bool] = False  # the backward pass may read the input in place of the output
    fresh: ClassVar[bool] = True  # gradients of inputs are tensors that nobody else holds

    def parameters(self, modules: Modules) -> tuple[Tensor | None, ...]:
        """Return the tensors that may need a gradient."""
        return tuple(None if name is None else tensor_at(modules, name) for name in self.tensors)

    def state(self, modules: Modules, *, first: bool) -> Any:
        """Return what else the operator reads: buffers, and modes that may change between steps.

        Args:
            modules: The network's modules by name.
            first: Whether a forward pass begins, so that counters of batches advance.
        """
        return None

    def trait(self, state: Any) -> Hashable:
        """Return the part of the state that decides what the backward pass needs."""
        return None

    @abstractmethod
    def forward(
        self, inputs: Sequence[Tensor], parameters: Grads, state: Any, *, in_place: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the operator for the first time.

        Args:
            inputs: Input values.
            parameters: What ``parameters`` returned.
            state: What ``state`` returned.
            in_place: Whether the first input may be overwritten.

        Returns:
            The output, and small tensors to keep for the backward pass.
        """

    def again(
        self,
        inputs: Sequence[Tensor],
        parameters: Grads,
        state: Any,
        kept: Sequence[Tensor],
        *,
        in_place: bool,
    ) -> Tensor:
        """Compute the output once more, with the same bits and without side effects."""
        return self.forward(inputs, parameters, state, in_place=in_place)[0]

    @abstractmethod
    def needs(self, wanted: Wanted, trait: Hashable) -> frozenset[int]:
        """Return which inputs the backward pass reads, as positions, or ``OUTPUT``."""

    @abstractmethod
    def backward(
        self,
        grad: Tensor,
        inputs: Sequence[Tensor | None],
        output: Tensor | None,
        call: "Call",
    ) -> tuple[Grads, Grads]:
        """Differentiate the operator.

        Args:
            grad: Gradient of the output.
            inputs: Input values, None where ``needs`` does not include them.
            output: The output, None unless ``needs`` includes it.
            call: Everything else.

        Returns:
            Gradients of the inputs and of the parameters, None where they are not wanted.
        """

    def sliced(self, parameters: Grads, chunk: Slice) -> tuple[Tensor | None, ...]:
        """Return views of the parameters of one chunk, if the operator is ``local``."""
        return tuple(None if p is None else chunk.of(p) for p in parameters)

    def sliced_state(self, state: Any, chunk: Slice) -> Any:
        """Return the state of one chunk."""
        return state


@dataclass(frozen=True)
class Call:
    """What the backward pass of one operator gets beside its values.

    Attributes:
        parameters, state: As in the forward pass.
        kept: Small tensors that ``forward`` returned.
        wanted: Which gradients to return.
        layouts: Layout of each input value.
        overwrite: Whether the output's gradient may be overwritten.
        spend: Whether the first input may be overwritten.
    """

    parameters: Grads
    state: Any
    kept: Sequence[Tensor]
    wanted: Wanted
    layouts: Sequence[Layout]
    overwrite: bool
    spend: bool = False

    @property
    def shapes(self) -> list[torch.Size]:
        """Shape of each input value."""
        return [layout.shape for layout in self.layouts]
