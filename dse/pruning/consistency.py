"""Verify proposed channel groups by trying each of them on the network itself.

The first check runs the network with every group at a width of its own, different from all other
dimensions, and compares the shapes of its outputs. It detects a missing layer, a sum of two groups
and a size that is hard-coded in the network. The second check verifies that the removed channels
reach the rest of the network only through weights that are removed with them. It detects channels
that are shuffled, normalised by one another or flattened in another order: shapes would agree, but
the wrong weights would be removed.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dse.errors import PruningError
from dse.networks.forward import tensors_in
from dse.pruning.channel_group import ChannelGroup, Dimension
from dse.pruning.layout import Axis, channels_of
from dse.pruning.random_weights import randomised_copy
from dse.pruning.resize import resized, resized_groups
from dse.pruning.shape_kernels import ShapeKernels
from dse.pruning.surgery import prune
from dse.user_code import USER_ERRORS, described

# These layers normalise channels by one another. Removing some channels changes the others' scale
# by design, so the second check replaces these layers by a fixed scale.
_MIXING_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)

# Removed channels have zero weights towards all others, so the outputs should not differ at all.
# The tolerance allows for kernels that sum in another order.
_TOLERANCE = 1e-5

# With fewer channels, kernels do sum in another order.
_REMOVAL_TOLERANCE = 1e-3

# The second check concerns how channels are connected, not how many there are. It therefore uses a
# small network with about this many channels per group. Half of them remain, enough for some to
# carry a signal.
_TRIAL_CHANNELS = 32

# Where a few groups among many are faulty, large sets are tried; where many are, one after another.
# A set that fails is divided by the first number; as many sets in a row as the second must pass for
# larger ones to be tried.
_SHRINKING = 4
_STREAK = 2

# Draws of weights to try where outputs overflow or vanish.
_WEIGHTS_TRIED = 3

_UNTELLING = (
    "the network's outputs are zero or not finite with random weights, which doesn't show whether "
    "its channels can be removed"
)

_Positions = Mapping[tuple[str, Dimension], Tensor]
"""Removed positions, shape (n,), in each dimension of each module."""


def consistent_groups(
    network: nn.Module,
    example_input: Tensor,
    output_shapes: Sequence[torch.Size],
    proposals: Sequence[ChannelGroup],
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Select the groups whose channels can be removed, whatever the other groups keep.

    Args:
        network: The network. It is not changed.
        example_input: Tensor (batch, channels, height, width), or whatever the network takes.
        output_shapes: Shapes of the network's outputs for one sample.
        proposals: Proposed groups, in execution order.

    Returns:
        The consistent groups, and for every other group, by name, the reason why it is refused.
    """
    generator = torch.Generator().manual_seed(0)
    shape, dtype = (1, *example_input.shape[1:]), example_input.dtype
    sample = torch.randn(shape, dtype=dtype, generator=generator)
    refused: dict[str, str] = {}

    def shapes(groups: Sequence[ChannelGroup]) -> str | None:
        return _shape_trouble(network, sample, output_shapes, groups)

    def flow(groups: Sequence[ChannelGroup]) -> str | None:
        return _flow_trouble(network, sample, groups)

    kept = list(proposals)
    with torch.no_grad():
        # Comparing shapes takes a tenth of the time, so it goes first. What passes both was tried
        # in one and the same set, or is tried again.
        for check in (shapes, flow, shapes):
            passed = _passing(kept, check, refused)
            if check is flow and len(passed) == len(kept):
                break
            kept = passed
    return kept, refused


