"""The array walk against Torch-Pruning's own, which takes an object for each channel."""

from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.modules.conv import _ConvNd

from dse.pruning.coupling import Followed, followed
from dse.pruning.groups import _shell
from dse.pruning.walk import Reached, all_reached
from support import couplings

Pairs = dict[tuple[int, str], set[tuple[int, int]]]


def networks() -> dict[str, nn.Module]:
    built = [
        couplings.SumWithConcat(),
        couplings.ConcatWithInput(),
        couplings.ConcatTwice(),
        couplings.Grouped(),
        couplings.GroupedConcat(),
        couplings.Flattened(),
        couplings.Scaled(),
        couplings.Deconvolution(),
        couplings.Reused(),
        couplings.HardCoded(),
        couplings.Chunked(),
        couplings.Sliced(),
        torchvision.models.squeezenet1_1(),
        torchvision.models.regnet_y_400mf(),
    ]
    return {type(network).__name__: network for network in built}


def theirs(seen: Followed) -> list[Pairs]:
    found = seen.graph.graph.get_all_groups(
        ignored_layers=list(seen.fixed), root_module_types=[_ConvNd, nn.Linear]
    )
    return [
        pairs((item.dep.target, item.dep.handler, item.idxs, item.root_idxs) for item in group)
        for group in found
    ]


def ours(seen: Followed) -> list[Pairs]:
    def plain(each: Reached) -> tuple[Any, ...]:
        return each.target, each.handler, each.positions.tolist(), each.channels.tolist()

    found = all_reached(seen.graph, fixed=seen.fixed, most_entries=10**7)
    return [
        pairs(plain(each) for each in walked.reached) for walked in found if walked.reason is None
    ]


def pairs(places: Any) -> Pairs:
    return {
        (id(target), handler.__qualname__): set(zip(positions, channels, strict=True))
        for target, handler, positions, channels in places
    }


@pytest.mark.parametrize("name", networks())
def test_the_walk_reaches_what_torch_pruning_reaches(name: str) -> None:
    network = networks()[name]
    size = 8 if hasattr(couplings, name) else 64
    seen = followed(_shell(network), torch.empty(1, 3, size, size, device="meta"))
    expected = theirs(seen)
    assert len(expected) > 0
    assert ours(seen) == expected
