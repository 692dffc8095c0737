"""Networks that take several inputs, as networks that take one tensor."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dse.inputs import InputSpec

_BACK: dict[str, Callable[[Tensor], Tensor]] = {
    "int64": lambda tensor: tensor.long(),
    "float32": lambda tensor: tensor.float(),
    "bool": lambda tensor: tensor != 0,
}


@contextmanager
def _masks_whatever_they_hold() -> Iterator[None]:
    """Let transformers build attention masks from every mask, also from one that hides nothing.

    It leaves the mask out where all tokens count, so that a step's memory would depend on the
    batch, and tensors without values couldn't pass. While a graph is traced, it doesn't look.
    """
    masks: Any = sys.modules.get("transformers.masking_utils")
    before = getattr(masks, "is_tracing", None)
    if before is None:
        yield
        return
    masks.is_tracing = lambda *_tensor: True
    try:
        yield
    finally:
        masks.is_tracing = before


class SeveralInputs(nn.Module):
    """A network of several inputs of one shape, such as tokens and their mask.

    It takes one tensor, (batch, inputs, ...), or the inputs by name.

    Attributes:
        network: the network itself.
    """

    def __init__(self, network: nn.Module, inputs: InputSpec) -> None:
        super().__init__()
        self.network = network
        self.names, self.kinds = inputs.names, inputs.kinds

    def forward(self, stacked: Tensor | None = None, **named: Tensor) -> Any:
        """Run the network on inputs that are stacked or named."""
        if stacked is None:
            with _masks_whatever_they_hold():
                return self.network(**named)
        parts = [
            _BACK[kind](part)
            for part, kind in zip(torch.unbind(stacked, 1), self.kinds, strict=True)
        ]
        given = dict(zip(self.names, parts, strict=True))
        positional = [part for name, part in given.items() if name.isdecimal()]
        keyed = {name: part for name, part in given.items() if not name.isdecimal()}
        with _masks_whatever_they_hold():
            return self.network(*positional, **keyed)


def adapted(network: nn.Module, inputs: InputSpec | None) -> nn.Module:
    """Return a network that takes one tensor for its inputs."""
    if inputs is None or not inputs.names:
        return network
    return SeveralInputs(network, inputs)
