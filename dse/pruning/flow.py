"""Verify that channels reach the rest of a network only through weights that go with them.

The check runs a small copy of the network with random weights, so that neither the network's width
nor its weights matter.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dse.networks.forward import tensors_in
from dse.pruning.channel_group import ChannelGroup, Dimension
from dse.pruning.held_scales import hold_scales, rewind
from dse.pruning.layout import Axis, channels_of
from dse.pruning.random_weights import randomised_copy
from dse.pruning.resize import resized_groups
from dse.pruning.surgery import prune
from dse.user_code import USER_ERRORS, described, is_out_of_memory

# Removed channels have zero weights towards all others, so the outputs should not differ at all.
# The tolerance allows for kernels that sum in another order.
_TOLERANCE = 1e-5

# With fewer channels, kernels do sum in another order.
_REMOVAL_TOLERANCE = 1e-3

# The check concerns how channels are connected, not how many there are. It therefore uses a small
# network with about this many channels per group. Half of them remain, enough for some to
# carry a signal.
_TRIAL_CHANNELS = 32

# Draws of weights to try where outputs overflow or vanish.
_WEIGHTS_TRIED = 3

_UNTELLING = (
    "the network's outputs are zero or not finite with random weights, which doesn't show whether "
    "its channels can be removed"
)

_Positions = Mapping[tuple[str, Dimension, bool], Tensor]
"""Removed positions, shape (n,), in each dimension of each module, and whether it reads them."""


def flow_trouble(network: nn.Module, sample: Tensor, groups: Sequence[ChannelGroup]) -> str | None:
    """Disconnect and disturb half of each group's channels. Outputs must not change.

    The result must not depend on the weights. If the outputs overflow or vanish and so reveal
    nothing, other weights and double precision are tried before the groups are refused.
    """
    counts = [_trial_channels(group) for group in groups]
    small = resized_groups(groups, counts)
    numbers = sample.is_floating_point()  # tokens stay whole numbers
    single = sample.dtype if numbers else torch.float32
    for seed in range(_WEIGHTS_TRIED):
        for dtype in (single, torch.float64):
            trial = randomised_copy(network, groups, counts, seed=seed, dtype=dtype)
            try:
                noticed = _disturbed(trial, sample.to(dtype) if numbers else sample, small)
            except USER_ERRORS as error:  # a user's forward may raise anything
                if is_out_of_memory(error):
                    raise
                if dtype == single:
                    return f"the network doesn't run with random weights ({described(error)})"
                break  # its code makes tensors of single precision
            if noticed != _UNTELLING:
                return noticed
    return _UNTELLING


def _disturbed(trial: nn.Module, sample: Tensor, groups: Sequence[ChannelGroup]) -> str | None:
    """Run the check of `flow_trouble` with the weights of the trial network."""
    hold_scales(trial)
    halves = _halves(groups, torch.Generator().manual_seed(0))
    removed = _positions(groups, halves)
    _disconnect(trial, removed)
    before = outputs_of(trial, sample)
    if not all(_tells(output) for output in before):
        return _UNTELLING
    for axis, tensor, index in _axes(trial, removed, consumers=False):
        disturbed = tensor.index_select(axis.axis, index).mul_(-0.7).add_(0.1)
        tensor.index_copy_(axis.axis, index, disturbed)
    # Disturbing a weight between two removed channels reconnects them. Zero these weights again, or
    # the disturbance would grow from layer to layer.
    _disconnect(trial, removed)
    after = outputs_of(trial, sample)
    if _same(before, after):
        return _removal_trouble(trial, sample, groups, halves, before)
    if not _same(after, outputs_of(trial, sample)):
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
    if _same(expected, outputs_of(smaller, sample), tolerance=_REMOVAL_TOLERANCE):
        return None
    return "the network computes with the number of its channels, so the rest would change, too"


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
    positions: dict[tuple[str, Dimension, bool], list[int]] = defaultdict(list)
    for group in groups:
        for channel in channels[group.name].tolist():
            for member in group.members:
                key = (member.module, member.dimension, member.reads)
                positions[key].extend(member.positions(channel))
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
    parameters = dict(trial.named_parameters(remove_duplicate=False))
    for (module, dimension, reads), index in removed.items():
        if reads == consumers:
            for axis in channels_of(trial, module, dimension).axes:
                # Not buffers: a disturbed variance could become negative and make all outputs NaN.
                if (name := f"{module}.{axis.tensor}".strip(".")) in parameters:
                    yield axis, parameters[name], index


def outputs_of(network: nn.Module, sample: Tensor) -> list[Tensor]:
    """Return the network's output tensors, with the same random numbers every time."""
    rewind(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(tensors_in(network(sample)))
