"""Find the channel groups of a network."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from dse.errors import PruningError
from dse.networks.checks import check_prunable
from dse.networks.forward import check_network_and_example, is_leaf
from dse.pruning.channel_group import ChannelGroup, Member, is_axis, owner_of
from dse.pruning.consistency import consistent_groups
from dse.pruning.coupling import Followed, followed, tied_widths
from dse.pruning.dimension_groups import counts_channels, dimension_groups, whole_reasons
from dse.pruning.factors import Factor
from dse.pruning.resize import resized
from dse.user_code import USER_ERRORS, described

__all__ = ["ChannelGroup", "Member", "Survey", "find_groups", "survey_channels"]

_INSEPARABLE = "its channels can't be separated from those of other layers"
_NOT_CALLED = "the network doesn't call it as a layer, though other code may use its weights"


@dataclass(frozen=True)
class Survey:
    """The channels of a network that can be pruned, and the reasons why others can't.

    Attributes:
        groups: The channel groups, in execution order.
        refused: For each layer whose output channels stay whole, the reason.
    """

    groups: tuple[ChannelGroup, ...]
    refused: dict[str, str]


def find_groups(network: nn.Module, example_input: Tensor) -> tuple[ChannelGroup, ...]:
    """Find the channels of a network that can be removed, grouped by those that go together.

    Args:
        network: Any network that takes one tensor. Its parameters
            may be on the meta device. It is not changed.
        example_input: Tensor (batch, channels, height, width), or whatever the network takes. Only
            the shape of one sample matters.

    Returns:
        The groups in execution order, each named by its first executed convolution or linear layer.
        The output layer's outputs are not a group. Each group has been tried: removing channels of
        any group, or of all, leaves a network that computes what the whole network would compute
        without them.

    Raises:
        PruningError: If nothing in the network can be pruned.
        NetworkError: If ``network`` is not a module, or ``example_input`` is not a floating-point
            tensor.
    """
    return survey_channels(network, example_input).groups


def survey_channels(network: nn.Module, example_input: Tensor) -> Survey:
    """Find the channel groups of a network, and the reasons why other channels can't be pruned.

    Args:
        network: As for :func:`find_groups`.
        example_input: As for :func:`find_groups`.

    Raises:
        PruningError: If nothing in the network can be pruned.
        NetworkError: As for :func:`find_groups`.
    """
    check_network_and_example(network, example_input)
    check_prunable(network)
    shape = (1, *example_input.shape[1:])
    sample = torch.empty(shape, dtype=example_input.dtype, device="meta")
    seen = followed(_shell(network), sample)
    _refuse_training_only(seen, example_input)
    groups, found = _tried(network, example_input, seen)
    covered = {name for group in groups for name in _producing(seen.network, group)}
    covered |= {*seen.outputs}
    refused = {name: found[name] for name in seen.order if name in found and name not in covered}
    covered |= {*refused}
    others = (name for name, _ in seen.network.named_modules() if name not in seen.order)
    for name in (*seen.order, *others):
        layer = seen.network.get_submodule(name)
        if name not in covered and isinstance(layer, (_ConvNd, nn.Linear)):
            refused[name] = _INSEPARABLE if name in seen.order else _NOT_CALLED
    if not groups:
        reasons = _reasons(refused) or "it has no layer but its output's"
        raise PruningError(f"{type(network).__name__}: nothing of it can be pruned: {reasons}")
    return Survey(tuple(groups), refused)


def _tried(
    network: nn.Module, example_input: Tensor, seen: Followed
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Select the proposed groups that pass, and give a reason for each layer without any.

    Where a factor can't be removed, numbers of modules may have equalled its size by chance, so it
    is tried without them. Then another one that is multiplied with it may be removed: where the
    number of heads is fixed, their width.
    """
    shell, flow = seen.network, seen.flow
    accepted: dict[Factor, None] = {}
    groups: list[ChannelGroup] = []
    refused: set[Factor] = set()
    uncounted: set[Factor] = set()
    reasons = whole_reasons(shell, flow)
    for tie in (False, True):
        if tie:
            if not tied_widths(flow, refused):
                break
            refused = {factor for factor in refused if factor.resolved() is not factor}
            uncounted &= accepted.keys()
        while True:
            found = dimension_groups(
                shell, flow, accepted=accepted, left_out=refused, uncounted=uncounted
            )
            new = {group.name: (leaf, group) for leaf, group in found if leaf not in accepted}
            groups = [group for leaf, group in found if leaf in accepted]
            if not new:
                break
            passed, inconsistent = consistent_groups(
                network,
                example_input,
                seen.shapes,
                [group for _, group in new.values()],
                accepted=groups,
            )
            accepted.update((new[group.name][0], None) for group in passed)
            for name, reason in inconsistent.items():
                leaf, group = new[name]
                counted = leaf not in uncounted and any(map(counts_channels, group.members))
                (uncounted if counted else refused).add(leaf)
                for layer in _producing(shell, group):
                    reasons.setdefault(layer, reason)
    return groups, reasons


