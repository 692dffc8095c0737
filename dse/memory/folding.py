"""Which results of a step can be written where an input dies.

An operator that reads element *i* of its input for the last time before it writes element *i* of
its result needs no room for the result: the input's is free by then. PyTorch allocates a new
buffer all the same, so the tape has both, and a static plan may fold them into one.

Folded is a result of one of the operators below with the first buffer that dies right after it,
before anything else runs, and has the same size at every channel count. If that buffer is an input
of the operator, it is read element by element; if it isn't, nobody needs it any more. Operands are
taken to lie in memory in the same order, as they do unless a network adds a tensor to its
transpose.
"""

from collections.abc import Iterator, Sequence

from dse.memory.compiled import CompiledTape
from dse.memory.site import Site
from dse.memory.tape import CATEGORIES, Event

# Operators, and how many results they may have; the first is the one that can be folded.
# Normalisation knows its statistics before it writes, in both directions.
ELEMENTWISE = {
    **dict.fromkeys(
        (
            "abs", "add", "addcdiv", "addcmul", "clamp", "clamp_min", "div", "elu",
            "elu_backward", "exp", "gelu", "gelu_backward", "hardsigmoid", "hardsigmoid_backward",
            "hardswish", "hardswish_backward", "hardtanh", "hardtanh_backward", "leaky_relu",
            "leaky_relu_backward", "mul", "neg", "pow", "reciprocal", "relu", "rsqrt", "sigmoid",
            "sigmoid_backward", "silu", "silu_backward", "sqrt", "sub", "tanh", "tanh_backward",
            "threshold", "threshold_backward",
        ),
        1,
    ),
    **dict.fromkeys(("native_dropout",), 2),
    **dict.fromkeys(
        (
            "native_batch_norm", "native_batch_norm_backward", "native_group_norm",
            "native_group_norm_backward", "native_layer_norm", "native_layer_norm_backward",
        ),
        3,
    ),
}  # fmt: skip

_Change = tuple[bool, int, Site]  # whether born or dying, buffer, where

_FOLDABLE = {CATEGORIES.index(name) for name in ("temporary", "optimizer_temporary")}


def in_place_results(tape: CompiledTape) -> dict[int, int]:
    """Results that can take the place of a buffer that dies, as ``{result: dying buffer}``.

    No buffer gives its place twice, since it dies once; chains are possible.
    """
    form = list(zip(tape.buffer_terms.tolist(), tape.buffer_float_bytes.tolist(), strict=True))
    foldable = [category in _FOLDABLE for category in tape.buffer_categories.tolist()]
    folded: dict[int, int] = {}
    for result, dying in _elementwise_calls(tape):
        for other in dying if foldable[result] else ():
            if foldable[other] and form[other] == form[result]:
                folded[result] = other
                break
    return folded


def _elementwise_calls(tape: CompiledTape) -> Iterator[tuple[int, list[int]]]:
    """The first result of each elementwise operator, and what dies before anything else runs."""
    changes = [
        (kind == Event.BIRTH, buffer, tape.sites[site])
        for kind, buffer, site in tape.events.tolist()
        if kind in (Event.BIRTH, Event.DEATH)
    ]
    position = 0
    while position < len(changes):
        results = _results(changes, position)
        position += max(1, len(results))
        if results:
            yield results[0], [b for b in _dying(changes, position) if b not in results]


def _results(changes: Sequence[_Change], position: int) -> list[int]:
    """Results of the elementwise operator that begins here; none if none does."""
    born, _, site = changes[position]
    most = ELEMENTWISE.get(site.operator.removeprefix("aten::"), 0) if born else 0
    results = []
    for also_born, buffer, at in changes[position : position + most]:
        if not also_born or at != site:
            break
        results.append(buffer)
    return results


def _dying(changes: Sequence[_Change], position: int) -> Iterator[int]:
    """Buffers that die while the operator before this position is the last that ran."""
    _, _, site = changes[position - 1]
    for index in range(position, len(changes)):
        born, buffer, at = changes[index]
        if born or (at.operator, at.phase) != (site.operator, site.phase):
            return
        yield buffer
