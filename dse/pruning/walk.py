"""Walk Torch-Pruning's dependency graph to find the channels tied to those of one layer.

Torch-Pruning has its own walk, but it rebuilds every concatenation of the network for each layer
and keeps one object per channel and place. This walk visits the same graph in the same order with
arrays.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.conv import _ConvNd

from dse.errors import PruningError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Reached:
    """Channels that were reached in one dimension of one module.

    Attributes:
        target: Torch-Pruning's node of the module.
        handler: Torch-Pruning's pruning function of the dimension.
        positions: Positions in the dimension, shape (n,).
        channels: Channel of the root at each position, shape (n,).
    """

    target: Any
    handler: Callable[..., Any]
    positions: Ints
    channels: Ints


def all_reached(
    graph: Any, *, ignored: Collection[nn.Module], most_entries: int
) -> Iterator[list[Reached]]:
    """Find what the output channels of every convolution and linear layer reach.

    Args:
        graph: A built ``torch_pruning.DependencyGraph``.
        ignored: Layers whose output channels can't be pruned. Whatever reaches one is left out.
        most_entries: Limit of the channels to follow, counted once per place.

    Yields:
        One list for each set of layers whose channels depend on each other.

    Raises:
        PruningError: If the walk exceeds `most_entries`.
    """
    met: set[nn.Module] = set()
    left = most_entries
    for module in graph.module2node:
        if module in met or module in ignored or not isinstance(module, (_ConvNd, nn.Linear)):
            continue
        walk = _Walk(graph, module, left)
        left = walk.left
        reached = walk.merged()
        shrinking = [
            each.target.module for each in reached if graph.is_out_channel_pruning_fn(each.handler)
        ]
        met.update(shrinking)
        if not any(each in ignored for each in shrinking):
            yield reached


class _Walk:
    """Everything that the output channels of one layer reach, in depth-first order."""

    def __init__(self, graph: Any, root: nn.Module, left: int) -> None:
        self.left = left
        self._reached: dict[tuple[Any, Callable[..., Any]], list[tuple[Ints, Ints]]] = {}
        pruner = graph.get_pruner_of_module(root)
        all_channels = np.arange(pruner.get_out_channels(root), dtype=np.int64)
        start = (graph.module2node[root], pruner.prune_out_channels, all_channels, all_channels)
        self._note(*start)
        stack = [start]
        while stack:
            node, handler, positions, channels = stack.pop()
            reach = (int(positions.min()), int(positions.max()))
            for dependency in node.dependencies:
                if not dependency.is_triggered_by(handler) or _misses(dependency, *reach):
                    continue
                there = self._mapped(dependency, positions, channels)
                entry = (dependency.target, dependency.handler, *there)
                if len(there[0]) and self._note(*entry):
                    stack.append(entry)

    def merged(self) -> list[Reached]:
        """Return each place once. If several channels reach a position, the first one counts."""
        result = []
        for (target, handler), found in self._reached.items():
            positions, channels = found[0]
            if len(found) > 1:
                positions = np.concatenate([each for each, _ in found])
                channels = np.concatenate([each for _, each in found])
                first = np.full(int(positions.max()) + 1, -1)
                first[positions[::-1]] = channels[::-1]  # the last write wins, so reverse the order
                positions = np.flatnonzero(first >= 0)
                channels = first[positions]
            result.append(Reached(target, handler, positions, channels))
        return result

    def _note(
        self, target: Any, handler: Callable[..., Any], positions: Ints, channels: Ints
    ) -> bool:
        """Record these channels at a place. Return whether they are new there."""
        found = self._reached.setdefault((target, handler), [])
        if any(
            np.array_equal(positions, old) and np.array_equal(channels, theirs)
            for old, theirs in found
        ):
            return False
        found.append((positions, channels))
        return True

    def _mapped(self, dependency: Any, positions: Ints, channels: Ints) -> tuple[Ints, Ints]:
        self._spend(1)
        for mapping in dependency.index_mapping:
            if mapping is not None:
                # Flattening multiplies entries, in one case so often that a single step never ends.
                # Charge its cost before running it.
                grows = not mapping.reverse
                self._spend(len(positions) * (getattr(mapping, "_stride", 1) if grows else 1))
                positions, channels = _applied(mapping, positions, channels)
        return positions, channels

    def _spend(self, entries: int) -> None:
        self.left -= entries
        if self.left < 0:
            raise PruningError(
                "its channels are rearranged in ways that Torch-Pruning can't follow; use a "
                "convolutional network without attention windows"
            )


def _misses(dependency: Any, lowest: int, highest: int) -> bool:
    """Whether a dependency keeps none of these positions, as most parts of a concatenation do."""
    mapping = next((each for each in dependency.index_mapping if each is not None), None)
    if mapping is None or not _narrows(mapping):
        return False
    start, end = mapping.offset
    return bool(highest < start or lowest >= end)


def _narrows(mapping: Any) -> bool:
    """Whether an operation selects a part of a whole."""
    part = {"_ConcatIndexMapping": True, "_SplitIndexMapping": False}
    return part.get(type(mapping).__name__) is bool(mapping.reverse)


def _applied(mapping: Any, positions: Ints, channels: Ints) -> tuple[Ints, Ints]:
    """Map positions from before an operation to after it, or back."""
    kind, back = type(mapping).__name__, mapping.reverse
    if kind == "_FlattenIndexMapping":
        stride = mapping._stride  # noqa: SLF001  # Torch-Pruning has no public name for it
        if back:
            return _distinct(positions // stride, channels)
        return (positions[:, None] * stride + np.arange(stride)).ravel(), channels.repeat(stride)
    if kind in ("_ConcatIndexMapping", "_SplitIndexMapping"):
        start, end = mapping.offset
        if not _narrows(mapping):
            return positions + start, channels
        inside = (positions >= start) & (positions < end)
        return positions[inside] - start, channels[inside]
    if kind == "_SliceIndexMapping":
        if back:
            return positions * mapping.step + mapping.start, channels
        inside = (positions >= mapping.start) & (positions < mapping.end)
        inside &= (positions - mapping.start) % mapping.step == 0
        return (positions[inside] - mapping.start) // mapping.step, channels[inside]
    raise PruningError(f"its channels pass through an operation that isn't followed ({kind})")


def _distinct(positions: Ints, channels: Ints) -> tuple[Ints, Ints]:
    pairs = np.unique(np.stack([positions, channels]), axis=1)
    return pairs[0], pairs[1]
