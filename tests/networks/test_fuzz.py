"""Whatever a network is like: a result, or one line of ours; nothing else."""

from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dse.errors import DseError
from dse.inputs import InputSpec
from dse.memory.layerwise import layerwise_memory
from dse.memory.model import MemoryModel
from dse.networks.checks import check_network, network_notes
from dse.networks.examples import example_input
from dse.pruning.groups import find_groups
from dse.pruning.surgery import prune
from dse.step.schemes import apply_scheme
from support.strange_networks import STRANGE, Strange

SIZE, CLASSES = 8, 4


def study(network: nn.Module) -> None:
    """All that is done with a network before it trains; errors of ours are results."""
    example = example_input(2, SIZE)
    for checked in (True, False):  # Python's users call the parts without the check before them
        with suppress(DseError):
            if checked:
                check_network(
                    network,
                    title="net",
                    size_key="size",
                    inputs=InputSpec.image(SIZE),
                    classes=CLASSES,
                )
                list(network_notes(network, example))
            groups = find_groups(network, example)
            kept = [max(g.multiple, g.channels // 2 // g.multiple * g.multiple) for g in groups]
            pruned = prune(network, groups=groups, kept=kept)
            pruned.eval()(example)
    with suppress(DseError):
        MemoryModel.compile(network, example, scheme="last", groups=()).peaks([], batch_size=2)
    with suppress(DseError):
        layerwise_memory(network, example, batch_size=2, scheme="full")
    with suppress(DseError):
        apply_scheme(network, example, "last")


@pytest.mark.parametrize("habit", STRANGE)
def test_every_habit_gives_a_result_or_an_error_of_ours(habit: str) -> None:
    study(Strange(habit, CLASSES))


class Grown(nn.Module):
    """A chain of blocks drawn at random, each of which keeps the number of channels."""

    def __init__(self, blocks: list[tuple[str, str, str]], habit: str, *, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.kinds = [kind for kind, _, _ in blocks]
        self.blocks = nn.ModuleList(_block(*block, width=width) for block in blocks)
        self.tail = Strange(habit, CLASSES, channels=width, width=width)

    def forward(self, x: Tensor) -> object:
        x = self.stem(x)
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            if kind == "residual":
                x = x + block(x)
            elif kind == "concatenated":
                x = block(torch.cat([x, x.flip(1)], 1))
            elif kind == "reshaped":
                x = block(x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2))
            elif kind == "twice":
                x = block(block(x))
            elif kind == "gated":
                x = x * torch.sigmoid(block(x).mean((2, 3), keepdim=True))
            else:
                x = block(x)
        return self.tail(x)


def _block(kind: str, norm: str, activation: str, *, width: int) -> nn.Module:
    given = 2 * width if kind == "concatenated" else width
    groups = {"grouped": 2, "depthwise": width}.get(kind, 1)
    norms = {
        "batch": nn.BatchNorm2d(width),
        "group": nn.GroupNorm(2, width),
        "instance": nn.InstanceNorm2d(width, affine=True),
        "local": nn.LocalResponseNorm(2),
        "none": nn.Identity(),
    }
    activations = {
        "relu": nn.ReLU(inplace=True),
        "mish": nn.Mish(),
        "prelu": nn.PReLU(width),
        "softmax": nn.Softmax(1),
        "dropout": nn.Dropout2d(0.5),
    }
    layers = [nn.Conv2d(given, width, 3, padding=1, groups=groups)]
    return nn.Sequential(*layers, norms[norm], activations[activation])


KINDS = ["plain", "residual", "concatenated", "reshaped", "twice", "gated", "grouped", "depthwise"]
BLOCKS = st.tuples(
    st.sampled_from(KINDS),
    st.sampled_from(["batch", "group", "instance", "local", "none"]),
    st.sampled_from(["relu", "mish", "prelu", "softmax", "dropout"]),
)


def grown(blocks: list[tuple[str, str, str]], habit: str, width: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Grown(blocks, habit, width=width)


DRAWN = given(
    blocks=st.lists(BLOCKS, max_size=4),
    habit=st.sampled_from(STRANGE),
    width=st.sampled_from([4, 6, 8]),
)
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=CHECKS)
@DRAWN
def test_a_few_grown_networks(blocks: list[tuple[str, str, str]], habit: str, width: int) -> None:
    study(grown(blocks, habit, width))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=CHECKS)
@DRAWN
def test_many_grown_networks(blocks: list[tuple[str, str, str]], habit: str, width: int) -> None:
    study(grown(blocks, habit, width))
