"""What the recognition of a call knows, and what the rules for layers and functions share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dse.engines.graph import Node, Ref
from dse.engines.op import Modules, Op
from dse.engines.shapes import GlobalPool

Shapes = Mapping[str, torch.Size]
IMAGE_DIMENSIONS = 4  # dimensions of a batch of images


class UnknownCallError(Exception):
    """The call isn't recognised: stock PyTorch must run it."""


@dataclass(frozen=True)
class Context:
    """What recognition knows beside the node."""

    modules: Modules
    shapes: Shapes
    tensors: Mapping[str, str]  # names of nodes that are parameters or buffers

    def tensor(self, value: Any) -> str | None:
        """Return the dotted name of a parameter, None for None."""
        if value is None:
            return None
        if isinstance(value, Ref) and value.name in self.tensors:
            return self.tensors[value.name]
        raise UnknownCallError


def single(node: Node) -> tuple[str, ...]:
    """Return the name of the only value that a call reads, its first argument."""
    if not isinstance(node.args[0], Ref):
        raise UnknownCallError
    return (node.args[0].name,)


def dropped(_modules: Modules, value: Tensor, *, probability: float) -> Tensor:
    """Apply dropout."""
    return functional.dropout(value, probability, training=True)


def pair(value: Any) -> tuple[int, int]:
    """Return an argument of two sides, given once or for each side."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def to_one(size: Any, node: Node, context: Context) -> Op:
    """Recognise adaptive pooling of images to one value per channel."""
    dimensions = len(context.shapes[node.args[0].name])
    if size not in (1, (1, 1), [1, 1]) or dimensions != IMAGE_DIMENSIONS:
        raise UnknownCallError
    return GlobalPool((), adaptive=True)
