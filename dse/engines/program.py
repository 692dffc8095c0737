"""Run the forward pass of a traced module as its plan says."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dse.engines.activations import RULES, Activation
from dse.engines.chunks import Chunked
from dse.engines.graph import Graph, Node, filled, refs, run_nodes, shapes_of, trace
from dse.engines.op import OUTPUT, Modules, Op
from dse.engines.plan import Choice, ProgramPlan, SegmentPlan
from dse.engines.recognise import named
from dse.engines.recomputed import can_recompute, run_recomputed
from dse.engines.region import Region
from dse.engines.segments import Segment, divide, effects
from dse.engines.spans import Span, cheap_first, chunked, find_span, sliced, span_between

Announce = Callable[[str, bool], None]
"""Called with the title of every segment that begins (True) or ends (False)."""


@dataclass(frozen=True)
class Part:
    """A segment with what can be done with it.

    Attributes:
        segment: The segment.
        ops: Its operators, or None if stock PyTorch must run it.
        span: What can be computed in chunks, if anything.
        shapes: Shape of each operator's value for two images, that of the input first.
        order: Calls of layers whose outputs may be held, in the order in which it pays to run them
            again.
        recomputes: Whether it can be run again as a whole.
    """

    segment: Segment
    ops: tuple[Op, ...] | None
    span: Span | None
    shapes: tuple[torch.Size, ...]
    order: tuple[str, ...]
    recomputes: bool


@dataclass(frozen=True)
class Traced:
    """A traced module, divided into segments.

    Attributes:
        graph: Its graph.
        effects: Calls that only change buffers.
        parts: Its segments.
    """

    graph: Graph
    effects: tuple[Node, ...]
    parts: tuple[Part, ...]


def traced(
    module: nn.Module,
    image: Tensor,
    *,
    borders: Sequence[str] | None = None,
    spans: Mapping[str, tuple[str, str, bool]] | None = None,
) -> Traced | None:
    """Trace a module and divide it.

    Args:
        module: A copy on the meta device, in the modes in which the module is to run.
        image: Its input, two samples on the meta device.
        borders: Last call of every segment, if known.
        spans: First and last call of what is computed in chunks, by the last call of the segment,
            as far as known.

    Returns:
        The traced module, or None if it can't be traced or divided.
    """
    graph = trace(module)
    if graph is None:
        return None
    modules = dict(module.named_modules(remove_duplicate=False))
    shapes = shapes_of(graph, modules, image)
    if shapes is None:
        return None
    segments = divide(graph, modules=modules, shapes=shapes, borders=borders)
    return Traced(
        graph,
        effects(graph),
        tuple(_part(one, shapes, modules, spans or {}) for one in segments),
    )


def _part(
    segment: Segment,
    shapes: Mapping[str, torch.Size],
    modules: Modules,
    spans: Mapping[str, tuple[str, str, bool]],
) -> Part:
    if segment.found is None:
        return Part(segment, None, None, (), (), can_recompute(segment))
    ops = named(segment.found, segment.input)
    own = (shapes[segment.input], *(shapes[each.name] for each in segment.found))
    names = [each.name for each in segment.found]
    span = span_between(names, spans.get(segment.last)) or find_span(ops, own)
    order = tuple(names[value - 1] for value in cheap_first(ops, modules))
    return Part(segment, ops, span, own, order, recomputes=True)


def lean_plan(found: Traced, module: str) -> ProgramPlan:
    """Return the plan that holds only what is needed, wherever that is known."""
    return ProgramPlan(
        module,
        tuple(
            SegmentPlan(
                title=part.segment.title,
                first=part.segment.first,
                last=part.segment.last,
                level="stock" if part.ops is None else "lean",
                recognised=part.ops is not None,
                span=_span_names(part),
            )
            for part in found.parts
        ),
    )


def _span_names(part: Part) -> tuple[str, str, bool] | None:
    if part.span is None or part.segment.found is None:
        return None
    found = part.segment.found
    return found[part.span.start].name, found[part.span.stop - 1].name, part.span.closed


@dataclass(frozen=True)
class Stage:
    """A segment that runs at its level.

    Attributes:
        title: For people to read.
        segment: The segment.
        graph: The graph that it belongs to.
        region: Its operators as one autograd node, or None.
        recomputes: Whether its calls are run again as a whole.
    """

    title: str
    segment: Segment
    graph: Graph
    region: Region | None
    recomputes: bool

    def __call__(self, value: Any, modules: Modules) -> Any:
        """Run the segment."""
        if self.region is not None:
            return self.region(value, modules)
        if self.recomputes:
            return run_recomputed(self.segment, value, modules)
        return _run_stock(self.segment, value, modules, self.graph)


def stages(
    found: Traced, place: int, choices: Sequence[Choice], *, packs: bool = False
) -> Iterator[Stage]:
    """Yield a segment with each of several choices.

    Args:
        found: The traced module.
        place: Number of the segment.
        choices: The choices.
        packs: Whether values are held in 8 bits.
    """
    part = found.parts[place]
    lasts = output_lasts(found, place)
    for choice in choices:
        region = _region(part, choice, lasts=lasts, packs=packs)
        recomputes = region is None and choice.level == "recomputed"
        yield Stage(part.segment.title, part.segment, found.graph, region, recomputes)


class Program:
    """A traced module with a plan.

    Attributes:
        stages: Its segments in order, each at its level.
    """

    def __init__(self, found: Traced, plan: ProgramPlan) -> None:
        self._graph = found.graph
        self._effects = found.effects
        self.stages = [
            next(stages(found, place, [own.choice], packs=plan.packs))
            for place, own in enumerate(plan.segments)
        ]

    def __call__(self, value: Any, modules: Modules, announce: Announce | None = None) -> Any:
        """Run the module."""
        run_nodes(self.effects_with_tensors(), modules, {})
        for stage in self.stages:
            if announce is not None:
                announce(stage.title, True)  # noqa: FBT003  # a callback
            value = stage(value, modules)
            if announce is not None:
                announce(stage.title, False)  # noqa: FBT003
        return value

    def effects_with_tensors(self) -> list[Node]:
        """Return the calls that only change buffers, after the buffers that they read."""
        read = {name for node in self._effects for name in node.reads()}
        tensors = [n for n in self._graph.nodes if n.kind == "tensor" and n.name in read]
        return [*tensors, *self._effects]


def _run_stock(segment: Segment, value: Any, modules: Modules, graph: Graph) -> Any:
    results = {segment.input: value}
    del value
    if segment.output:
        run_nodes(segment.nodes, modules, results, keep=(segment.output,))
        return results[segment.output]
    run_nodes(segment.nodes, modules, results, keep=tuple(refs(graph.output)))
    return filled(graph.output, results)


def _region(part: Part, choice: Choice, *, lasts: bool, packs: bool) -> Region | None:
    if part.ops is None or part.segment.found is None or choice.level == "stock":
        return None
    ops, numbers = part.ops, list(range(len(part.ops) + 1))
    if choice.level == "chunked" and part.span is not None:
        ops = chunked(ops, part.span, choice.chunks)
    elif choice.chunks > 1:
        ops, numbers = sliced(ops, part.shapes, choice.chunks)
    if choice.level == "recomputed":
        return Region(ops, hold="input", packs=packs)
    return Region(
        ops,
        hold="dense",
        holds_output=lasts and not packs and not isinstance(ops[-1], Chunked),
        packs=packs,
        rerun=frozenset(
            numbers[place + 1]
            for place, call in enumerate(part.segment.found)
            if call.name in choice.rerun
        ),
    )


def output_lasts(found: Traced, place: int) -> bool:
    """Whether the next segment holds its input, which this segment's last activation needs."""
    ops = found.parts[place].ops
    if ops is None or place + 1 == len(found.parts):
        return False
    last = ops[-1]
    if not isinstance(last, Activation) or RULES[last.name].reads != OUTPUT:
        return False
    return not found.parts[place + 1].segment.overwrites_input


def input_shapes(network: nn.Module, image: Tensor, names: Sequence[str]) -> dict[str, torch.Size]:
    """Return the shape of the tensor that each of the named modules gets as its only input.

    Args:
        network: A copy on the meta device.
        image: Its input, on the meta device.
        names: Modules.
    """
    seen: dict[str, torch.Size] = {}
    spoilt: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            single = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
            if not single or name in seen:
                spoilt.add(name)
            else:
                seen[name] = args[0].shape

        return hook

    hooks = [
        network.get_submodule(name).register_forward_pre_hook(note(name), with_kwargs=True)
        for name in names
    ]
    try:
        # Where the network can't run on meta, what ran before that is known nevertheless.
        with torch.no_grad(), suppress(Exception):
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: shape for name, shape in seen.items() if name not in spoilt}
