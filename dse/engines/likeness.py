"""Tell which blocks of a network are alike, so that one of them stands for all."""

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor, nn

from dse.engines.graph import Ref
from dse.engines.op import Modules, tensor_at
from dse.engines.segments import Segment


def likeness(segment: Segment, modules: Modules) -> Hashable:
    """Describe a segment without names. Segments with one description hold and need the same.

    Args:
        segment: The segment.
        modules: The network's modules by name.

    Returns:
        Its calls in order: each with what it calls, the shapes and freezing of its parameters and
        the places of the calls that it reads.
    """
    places = {segment.input: -1}
    places.update((node.name, place) for place, node in enumerate(segment.nodes))
    describe = _Tensors()

    def target(kind: str, name: Any) -> Hashable:
        if kind == "tensor":
            return describe(tensor_at(modules, name))
        return describe.module(modules[name]) if kind == "module" else name

    return tuple(
        (
            node.kind,
            target(node.kind, node.target),
            _plain(node.args, places),
            _plain(node.kwargs, places),
        )
        for node in segment.nodes
    )


def _plain(value: Any, places: Mapping[str, int]) -> Hashable:
    """Return nested arguments with places in place of references."""
    if isinstance(value, Ref):
        return ("result", places[value.name])
    if isinstance(value, (tuple, list)):
        return (type(value), *(_plain(each, places) for each in value))
    if isinstance(value, Mapping):
        return tuple((key, _plain(each, places)) for key, each in value.items())
    if isinstance(value, slice):
        return ("slice", _plain((value.start, value.stop, value.step), places))
    return (type(value), repr(value))


class _Tensors:
    """Describes parameters and buffers. Those that are shared share their gradients."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def __call__(self, value: Tensor | None) -> Hashable:
        if value is None:
            return None
        number = self._numbers.setdefault(id(value), len(self._numbers))
        return (number, value.shape, value.stride(), value.dtype, value.requires_grad)

    def module(self, owner: nn.Module) -> Hashable:
        """Describe a module."""
        own = []
        for each in owner.modules():
            held = (*each._parameters.values(), *each._buffers.values())  # noqa: SLF001
            hooks = len(each._forward_hooks)  # noqa: SLF001
            tensors = tuple(self(tensor) for tensor in held)
            own.append((type(each), each.extra_repr(), each.training, hooks, tensors))
        return tuple(own)
