"""Which proposed channel groups hold: each is tried on the network itself.

Two questions are asked. Does the network run, with outputs of the same shape, when every group has
another width than any other dimension? A layer forgotten, a sum of two groups or a size written
into the code shows here. And do the removed channels reach the rest only through the weights that
are removed with them? Channels that are shuffled, normalised by one another or flattened in
another order show here; shapes alone would let them pass, and the wrong weights be removed.
"""

import random
from collections.abc import Iterator, Sequence
from types import MethodType

import torch
from torch import Tensor, nn

from dse.execution import tensors_in
from dse.pruning.channel_group import ChannelGroup, Member
from dse.pruning.layout import Axis, channels_of
from dse.pruning.resize import copy_with_tensors, resized

# Layers that normalise channels by one another: removing some changes the others' scale by design,
# so that the second question is asked without them.
_MIXING_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)

# Removed channels have zero weights towards everything else, so the outputs differ by nothing; this
# leaves room for kernels that sum in another order.
_TOLERANCE = 1e-5


def consistent_groups(
    network: nn.Module, sample: Tensor, proposals: Sequence[ChannelGroup]
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Keep the groups whose channels can be removed, whatever the others keep.

    Args:
        network: A scratch copy in eval mode (:func:`~dse.pruning.scratch.scratch_copy`).
        sample: One input for it.
        proposals: In execution order.

    Returns:
        The groups that hold together, and for each other one, by name, the reason.
    """
    kept: list[ChannelGroup] = []
    refused: dict[str, str] = {}
    pending = [list(proposals)]
    while pending:  # halve what fails, until the culprits stand alone
        candidates = pending.pop()
        reason = _trouble(network, sample, [*kept, *candidates])
        if reason is None:
            kept.extend(candidates)
        elif len(candidates) == 1:
            refused[candidates[0].name] = f"{candidates[0].name}: {reason}"
        else:
            middle = len(candidates) // 2
            pending += [candidates[middle:], candidates[:middle]]
    return kept, refused


def _trouble(network: nn.Module, sample: Tensor, groups: Sequence[ChannelGroup]) -> str | None:
    """Say why these groups don't hold together, or None if they do."""
    with torch.no_grad():
        if not groups:
            return None
        return _shape_trouble(network, sample, groups) or _flow_trouble(network, sample, groups)


def _shape_trouble(
    network: nn.Module, sample: Tensor, groups: Sequence[ChannelGroup]
) -> str | None:
    draw = random.Random(0)  # noqa: S311 (distinct widths, no secret)
    counts = [
        group.channels + group.multiple * draw.randrange(1_000, 100_000)  # collisions: 1 in 10^5
        for group in groups
    ]
    try:
        outputs = _outputs(resized(network, groups, counts), sample.to("meta"))
    except Exception as error:  # noqa: BLE001 (a user's forward may raise anything; it is the answer)
        first_line = next(iter(str(error).splitlines()), "")
        return f"the network doesn't run with other channel counts ({first_line})"
    if [o.shape for o in outputs] != [o.shape for o in _outputs(network, sample)]:
        return "the network's output would change its shape"
    return None


def _flow_trouble(network: nn.Module, sample: Tensor, groups: Sequence[ChannelGroup]) -> str | None:
    """Disconnect half of each group's channels, then see whether disturbing them is noticed."""
    generator = torch.Generator().manual_seed(0)
    trial = copy_with_tensors(network, lambda _, tensor: tensor.detach().clone())
    for module in trial.modules():
        if isinstance(module, _MIXING_NORMS):
            module.forward = MethodType(_unchanged, module)  # type: ignore[method-assign]
    removed = [
        torch.randperm(group.channels, generator=generator)[: (group.channels + 1) // 2].tolist()
        for group in groups
    ]
    for axis, tensor, positions in _axes(trial, groups, removed, consumers=True):
        _disconnect(tensor, axis, positions)
    before = _outputs(trial, sample)
    for axis, tensor, positions in _axes(trial, groups, removed, consumers=False):
        index = torch.tensor(positions)
        disturbed = tensor.index_select(axis.axis, index).mul_(-0.7).add_(0.1)
        tensor.index_copy_(axis.axis, index, disturbed)
    after = _outputs(trial, sample)
    for old, new in zip(before, after, strict=True):
        if not torch.allclose(old, new, rtol=0.0, atol=_TOLERANCE * float(old.abs().max())):
            return "its channels affect the network in ways that their removal wouldn't undo"
    return None


def _axes(
    trial: nn.Module,
    groups: Sequence[ChannelGroup],
    removed: Sequence[Sequence[int]],
    *,
    consumers: bool,
) -> Iterator[tuple[Axis, Tensor, list[int]]]:
    """Yield the tensors that removed channels lead to (consumers) or come from and pass through."""
    for group, channels in zip(groups, removed, strict=True):
        for member in group.members:
            if (member.dimension == "in") == consumers:
                positions = [p for channel in channels for p in member.positions(channel)]
                for axis, tensor in _tensors(trial, member):
                    yield axis, tensor, positions


def _tensors(trial: nn.Module, member: Member) -> Iterator[tuple[Axis, Tensor]]:
    for axis in channels_of(trial, member.module, member.dimension).axes:
        if axis.tensor in ("running_mean", "running_var"):
            continue  # a negative variance would make everything NaN
        path = f"{member.module}.{axis.tensor}".strip(".")
        yield axis, trial.get_parameter(path)


def _disconnect(weight: Tensor, axis: Axis, positions: Sequence[int]) -> None:
    """Zero the weights that read these input positions."""
    if axis.blocks == 1:
        weight.index_fill_(axis.axis, torch.tensor(positions), 0)
        return
    rows = weight.view(
        axis.blocks, -1, *weight.shape[1:]
    )  # (blocks, outputs of each, inputs of each, ...)
    for position in positions:
        block, column = divmod(position, weight.shape[axis.axis])
        rows[block, :, column] = 0


def _outputs(network: nn.Module, sample: Tensor) -> list[Tensor]:
    """The network's output tensors, with the same random numbers every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(tensors_in(network(sample)))


def _unchanged(_: nn.Module, x: Tensor) -> Tensor:
    return x