def _reasons(refused: Mapping[str, str]) -> str:
    """Give every reason once, with the first layer that it holds for."""
    return "; ".join(
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in layers_by_reason(refused).items()
    )


def layers_by_reason(refused: Mapping[str, str]) -> dict[str, list[str]]:
    """Collect the layers that stay whole for the same reason, in their order."""
    layers: dict[str, list[str]] = {}
    for layer, reason in refused.items():
        layers.setdefault(reason, []).append(layer)
    return layers


def _producing(network: nn.Module, group: ChannelGroup) -> list[str]:
    """Name the convolutions and linear layers that produce a group's channels."""
    names = [
        owner_of(network, member.module)
        for member in group.members
        if not member.reads and (member.dimension in ("out", "both") or is_axis(member))
    ]
    return [
        name
        for name in dict.fromkeys(names)
        if isinstance(network.get_submodule(name), (_ConvNd, nn.Linear))
    ]


def _shell(network: nn.Module) -> nn.Module:
    """Copy the network onto the meta device, with every parameter requiring gradients."""
    shell = resized(network, (), ())
    shell.eval()
    for parameter in shell.parameters():
        parameter.requires_grad = parameter.is_floating_point()
    return shell


def _refuse_training_only(seen: Followed, example_input: Tensor) -> None:
    """Reject networks with layers that run only in training, whose channels can't be traced.

    Args:
        seen: The network, traced in eval mode.
        example_input: Tensor (batch, channels, height, width), or whatever the network takes.

    Raises:
        PruningError: If a layer runs only in training mode, or training mode fails.
    """
    network = seen.network
    unseen = {
        name: module
        for name, module in network.named_modules()
        if name not in seen.order and is_leaf(module) and any(True for _ in module.parameters())
    }
    if not unseen:
        return
    ran: list[str] = []
    with ExitStack() as hooks:
        for name, module in unseen.items():
            handle = module.register_forward_hook(lambda *_, name=name: ran.append(name))
            hooks.callback(handle.remove)
        network.train()
        hooks.callback(network.eval)
        hooks.enter_context(torch.no_grad())
        pair = torch.empty(2, *example_input.shape[1:], dtype=example_input.dtype, device="meta")
        try:
            network(pair)
        except USER_ERRORS as error:
            raise PruningError(
                f"{type(network).__name__}: it doesn't run in training mode on meta tensors of "
                f"shape {tuple(pair.shape)} ({described(error)}); use larger images"
            ) from error
    if ran:
        raise PruningError(
            f"{type(network).__name__}: {ran[0]} runs only while the network trains, so its "
            "channels can't be followed: build it without auxiliary heads (aux_logits=False), or "
            "prune nothing (groups=())"
        )
