"""Verify proposed channel groups by trying each of them on the network itself.

The first check runs the network with every group at a width of its own, different from all other
dimensions, and compares the shapes of its outputs. It detects a missing layer, a sum of two groups
and a size that is hard-coded in the network. The second check verifies that the removed channels
reach the rest of the network only through weights that are removed with them. It detects channels
that are shuffled, normalised by one another or flattened in another order: shapes would agree, but
the wrong weights would be removed.
"""

import random
import re
from collections.abc import Callable, Sequence
from itertools import cycle

import torch
from torch import Tensor, nn

from dse.errors import PruningError
from dse.pruning.channel_group import ChannelGroup, Dimension
from dse.pruning.flow import flow_trouble, outputs_of
from dse.pruning.resize import resized
from dse.pruning.shape_kernels import ShapeKernels
from dse.user_code import USER_ERRORS, described, is_out_of_memory

# Where a few groups among many are faulty, large sets are tried; where many are, one after another.
# A set that fails is divided by the first number; as many sets in a row as the second must pass for
# larger ones to be tried.
_SHRINKING = 4
_STREAK = 2

_NUMBER = re.compile(r"\.\d+(?=\.|$)")
_LAYER = ("out", "in", "both")

Check = Callable[[Sequence[ChannelGroup]], str | None]
"""Returns what is wrong with a set of groups; None if nothing is."""


def consistent_groups(
    network: nn.Module,
    example_input: Tensor,
    output_shapes: Sequence[torch.Size],
    proposals: Sequence[ChannelGroup],
    *,
    accepted: Sequence[ChannelGroup] = (),
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Select the groups whose channels can be removed, whatever the other groups keep.

    Args:
        network: The network. It is not changed.
        example_input: Tensor (batch, channels, height, width), or whatever the network takes.
        output_shapes: Shapes of the network's outputs for one sample.
        proposals: Proposed groups, in execution order.
        accepted: Groups that have passed already, beside which the proposals must pass.

    Returns:
        The consistent ones of the proposals, and for every other one, by name, the reason why it is
        refused.

    Raises:
        PruningError: If memory runs out. Which groups pass must not depend on that.
    """
    generator = torch.Generator().manual_seed(0)
    shape, dtype = (1, *example_input.shape[1:]), example_input.dtype
    if dtype.is_floating_point:
        sample = torch.randn(shape, dtype=dtype, generator=generator)
    else:
        sample = example_input[:1].detach().cpu()  # tokens must lie within the vocabulary

    def shapes(groups: Sequence[ChannelGroup]) -> str | None:
        return _shape_trouble(network, sample, output_shapes, [*accepted, *groups])

    def flow(groups: Sequence[ChannelGroup]) -> str | None:
        return flow_trouble(network, sample, [*accepted, *groups])

    try:
        with torch.no_grad():
            # Comparing shapes takes a tenth of the time, so it goes first.
            return passing_both(proposals, shapes, flow)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise PruningError(
            f"{type(network).__name__}: this machine has too little free memory to run the network "
            f"on one image, which verifies its channel groups ({described(error)}); free some"
        ) from error


def passing_both(
    groups: Sequence[ChannelGroup], first: Check, second: Check
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Select groups that pass two checks, both as one and the same set.

    A group that one check refuses may be needed by another group to pass the other check.

    Args:
        groups: Groups in execution order.
        first: The faster check.
        second: The other check.

    Returns:
        The groups that pass, and for every other group, by name, the reason.
    """
    refused: dict[str, str] = {}
    kept = _passing(groups, first, refused)
    for check in cycle((second, first)):
        passed = _passing(kept, check, refused)
        if len(passed) == len(kept):
            break
        kept = passed
    return kept, refused


def _passing(
    groups: Sequence[ChannelGroup], check: Check, refused: dict[str, str]
) -> list[ChannelGroup]:
    """Select groups that pass a check together, and add the reason why each other one fails."""
    passed: list[ChannelGroup] = []
    waiting = list(groups)
    size, streak = len(waiting), 0
    while waiting:
        candidates = waiting[:size]
        reason = check([*passed, *candidates])
        if reason is None:
            passed += candidates
            waiting = waiting[size:]
            streak += 1
            if streak == _STREAK:
                size, streak = 2 * size, 0
        elif len(candidates) == 1:
            alike = [each for each in waiting if _are_alike(each, candidates[0])]
            refused |= dict.fromkeys((each.name for each in (candidates[0], *alike)), reason)
            waiting = [each for each in waiting[1:] if each not in alike]
            streak = 0
        else:
            size, streak = max(1, len(candidates) // _SHRINKING), 0
    return passed


def _are_alike(group: ChannelGroup, other: ChannelGroup) -> bool:
    """Whether two groups run through the same code, as the heads of one block and of the next.

    Only where the code counts channels with numbers of its own. Then both fail if one does, and
    trying each of them would take minutes.
    """
    one, two = _code(group), _code(other)
    return group != other and one == two and any(dimension not in _LAYER for _, dimension in one)


def _code(group: ChannelGroup) -> set[tuple[str, Dimension]]:
    """Return the members without the numbers of their blocks."""
    return {(_NUMBER.sub(".#", f".{each.module}"), each.dimension) for each in group.members}


def _shape_trouble(
    network: nn.Module,
    sample: Tensor,
    output_shapes: Sequence[torch.Size],
    groups: Sequence[ChannelGroup],
) -> str | None:
    draw = random.Random(0)  # noqa: S311 (draws distinct widths, not secrets)
    counts = [
        group.channels + group.multiple * draw.randrange(1_000, 100_000)  # equal widths: 1 in 10^5
        for group in groups
    ]
    try:
        wide = resized(network, groups, counts)
    except PruningError:
        return "its channels and those of another group would be removed from the same places"
    try:
        wide.eval()
        with ShapeKernels():
            outputs = outputs_of(wide, sample.to("meta"))
    except USER_ERRORS as error:  # a user's forward may raise anything; it is the answer
        return f"the network doesn't run with other channel counts ({described(error)})"
    if [output.shape for output in outputs] != list(output_shapes):
        return "the network's output would change its shape"
    return None
