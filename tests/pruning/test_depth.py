"""Residual blocks: which are found and why, and what leaving them out does."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from dse.errors import PruningError
from dse.memory.model import MemoryModel
from dse.pruning.depth import blocks_named, find_depth, groups_without, without_blocks
from dse.pruning.groups import find_groups
from dse.pruning.surgery import prune
from support.traces import fresh_peak

SIZE = 32
IMAGE = (3, SIZE, SIZE)
EXAMPLE = torch.zeros(2, *IMAGE)


def mobilenet() -> nn.Module:
    setting = [[1, 16, 1, 1], [6, 24, 3, 2], [6, 32, 2, 2]]  # expansion, channels, number, stride
    return torchvision.models.MobileNetV2(
        num_classes=5, width_mult=0.5, inverted_residual_setting=setting
    )


def resnet() -> nn.Module:
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.ResNet(block, [2, 2, 1, 1], num_classes=5)


def convnext() -> nn.Module:
    settings = [CNBlockConfig(16, 24, 2), CNBlockConfig(24, None, 2)]
    return torchvision.models.ConvNeXt(settings, num_classes=5)


def transformer() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=SIZE,
        patch_size=8,
        num_layers=3,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=24,
        num_classes=5,
    )


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    network: nn.Module = transformers.BertForSequenceClassification(config)
    return network


NETWORKS: dict[Callable[[], nn.Module], tuple[str, ...]] = {
    mobilenet: ("features.3", "features.4", "features.6"),
    resnet: ("layer1.0", "layer1.1", "layer2.1"),
    convnext: ("features.1.0", "features.1.1", "features.3.0", "features.3.1"),
    transformer: tuple(f"encoder.layers.encoder_layer_{number}" for number in range(3)),
}


@pytest.mark.parametrize("build", NETWORKS)
def test_blocks_are_found_by_their_skip_connections(build: Callable[[], nn.Module]) -> None:
    depth = find_depth(build(), EXAMPLE)
    assert tuple(block.name for block in depth.blocks) == NETWORKS[build]
    assert not any(block.after for block in depth.blocks)


def test_encoder_layers_of_transformers_are_found_with_the_norms_that_go_with_them() -> None:
    network, tokens = bert().eval(), torch.arange(12).reshape(2, 6)
    blocks = find_depth(network, tokens).blocks
    assert [block.name for block in blocks] == [f"bert.encoder.layer.{n}" for n in range(3)]
    assert all(block.after == ("norm", "norm") for block in blocks)
    with torch.no_grad():
        shorter = without_blocks(network, blocks[1:2])(tokens).logits
        network.bert.encoder.layer = network.bert.encoder.layer[::2]  # a shorter list of layers
        assert torch.equal(shorter, network(tokens).logits)


@pytest.mark.parametrize("build", NETWORKS)
def test_without_a_block_is_with_its_branch_switched_off(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = build().eval()
    blocks = find_depth(network, EXAMPLE).blocks
    network.double()
    with torch.no_grad():
        for parameter in network.parameters():  # layer scales of 1e-6 would hide a difference
            parameter.uniform_(-0.5, 0.5)
        before = network(torch.ones(1, *IMAGE).double())
        shorter = without_blocks(network, blocks[1:])
        for block in blocks[1:]:
            for name, parameter in network.get_submodule(block.name).named_parameters():
                # The last layers of its branches: nothing of them is left.
                if name.startswith(LAST[build]):
                    parameter.zero_()
        images = torch.randn(2, *IMAGE, dtype=torch.float64)
        assert torch.equal(shorter(images), network(images))
        assert not torch.equal(before, network(torch.ones(1, *IMAGE).double()))


LAST = {
    mobilenet: ("conv.3",),
    resnet: ("bn2",),
    convnext: ("layer_scale",),
    transformer: ("self_attention.out_proj", "mlp.3"),
}


@pytest.mark.parametrize("build", NETWORKS)
def test_memory_without_blocks_equals_a_fresh_trace(build: Callable[[], nn.Module]) -> None:
    network = build()
    depth, groups = find_depth(network, EXAMPLE), find_groups(network, EXAMPLE)
    rng = np.random.default_rng(0)
    for number in (1, len(depth.blocks)):
        blocks = depth.blocks[-number:]
        shorter, left = without_blocks(network, blocks), groups_without(groups, blocks)
        model = MemoryModel.compile(shorter, EXAMPLE, groups=left, optimizer="adamw")
        for _ in range(2):
            channels = [
                int(rng.integers(-(-group.fewest // group.multiple), top + 1)) * group.multiple
                for group in left
                for top in [group.channels // group.multiple]
            ]
            pruned = prune(shorter, groups=left, kept=channels)
            expected = fresh_peak(pruned, (3, *IMAGE), scheme="full", step=model.settings)
            assert model.peaks(channels, batch_size=3) == expected


def test_a_group_goes_on_or_vanishes() -> None:
    network = mobilenet()
    depth, groups = find_depth(network, EXAMPLE), find_groups(network, EXAMPLE)
    left = groups_without(groups, blocks_named(depth, ["features.3"]))
    gone = [group for group in left if not group.members]
    assert [group.name for group in left] == [group.name for group in groups]
    assert [group.name for group in gone] == ["features.3.conv.0.0"]
    stream = next(group for group in left if group.name == "features.2.conv.2")
    assert {member.module for member in stream.members} >= {
        "features.2.conv.2",
        "features.4.conv.2",
    }
    assert not any(member.module.startswith("features.3.") for member in stream.members)


class Block(nn.Module):
    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(x, self.branch(x))


@pytest.mark.parametrize(
    "combine",
    [
        lambda x, branch: 0.5 * x + branch,
        lambda x, branch: x.transpose(2, 3) + branch,
        lambda x, branch: x - branch,
        lambda x, branch: torch.add(branch, x, alpha=2),
        lambda x, branch: torch.relu(x) + branch,
        lambda _x, branch: branch,
    ],
)
def test_what_is_not_its_input_plus_a_branch_stays(
    combine: Callable[[Tensor, Tensor], Tensor],
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), Block(combine), nn.Flatten(), nn.Linear(4 * 64, 2))
    depth = find_depth(network, torch.zeros(1, 3, 8, 8))
    assert not depth.blocks
    assert depth.refused == {"1": "its output isn't its input with a branch added to it"}


def test_a_sum_that_moves_its_elements_there_and_back_is_found() -> None:
    def combine(x: Tensor, branch: Tensor) -> Tensor:
        summed = x.permute(0, 2, 3, 1).reshape(len(x), -1, 4) + branch.flatten(2).transpose(1, 2)
        return summed.transpose(1, 2).reshape(x.shape)

    network = nn.Sequential(nn.Conv2d(3, 4, 1), Block(combine), nn.Flatten(), nn.Linear(4 * 64, 2))
    assert [block.name for block in find_depth(network, torch.zeros(1, 3, 8, 8)).blocks] == ["1"]


class Repeating(nn.Module):
    """Calls one block twice, and reads an attribute of another."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.read = Block(torch.add), Block(torch.add)
        self.read.number = torch.tensor(3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(self.twice(self.twice(x)))
        return self.head(x.mean((2, 3))) * float(self.read.branch[0].bias.numel())


def test_reasons_why_blocks_stay() -> None:
    depth = find_depth(Repeating(), torch.zeros(1, 4, 8, 8))
    assert not depth.blocks
    assert depth.refused["twice"].startswith("it is called more than once")
    assert depth.refused["read"].startswith("the network doesn't run without it (AttributeError")
    with pytest.raises(PruningError, match="block 'twice' can't be left out: it is called more"):
        blocks_named(depth, ["twice"])
