"""What can't be followed stays whole, and the rest of the network is pruned exactly."""

import numpy as np
import pytest
import torch
from torch import nn

from dse.errors import PruningError
from dse.memory.model import MemoryModel
from dse.networks.forward import output_layers
from dse.pruning.groups import find_groups, survey_channels
from dse.pruning.surgery import keep_indices, prune
from dse.step.settings import StepSettings
from support import couplings, partly_followed
from support.masking import masked
from support.traces import fresh_peak

IMAGE = torch.zeros(2, 3, 8, 8)

# The groups that can be pruned, and for one layer that can't, the reason.
NETWORKS = {
    partly_followed.OwnOperation: (["first", "third", "last"], "second", "reordered by flip"),
    partly_followed.RaisingOperation: (
        ["first", "last"],
        "second",
        "KeyError: 'only eight will do'",
    ),
    partly_followed.ScaledByWidth: (
        ["first", "last"],
        "second",
        "computes with the number of its channels",
    ),
    partly_followed.ScaledByNorm: (["first", "last"], "second", "removal wouldn't undo"),
    partly_followed.SlicedAndSummed: (["first", "last"], "wide", "too many values to unpack"),
    partly_followed.standardised_and_deep: (["58", "61", "62"], "0", "removal wouldn't undo"),
}

# Networks whose channels are reshaped, shuffled or repeated, all of which can be pruned.
RESHAPED = {
    partly_followed.AttentionBesideConvolutions: ["stem", "patches", "wide"],
    partly_followed.BuiltInAttention: ["stem", "patches", "wide"],
    partly_followed.PixelShuffled: ["first", "wide", "narrow", "last"],
    partly_followed.StrongestPixel: ["first", "second", "last"],
    partly_followed.SideOfWidth: ["first", "second", "last"],
    partly_followed.ShuffleBlock: ["stem", "first", "last"],
    partly_followed.Recurrent: ["first", "second", "hidden"],
    partly_followed.DepthwiseMultiplier: ["first", "narrow", "last"],
}


@pytest.mark.parametrize("build", RESHAPED, ids=lambda build: build.__name__)
def test_channels_are_followed_through_reshapes(build: type[nn.Module]) -> None:
    survey = survey_channels(build(), IMAGE)
    assert [group.name for group in survey.groups] == RESHAPED[build]
    assert not survey.refused


@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_the_rest_is_pruned_and_what_stays_whole_has_its_reason(build: type[nn.Module]) -> None:
    expected, layer, reason = NETWORKS[build]
    torch.manual_seed(0)
    survey = survey_channels(build(), IMAGE)
    assert [group.name for group in survey.groups] == expected
    assert reason in survey.refused[layer]
    assert all("\n" not in line for line in survey.refused.values())


@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_every_layer_has_channels_in_a_group_or_a_reason(build: type[nn.Module]) -> None:
    network = build()
    survey = survey_channels(network, IMAGE)
    shrinking = {
        member.module
        for group in survey.groups
        for member in group.members
        if member.dimension != "in"
    }
    layers = {
        name
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }
    assert layers - shrinking - set(survey.refused) == set(output_layers(network, IMAGE))


@pytest.mark.parametrize("build", [*NETWORKS, *RESHAPED], ids=lambda build: build.__name__)
def test_pruning_equals_masking_and_memory_equals_a_fresh_trace(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = build().double().eval()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    groups = find_groups(network, images)
    rng = np.random.default_rng(0)
    counts = [int(rng.integers(1, g.channels // g.multiple + 1)) * g.multiple for g in groups]
    pruned = prune(network, groups=groups, kept=counts)
    kept = {g.name: keep_indices(g, n).tolist() for g, n in zip(groups, counts, strict=True)}
    torch.testing.assert_close(pruned(images), masked(network, pruned, groups, kept)(images))
    step = StepSettings()
    single = prune(build(), groups=groups, kept=counts)
    model = MemoryModel.compile(build(), IMAGE, groups=groups, settings=step)
    assert model.peaks(counts, batch_size=2) == fresh_peak(single, IMAGE.shape, step=step)


@pytest.mark.parametrize("value", [float("nan"), 0.0, 1e30])
def test_groups_do_not_depend_on_what_the_weights_are(value: float) -> None:
    network = partly_followed.AttentionBesideConvolutions()
    expected = survey_channels(network, IMAGE)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    assert survey_channels(network, IMAGE) == expected


def test_a_network_of_which_nothing_is_left_is_refused_with_every_reason() -> None:
    class Fixed(couplings.Pooled):
        def __init__(self) -> None:
            super().__init__(2)
            self.only = couplings.conv(3, 2)

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return self.only(x).flip(1)

    with pytest.raises(
        PruningError, match=r"nothing of it can be pruned: only: its channels are mixed"
    ):
        find_groups(Fixed(), IMAGE)
