from fractions import Fraction

import pytest
import torch
from torch import nn

from dse.errors import PruningError
from dse.pruning.groups import ChannelGroup, Member, find_groups
from dse.pruning.resize import Form, copy_with_tensors, parameter_forms, resized, resized_groups
from support import couplings

IMAGE = torch.zeros(2, 3, 8, 8)


def test_a_form_is_linear_in_the_counts() -> None:
    form = Form(3, ((0, Fraction(2)), (2, Fraction(1, 4))))
    assert form.size([5, 1_000, 8]) == 3 + 10 + 2


@pytest.mark.parametrize("counts", [[6], [0]])
def test_a_size_is_whole_and_positive(counts: list[int]) -> None:
    with pytest.raises(PruningError, match=f"channel counts {counts[0]}:"):
        Form(0, ((0, Fraction(1, 4)),)).size(counts)


def test_forms_cover_every_parameter_and_buffer() -> None:
    network = couplings.Grouped()
    forms = parameter_forms(network, find_groups(network, IMAGE))
    assert set(forms) == set(network.state_dict())
    assert forms["norm.num_batches_tracked"] == ()
    assert forms["norm.running_var"] == (Form(0, ((0, Fraction(1)),)),)
    assert forms["again.weight"] == (
        Form(0, ((0, Fraction(1)),)),
        Form(0, ((1, Fraction(1, 2)),)),
        3,
        3,
    )
    assert forms["head.bias"] == (4,)


def test_forms_of_concatenated_and_flattened_dimensions() -> None:
    network = couplings.ConcatWithInput()
    forms = parameter_forms(network, find_groups(network, IMAGE))
    assert forms["second.weight"][1] == Form(3, ((0, Fraction(1)),))
    network = couplings.Flattened()
    forms = parameter_forms(network, find_groups(network, IMAGE))
    assert forms["hidden.weight"] == (Form(0, ((1, Fraction(1)),)), Form(0, ((0, Fraction(64)),)))


def test_marker_widths_cost_nothing() -> None:
    network = couplings.Grouped().train()
    network.norm.eval()
    network.stem.weight.requires_grad_(False)
    wide = resized(network, find_groups(network, IMAGE), [600_000, 6_000_000, 1_000_003])
    assert {tensor.device.type for tensor in wide.state_dict().values()} == {"meta"}
    assert wide.again.weight.shape == (600_000, 3_000_000, 3, 3)
    assert (wide.again.in_channels, wide.again.out_channels, wide.again.groups) == (
        6_000_000,
        600_000,
        2,
    )
    assert wide.norm.num_features == 600_000
    assert wide.head.in_features == 1_000_003
    assert wide.training
    assert not wide.norm.training
    assert not wide.stem.weight.requires_grad
    assert wide(IMAGE.to("meta")).shape == (2, 4)
    assert network.stem.weight.device.type == "cpu"


@pytest.mark.parametrize(
    ("network", "counts"),
    [
        (couplings.SumWithConcat, [3, 2, 5]),
        (couplings.ConcatTwice, [3, 2]),
        (couplings.Grouped, [12, 12, 5]),
        (couplings.Flattened, [5, 7]),
        (couplings.Deconvolution, [3, 4, 5]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_groups_move_with_the_network(network: type[nn.Module], counts: list[int]) -> None:
    whole = network()
    groups = find_groups(whole, IMAGE)
    small = resized(whole, groups, counts)
    assert resized_groups(groups, counts) == find_groups(small, IMAGE)


def test_depthwise_prelu_and_bare_parameters_follow() -> None:
    network = couplings.SumWithInput()
    small = resized(network, find_groups(network, IMAGE), [5])
    assert (small.depthwise.in_channels, small.depthwise.groups) == (5, 5)
    network = couplings.Flattened()
    small = resized(network, find_groups(network, IMAGE), [3, 7])
    assert small.act.num_parameters == 3
    network = couplings.Scaled()
    small = resized(network, find_groups(network, IMAGE), [3, 2])
    assert small.scale.shape == (3, 1, 1)
    assert small.other.shape == (1, 2, 1, 1)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([12, 24], "2 channel counts for 3 groups"),
        ([0, 24, 8], "stem: 0 channels"),
        ([12, 20, 8], "grouped: 20 channels can't be kept; give a positive multiple of 6"),
    ],
)
def test_impossible_counts_are_refused(counts: list[int], message: str) -> None:
    network = couplings.Grouped()
    with pytest.raises(PruningError, match=message):
        resized(network, find_groups(network, IMAGE), counts)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (Member("nowhere", "out"), "nowhere: the network has no such module"),
        (Member("nowhere", 0), "nowhere: the network has no such parameter"),
        (Member("1", "both"), "1: a ReLU can't be resized along these channels"),
        (Member("2", "out"), "2: the channel groups hold 3 channels more than it has"),
    ],
)
def test_groups_of_another_network_are_refused(member: Member, message: str) -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    group = ChannelGroup("0", 6, 1, (member,))
    with pytest.raises(PruningError, match=message):
        resized(network, [group], [6])


def test_tied_tensors_stay_tied_in_copies() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    copied = copy_with_tensors(network, lambda _, tensor: tensor.detach() + 1)
    assert copied[0].weight is copied[1].weight
    assert torch.equal(copied[0].weight, network[0].weight + 1)
