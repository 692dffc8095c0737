"""How much of a network its channel groups cover, and what of it stays whole for which reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from dse.pruning.channel_group import ChannelGroup
from dse.pruning.groups import Survey, layers_by_reason
from dse.pruning.resize import parameter_forms


@dataclass(frozen=True)
class WholeLayers:
    """Layers whose output channels stay whole for one reason.

    Attributes:
        layers: Names of the layers, in execution order.
        reason: Why their channels can't be removed.
        share: Share of the network's parameters in these layers that no pruning removes, from 0
            to 1. Weights that read another group's channels can go with them, and don't count.
    """

    layers: tuple[str, ...]
    reason: str
    share: float


def fixed_counts(network: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, int]:
    """Count the elements of each parameter that belong to no group's channels.

    Args:
        network: The unpruned network.
        groups: Its channel groups.
    """
    forms = parameter_forms(network, groups)
    return {
        name: prod(form if isinstance(form, int) else form.constant for form in forms[name])
        for name, _ in network.named_parameters()
    }


def whole_layers(
    network: nn.Module, groups: Sequence[ChannelGroup], refused: Mapping[str, str]
) -> tuple[WholeLayers, ...]:
    """Collect the layers that stay whole by reason, those with most parameters first.

    Args:
        network: The unpruned network.
        groups: Its channel groups.
        refused: For each layer whose output channels stay whole, the reason.
    """
    total = max(sum(parameter.numel() for parameter in network.parameters()), 1)
    fixed = fixed_counts(network, groups)
    found = []
    for reason, layers in layers_by_reason(refused).items():
        counts = [
            fixed.get(f"{layer}.{name}", 0)
            for layer in layers
            for name, _ in network.get_submodule(layer).named_parameters()
        ]
        found.append(WholeLayers(tuple(layers), reason, sum(counts) / total))
    return tuple(sorted(found, key=lambda each: -each.share))


def whole_line(network: nn.Module, survey: Survey) -> str | None:
    """Say in one line how much of a network can't be pruned; None if all of it can be."""
    if not survey.refused:
        return None
    whole = whole_layers(network, survey.groups, survey.refused)
    layers = len({layer for each in whole for layer in each.layers})
    share = sum(each.share for each in whole)
    return (
        f"{layers} layers with {100 * share:.1f} % of the parameters can't be pruned and stay "
        "whole; dse memory with --explain lists them"
    )