def _passing(
    groups: Sequence[ChannelGroup],
    check: Callable[[Sequence[ChannelGroup]], str | None],
    refused: dict[str, str],
) -> list[ChannelGroup]:
    """Select groups that pass a check together.

    Args:
        groups: Groups in execution order.
        check: Says what is wrong with a set of groups.
        refused: The reason is added for every group that fails.
    """
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
            refused[candidates[0].name] = reason
            waiting = waiting[1:]
            streak = 0
        else:
            size, streak = max(1, len(candidates) // _SHRINKING), 0
    return passed


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
            outputs = _outputs(wide, sample.to("meta"))
    except USER_ERRORS as error:  # a user's forward may raise anything; it is the answer
        return f"the network doesn't run with other channel counts ({described(error)})"
    if [output.shape for output in outputs] != list(output_shapes):
        return "the network's output would change its shape"
    return None


def _flow_trouble(network: nn.Module, sample: Tensor, groups: Sequence[ChannelGroup]) -> str | None:
    """Disconnect and disturb half of each group's channels. Outputs must not change.

    The result must not depend on the weights. If the outputs overflow or vanish and so reveal
    nothing, other weights and double precision are tried before the groups are refused.
    """
    counts = [_trial_channels(group) for group in groups]
    small = resized_groups(groups, counts)
    for seed in range(_WEIGHTS_TRIED):
        for dtype in (sample.dtype, torch.float64):
            trial = randomised_copy(network, groups, counts, seed=seed, dtype=dtype)
            try:
                noticed = _disturbed(trial, sample.to(dtype), small)
            except USER_ERRORS as error:  # a user's forward may raise anything
                if dtype == sample.dtype:
                    return f"the network doesn't run with random weights ({described(error)})"
                break  # its code makes tensors of single precision
            if noticed != _UNTELLING:
                return noticed
    return _UNTELLING


def _disturbed(trial: nn.Module, sample: Tensor, groups: Sequence[ChannelGroup]) -> str | None:
    """Run the check of `_flow_trouble` with the weights of the trial network."""
    norms = _hold_scales(trial)
    halves = _halves(groups, torch.Generator().manual_seed(0))
    removed = _positions(groups, halves)
    _disconnect(trial, removed)
    before = _outputs(trial, sample, norms)
    if not all(_tells(output) for output in before):
        return _UNTELLING
    for axis, tensor, index in _axes(trial, removed, consumers=False):
        disturbed = tensor.index_select(axis.axis, index).mul_(-0.7).add_(0.1)
        tensor.index_copy_(axis.axis, index, disturbed)
    # Disturbing a weight between two removed channels reconnects them. Zero these weights again, or
    # the disturbance would grow from layer to layer.
    _disconnect(trial, removed)
    after = _outputs(trial, sample, norms)
    if _same(before, after):
        return _removal_trouble(trial, sample, groups, halves, before)
    if not _same(after, _outputs(trial, sample, norms)):
        return "the network doesn't compute the same twice from the same input"
    return "its channels affect the network in ways that their removal wouldn't undo"


def _removal_trouble(
    trial: nn.Module,
    sample: Tensor,
    groups: Sequence[ChannelGroup],
    halves: Mapping[str, Tensor],
    expected: Sequence[Tensor],
) -> str | None:
    """Remove the channels that nothing reads. Outputs must still be what they were.

    They are not if the network computes with its number of channels, as in a scale of its own.
    """
    importance = {}
    for group in groups:
        scores = np.ones(group.channels)
        scores[halves[group.name].numpy()] = 0
        importance[group.name] = scores
    counts = [group.channels - len(halves[group.name]) for group in groups]
    smaller = prune(trial, groups=groups, kept=counts, importance=importance)
    norms = [module.forward for module in smaller.modules() if _is_held(module)]
    outputs = _outputs(smaller, sample, norms)  # type: ignore[arg-type]  # _is_held says so
    if _same(expected, outputs, tolerance=_REMOVAL_TOLERANCE):
        return None
    return "the network computes with the number of its channels, so the rest would change, too"


def _is_held(module: nn.Module) -> bool:
    return isinstance(vars(module).get("forward"), _HeldScale)


def _tells(output: Tensor) -> bool:
    """Whether a change in earlier layers would be visible in an output."""
    return bool(output.isfinite().all()) and bool(output.any())


def _same(
    outputs: Sequence[Tensor], others: Sequence[Tensor], *, tolerance: float = _TOLERANCE
) -> bool:
    return len(outputs) == len(others) and all(
        old.shape == new.shape
        and bool(new.isfinite().all())
        and bool(((old - new).abs() <= tolerance * old.abs().max()).all())
        for old, new in zip(outputs, others, strict=True)
    )


class _HeldScale:
    """Replaces a layer that normalises channels by one another.

    In the first pass, each call divides its input by the input's root mean square. Later passes
    divide by the same numbers. Signals thus keep their scale at any depth, and channels do not
    affect each other.
    """

    def __init__(self) -> None:
        self._scales: list[Tensor] = []
        self._call = 0

    def rewind(self) -> None:
        """Start a new pass."""
        self._call = 0

    def __call__(self, x: Tensor) -> Tensor:
        if self._call == len(self._scales):
            scale = x.pow(2).mean().sqrt()
            self._scales.append(scale if scale > 0 else torch.ones_like(scale))
        held = self._scales[self._call]
        self._call += 1
        return x / held


def _hold_scales(trial: nn.Module) -> list[_HeldScale]:
    held = []
    for module in trial.modules():
        if isinstance(module, _MIXING_NORMS):
            held.append(_HeldScale())
            module.forward = held[-1]  # type: ignore[method-assign,assignment]
    return held


def _trial_channels(group: ChannelGroup) -> int:
    """Return about `_TRIAL_CHANNELS`: at least two per block, at most the group's own count."""
    units = max(2, -(-_TRIAL_CHANNELS // group.multiple))
    return min(group.channels, units * group.multiple)


def _halves(groups: Sequence[ChannelGroup], generator: torch.Generator) -> dict[str, Tensor]:
    """Draw half of each group's channels, rounded down, equally many in each of its blocks."""
    halves = {}
    for group in groups:
        width = group.channels // group.multiple
        drawn = [
            block * width + torch.randperm(width, generator=generator)[: width // 2]
            for block in range(group.multiple)
        ]
        halves[group.name] = torch.cat(drawn)
    return halves


def _positions(groups: Sequence[ChannelGroup], channels: Mapping[str, Tensor]) -> _Positions:
    """List where these channels of each group lie."""
    positions: dict[tuple[str, Dimension], list[int]] = defaultdict(list)
    for group in groups:
        for channel in channels[group.name].tolist():
            for member in group.members:
                positions[member.module, member.dimension].extend(member.positions(channel))
    return {key: torch.tensor(found) for key, found in positions.items()}


def _disconnect(trial: nn.Module, removed: _Positions) -> None:
    """Set the weights that read removed channels to zero."""
    for axis, weight, index in _axes(trial, removed, consumers=True):
        if axis.blocks == 1:
            weight.index_fill_(axis.axis, index, 0)
            continue
        rows = weight.view(
            axis.blocks, -1, *weight.shape[1:]
        )  # (blocks, outputs of each, inputs of each, ...)
        width = weight.shape[axis.axis]
        rows[index // width, :, index % width] = 0


def _axes(
    trial: nn.Module, removed: _Positions, *, consumers: bool
) -> Iterator[tuple[Axis, Tensor, Tensor]]:
    """Yield the tensors that read removed channels (consumers), or produce and process them."""
    for (module, dimension), index in removed.items():
        if (dimension == "in") == consumers:
            for axis in channels_of(trial, module, dimension).axes:
                # A disturbed variance could become negative and make all outputs NaN.
                if axis.tensor not in ("running_mean", "running_var"):
                    yield axis, trial.get_parameter(f"{module}.{axis.tensor}".strip(".")), index


def _outputs(network: nn.Module, sample: Tensor, norms: Sequence[_HeldScale] = ()) -> list[Tensor]:
    """The network's output tensors, with the same random numbers every time."""
    for norm in norms:
        norm.rewind()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(tensors_in(network(sample)))
