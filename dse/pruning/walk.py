"""Walk Torch-Pruning's dependency graph to find the channels tied to those of one layer.

Torch-Pruning has its own walk, but it rebuilds every concatenation of the network for each layer
and keeps one object per channel and place. This walk visits the same graph in the same order with
arrays.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.conv import _ConvNd

from dse.errors import PruningError
from dse.pruning.lenient_graph import LenientGraph, place_of
from dse.user_code import described

Ints = NDArray[np.int64]

# A step along the graph takes as much time as handling about this many entries. No layer of
# densenet201, hrnet or dla takes more than 400 steps; nested splits take steps without bound.
_STEP_ENTRIES = 200


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


@dataclass(frozen=True)
class Walked:
    """Everything that the output channels of one layer reach, or why that can't be followed.

    Attributes:
        root: The layer.
        reached: Places that depend on its channels; empty if there is a reason.
        shrinking: Modules whose output channels were reached. If there is a reason, they share it.
        reason: Why the channels can't be followed, or can't be removed.
    """

    root: nn.Module
    reached: list[Reached]
    shrinking: tuple[nn.Module, ...]
    reason: str | None = None


def all_reached(
    graph: LenientGraph, *, fixed: Mapping[nn.Module, str], most_entries: int
) -> Iterator[Walked]:
    """Find what the output channels of every convolution and linear layer reach.

    Args:
        graph: The network's dependency graph.
        fixed: Layers whose output channels can't be pruned, each with the reason, which holds for
            all channels that depend on them.
        most_entries: Limit of the channels to follow from one layer, counted once per place.

    Yields:
        One walk for each set of layers whose channels depend on each other.
    """
    met: set[nn.Module] = set()
    for module in graph.graph.module2node:
        if module in met or module in fixed or not isinstance(module, (_ConvNd, nn.Linear)):
            continue
        walk = _Walk(graph, module, most_entries)
        reason: str | None = None
        reached: list[Reached] = []
        try:
            walk.run()
            reached = walk.merged()
        except PruningError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # any failure of Torch-Pruning's is a reason
            reason = f"Torch-Pruning can't follow {walk.place()} ({described(error)})"
        shrinking = walk.shrinking()
        met.update(shrinking)
        reason = next((fixed[each] for each in shrinking if each in fixed), reason)
        yield Walked(module, [] if reason else reached, shrinking, reason)


class _Walk:
    """Everything that the output channels of one layer reach, in depth-first order."""

    def __init__(self, graph: LenientGraph, root: nn.Module, left: int) -> None:
        self._graph = graph
        self._root = root
        self._left = left
        self._at = graph.graph.module2node[root]
        self._reached: dict[tuple[Any, Callable[..., Any]], list[tuple[Ints, Ints]]] = {}
        self._noted: set[tuple[int, Callable[..., Any], bytes, bytes]] = set()

    def run(self) -> None:
        """Follow the channels.

        Raises:
            PruningError: If that takes too long, or they pass through an operation that can't be
                followed.
        """
        graph = self._graph.graph
        pruner = graph.get_pruner_of_module(self._root)
        all_channels = np.arange(pruner.get_out_channels(self._root), dtype=np.int64)
        start = (
            graph.module2node[self._root],
            pruner.prune_out_channels,
            all_channels,
            all_channels,
        )
        self._note(*start)
        stack = [start]
        while stack:
            node, handler, positions, channels = stack.pop()
            self._at = node
            if node in self._graph.lost:
                raise PruningError(self._graph.lost[node])
            reach = (int(positions.min()), int(positions.max()))
            for dependency in node.dependencies:
                if not dependency.is_triggered_by(handler) or _misses(dependency, *reach):
                    continue
                there = self._mapped(dependency, positions, channels)
                entry = (dependency.target, dependency.handler, *there)
                if len(there[0]) and self._note(*entry):
                    stack.append(entry)

    def place(self) -> str:
        """Say which operation the walk has come to."""
        return place_of(self._at)

    def shrinking(self) -> tuple[nn.Module, ...]:
        """Return the modules whose output channels have been reached so far."""
        shrinks = self._graph.graph.is_out_channel_pruning_fn
        return tuple(target.module for target, handler in self._reached if shrinks(handler))

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
        entry = (id(target), handler, positions.tobytes(), channels.tobytes())
        if entry in self._noted:
            return False
        self._noted.add(entry)
        self._reached.setdefault((target, handler), []).append((positions, channels))
        return True

    def _mapped(self, dependency: Any, positions: Ints, channels: Ints) -> tuple[Ints, Ints]:
        self._spend(_STEP_ENTRIES, dependency)
        for mapping in dependency.index_mapping:
            if mapping is not None:
                # Flattening multiplies entries, in one case so often that a single step never ends.
                # Charge its cost before running it.
                grows = not mapping.reverse
                stride = getattr(mapping, "_stride", 1) if grows else 1
                self._spend(len(positions) * stride, dependency)
                positions, channels = _applied(mapping, positions, channels, dependency)
        return positions, channels

    def _spend(self, entries: int, dependency: Any) -> None:
        self._left -= entries
        if self._left < 0:
            raise PruningError(
                "its channels are rearranged without end: they were followed to "
                f"{place_of(dependency.target)}"
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


def _applied(mapping: Any, positions: Ints, channels: Ints, dependency: Any) -> tuple[Ints, Ints]:
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
    raise PruningError(
        f"its channels pass through {place_of(dependency.target)}, which can't be followed ({kind})"
    )


def _distinct(positions: Ints, channels: Ints) -> tuple[Ints, Ints]:
    pairs = np.unique(np.stack([positions, channels]), axis=1)
    return pairs[0], pairs[1]
