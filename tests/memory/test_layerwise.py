"""The literature's formula against published figures, a sheet of paper and pruned networks."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from dse.errors import MemoryModelError
from dse.memory.layerwise import layerwise_memory
from dse.memory.module_calls import BlockBegin, module_calls
from dse.pruning.groups import find_groups
from dse.pruning.resize import resized
from dse.pruning.surgery import prune
from support.networks import SqueezeExcite

MB = 1_000_000
IMAGE = torch.zeros(1, 3, 224, 224)


@pytest.mark.parametrize(
    ("width", "classes", "megabytes"),
    [
        (1.0, 196, 448.3),  # figure 4, Cars
        (1.0, 100, 447.8),  # figure 4, Aircraft
        (1.4, 102, 644.0),  # table 2, one figure for all data sets, Flowers being the first
    ],
)
def test_published_figures_of_tinytl(width: float, classes: int, megabytes: float) -> None:
    network = torchvision.models.mobilenet_v2(width_mult=width, num_classes=classes)
    memory = layerwise_memory(network, IMAGE, batch_size=8)
    assert memory.peak_bytes / MB == pytest.approx(megabytes, abs=0.3)


def test_table_2_of_tinytl_does_not_mean_cars() -> None:
    """With the 196 classes of Cars the head alone is 0.7 MB larger than with Flowers's 102."""
    network = torchvision.models.mobilenet_v2(width_mult=1.4, num_classes=196)
    assert layerwise_memory(network, IMAGE, batch_size=8).peak_bytes == 644_851_968


@pytest.mark.parametrize(
    ("width", "size", "megabytes"),
    [(0.75, 224, 391), (0.5, 224, 244), (0.35, 224, 193), (1.0, 192, 331), (1.0, 160, 233)],
)
def test_figures_derived_independently(width: float, size: int, megabytes: int) -> None:
    network = torchvision.models.mobilenet_v2(width_mult=width, num_classes=100)
    memory = layerwise_memory(network, IMAGE[:, :, :size, :size], batch_size=8)
    assert round(memory.peak_bytes / MB) == megabytes


class Block(nn.Module):
    """Conv 4 -> 4, norm and ReLU, added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.act(self.norm(self.conv(features)))


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def test_a_network_small_enough_for_a_sheet_of_paper() -> None:
    """8 x 8 images: 768 B in, feature maps of 1024 B; masks have 256 bits, i.e. 32 B.

    | layer | temporary         | held | saved before       | sum  |
    | conv  | 768 + 1024        | 0    | 0                  | 1792 |
    | conv  | 1024 + 1024/2     | 1024 | 768                | 3328 |
    | norm  | 1024              | 1024 | 768 + 1024         | 3840 |
    | relu  | 1024              | 1024 | 768 + 2048         | 4864 |
    | linear| 16 + 8            | 0    | 768 + 2048 + 32    | 2872 |

    Parameters: 3*4 + 4, 4*2*9, 4 + 4, 4*2 + 2 = 106.
    """
    memory = layerwise_memory(small(), torch.zeros(1, 3, 8, 8), batch_size=5)
    needed = {layer.module: layer.needed_bits / 8 for layer in memory.layers}
    assert needed["0"] == 1792
    assert needed["1.conv"] == 3328
    assert needed["1.norm"] == 3840
    assert needed["1.act"] == 4864
    assert needed["4"] == 2872
    assert memory.activation_bytes == 5 * 4864
    assert memory.parameter_bytes == 4 * 106
    assert memory.peak_bytes == 5 * 4864 + 4 * 106
    assert memory.peak_module == "1.act"
    assert memory.temporary_peak_bytes == 5 * (1024 + 512 + 1024)
    assert memory.temporary_peak_module == "1.conv"
    assert memory.uncounted == ("AdaptiveAvgPool2d", "Flatten")


def test_what_is_frozen_saves_nothing_and_has_eight_bits() -> None:
    """The mask is saved all the same; the linear layer is the one whose weight trains."""
    image = torch.zeros(1, 3, 8, 8)
    memory = layerwise_memory(small(), image, batch_size=5, scheme="last")
    assert {layer.module: layer.saved_bits for layer in memory.layers if layer.saved_bits} == {
        "1.act": 256,
        "4": 8 * 16,
    }
    assert memory.activation_bytes == memory.temporary_peak_bytes == 5 * 2560
    assert memory.parameter_bytes == 96 + 4 * 10
    norm = layerwise_memory(small(), image, batch_size=5, scheme="norm")
    assert {layer.module for layer in norm.layers if layer.saved_bits} == {"1.norm", "1.act", "4"}


def test_inference_saves_nothing_at_all() -> None:
    memory = layerwise_memory(small(), torch.zeros(1, 3, 8, 8), batch_size=2, mode="inference")
    assert not any(layer.saved_bits for layer in memory.layers)
    assert memory.activation_bytes == memory.temporary_peak_bytes
    assert memory.parameter_bytes == 106


def test_without_a_scheme_the_networks_own_choice_counts() -> None:
    network, image = small(), torch.zeros(1, 3, 8, 8)
    network.requires_grad_(requires_grad=False)[4].requires_grad_(requires_grad=True)
    own = layerwise_memory(network, image, batch_size=5)
    assert own == layerwise_memory(small(), image, batch_size=5, scheme="last")
    assert network.training


@pytest.mark.parametrize(
    ("build", "classes"),
    [
        (torchvision.models.resnet18, BasicBlock),
        (torchvision.models.resnet50, Bottleneck),
        (torchvision.models.mobilenet_v2, InvertedResidual),
    ],
)
def test_residual_blocks_are_those_that_tinytl_lists(
    build: type[nn.Module], classes: type[nn.Module]
) -> None:
    network = resized(build(num_classes=3), (), ()).eval()
    calls = module_calls(network, torch.empty(1, 3, 64, 64, device="meta"))
    found = {c.name for c in calls if isinstance(c, BlockBegin) and c.residual}
    listed = {
        name
        for name, module in network.named_modules()
        if isinstance(module, classes) and getattr(module, "use_res_connect", True)
    }
    assert found == listed


def test_a_candidate_counts_as_the_pruned_network_does() -> None:
    network, example = SqueezeExcite(), torch.zeros(2, 3, 12, 12)
    groups = find_groups(network, example)
    channels = [max(g.multiple, g.channels // 2 // g.multiple * g.multiple) for g in groups]
    pruned = prune(network, groups=groups, kept=channels)
    candidate = layerwise_memory(network, example, batch_size=4, groups=groups, channels=channels)
    assert candidate == layerwise_memory(pruned, example, batch_size=4)
    assert candidate.peak_bytes < layerwise_memory(network, example, batch_size=4).peak_bytes


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def test_wrong_input_is_named() -> None:
    with pytest.raises(MemoryModelError, match="batch_size must be at least 1, not 0"):
        layerwise_memory(small(), torch.zeros(1, 3, 8, 8), batch_size=0)
    with pytest.raises(MemoryModelError, match="can't run Sequential on meta tensors: at '0'"):
        layerwise_memory(small(), torch.zeros(1, 5, 8, 8), batch_size=1)
    with pytest.raises(MemoryModelError, match="Idle runs no layer"):
        layerwise_memory(Idle(), torch.zeros(1, 3, 8, 8), batch_size=1)
