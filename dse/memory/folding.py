"""Find results of a step that can be written into the memory of an input that dies.

If an operator reads element *i* of its input for the last time before it writes element *i* of its
result, the result can reuse the input's memory. PyTorch allocates a new buffer nevertheless, so the
tape has both, and a static plan can fold them into one.

The result of an operator below is folded with the first buffer that dies right after the operator,
before any other operator runs, and has the same size at every channel count. If that buffer is an
input of the operator, it is read element by element; if not, it is no longer needed at all.
Operands are assumed to have the same memory layout, which holds unless a network adds a tensor to
its transpose.
"""

from collections.abc import Iterator, Sequence

from dse.memory.compiled import CompiledTape
from dse.memory.site import Site
from dse.memory.tape import CATEGORIES, Event

# Operators and their largest number of results, of which the first can be folded. Normalisation
# computes its statistics before it writes, in both directions.
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

_Change = tuple[bool, int, Site]  # whether the buffer is born (or dies), buffer, site

_FOLDABLE = {CATEGORIES.index(name) for name in ("temporary", "optimizer_temporary")}


def in_place_results(tape: CompiledTape) -> dict[int, int]:
    """Return results that can reuse the memory of a dying buffer, as ``{result: dying buffer}``.

    No buffer is reused twice, since it dies only once. Chains are possible.
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
    """Yield the first result of each elementwise operator, and the buffers that die right after."""
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
    """Return the results of the elementwise operator that begins here. Empty if none does."""
    born, _, site = changes[position]
    most = ELEMENTWISE.get(site.operator.removeprefix("aten::"), 0) if born else 0
    results = []
    for also_born, buffer, at in changes[position : position + most]:
        if not also_born or at != site:
            break
        results.append(buffer)
    return results


def _dying(changes: Sequence[_Change], position: int) -> Iterator[int]:
    """Yield buffers that die before the next operator runs."""
    _, _, site = changes[position - 1]
    for index in range(position, len(changes)):
        born, buffer, at = changes[index]
        if born or (at.operator, at.phase) != (site.operator, site.phase):
            return
        yield buffer
