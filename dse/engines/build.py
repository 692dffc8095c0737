"""Trace a network, or those of its modules that can be traced, and divide them into segments."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from dse.engines.plan import LeanPlan, ProgramPlan, SavedBits, SegmentPlan
from dse.engines.program import Program, Traced, input_shapes, lean_plan, traced
from dse.networks.forward import is_leaf
from dse.pruning.resize import resized


@dataclass(frozen=True)
class Division:
    """A network's traced parts.

    Attributes:
        parts: Traced modules by name; the network itself has the empty name.
        untraced: Modules that could not be traced.
    """

    parts: dict[str, Traced]
    untraced: tuple[str, ...]


def division(network: nn.Module, image: torch.Tensor, *, plan: LeanPlan | None = None) -> Division:
    """Trace a network in its present modes.

    Args:
        network: The network. It is not changed.
        image: Two images on the meta device.
        plan: Plan of a network of the same structure, whose segments are taken over.
    """
    shell = resized(network, (), ())
    borders = {p.module: [s.last for s in p.segments] for p in plan.programs} if plan else {}
    spans = {
        p.module: {s.last: s.span for s in p.segments if s.span is not None}
        for p in (plan.programs if plan else ())
    }
    found: dict[str, Traced] = {}
    untraced: list[str] = []
    whole = traced(shell, image, borders=borders.get(""), spans=spans.get(""))
    if whole is not None:
        return Division({"": whole}, ())
    open_ = [""]
    while open_:
        untraced += open_
        children = [
            f"{name}.{own}" if name else own
            for name in open_
            for own, child in shell.get_submodule(name).named_children()
            if not is_leaf(child)
        ]
        open_ = []
        shapes = input_shapes(resized(network, (), ()), image, children)
        for name in children:
            part = None
            if name in shapes:
                inputs = torch.empty(shapes[name], dtype=image.dtype, device="meta")
                module = shell.get_submodule(name)
                part = traced(module, inputs, borders=borders.get(name), spans=spans.get(name))
            if part is None:
                open_.append(name)
            else:
                found[name] = part
    names = [name or type(network).__name__ for name in untraced]
    return Division(found, tuple(names))


def first_plan(found: Division, *, saved_bits: SavedBits = 32) -> LeanPlan:
    """Return the plan that holds only what is needed, in so many bits."""
    programs = tuple(
        replace(lean_plan(part, name), saved_bits=saved_bits) for name, part in found.parts.items()
    )
    return LeanPlan(programs, found.untraced)


def programs_for(found: Division, plan: LeanPlan) -> dict[str, Program]:
    """Return the programs that follow a plan, as far as it fits.

    In other modes a network may run other calls, for instance without dropout. Segments that the
    plan doesn't know hold only what is needed. Modules that run as stock PyTorch have no program.
    """
    known = {program.module: program for program in plan.programs}
    fitted = {
        name: _fitted(part, lean_plan(part, name), known.get(name))
        for name, part in found.parts.items()
    }
    return {
        name: Program(found.parts[name], own)
        for name, own in fitted.items()
        if any(segment.level != "stock" for segment in own.segments)
    }


def _fitted(part: Traced, own: ProgramPlan, known: ProgramPlan | None) -> ProgramPlan:
    if known is None:
        return own
    by_place = {(each.first, each.last): each for each in known.segments}
    segments: list[SegmentPlan] = []
    for segment, piece in zip(own.segments, part.parts, strict=True):
        wish = by_place.get((segment.first, segment.last), segment)
        level = wish.level
        if level == "chunked" and piece.span is None:
            level = segment.level
        if level == "recomputed" and not piece.recomputes:
            level = "stock"
        if level == "lean" and piece.ops is None:
            level = "stock"
        segments.append(replace(segment, level=level, chunks=wish.chunks, rerun=wish.rerun))
    return ProgramPlan(own.module, tuple(segments), known.saved_bits)
