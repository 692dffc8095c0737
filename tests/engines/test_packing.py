import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

import dse
from dse.engines.packing import LEVELS, packed
from dse.errors import ConfigError
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.pruning.groups import find_groups
from dse.pruning.resize import resized
from dse.step.settings import StepSettings
from support import networks
from support.lean import at_level, train


def _network() -> nn.Module:
    torch.manual_seed(0)
    return models.MNASNet(0.5, num_classes=3)


def test_a_value_is_rounded_to_the_nearest_of_its_channel() -> None:
    images = torch.randn(4, 5, 6, 7) * torch.tensor([1e-3, 1.0, 1e3, 0.0, 1.0]).view(1, -1, 1, 1)
    found = packed(images, spend=False)
    assert found.codes.dtype == torch.uint8
    span = images.amax((0, 2, 3)) - images.amin((0, 2, 3))
    away = (found.value() - images).abs().amax((0, 2, 3))
    assert (away <= 0.501 * span / LEVELS + 1e-7).all()
    tokens = torch.randn(3, 4, 5)
    assert packed(tokens.clone(), spend=True).low.shape == (1, 1, 5)
    assert (packed(tokens, spend=False).value() - tokens).abs().max() < 0.02


@pytest.mark.parametrize("level", ["lean", "recomputed", "chunked"])
def test_gradients_are_near_and_losses_the_same(level: str) -> None:
    network, images = _network(), torch.randn(8, 3, 32, 32)
    losses, gradients = train(copy.deepcopy(network), images)
    own = at_level(dse.lean(network, images, saved_bits=8), level, 2)  # type: ignore[arg-type]
    others, found = train(own, images)
    assert others == pytest.approx(losses, rel=1e-5)  # the forward pass is exact
    stock = torch.cat([one.flatten() for one in gradients.values()])
    lean = torch.cat([found[name].flatten() for name in gradients])
    assert not torch.equal(stock, lean)
    assert nn.functional.cosine_similarity(stock, lean, 0) > 0.9


def test_a_graph_can_be_kept() -> None:
    network, images = _network(), torch.randn(4, 3, 32, 32)
    own = dse.lean(network, images, saved_bits=8)
    loss = own(images).square().sum()
    parameters = list(own.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("budget", [None, "least"])
def test_a_step_holds_what_is_predicted_to_the_byte(budget: str | None, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    settings = StepSettings()
    own = dse.lean(_network(), images, "full", budget, saved_bits=8)
    model = MemoryModel.compile(own, images, groups=())
    tensors = int(model.peaks([], batch_size=4))
    if budget is not None:
        assert own.lean_plan.peak_bytes == tensors
    else:
        exact = MemoryModel.compile(dse.lean(_network(), images), images, groups=())
        assert tensors < exact.peaks([], batch_size=4)
    predicted = probed_timeline(own, images, batch_size=4, settings=settings, cache=tmp_path)
    measured = measure_peak(own, images, labels, settings=settings, timed_steps=1)
    assert predicted.breakdown().peak_bytes == measured.peak_bytes


def test_one_model_holds_at_every_width() -> None:
    images = torch.zeros(2, 3, 16, 16)
    network = networks.Residual()
    found = dse.lean(network, images, saved_bits=8)
    model = MemoryModel.compile(found, images)
    channels = [max(1, group.channels // 2) for group in find_groups(network, images)]
    pruned = found.on(resized(network, find_groups(network, images), channels))
    own = MemoryModel.compile(pruned, images, groups=())
    for batch_size in (2, 5):
        assert model.peaks(channels, batch_size=batch_size) == own.peaks([], batch_size=batch_size)


def test_what_can_not_be_rounded_is_refused_in_one_line() -> None:
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(ConfigError, match="saved_bits is 4: use 32, or 8"):
        dse.lean(_network(), images, saved_bits=4)
    with pytest.raises(ConfigError, match="leave bit_identical off"):
        dse.lean(_network(), images, "full", "least", saved_bits=8, bit_identical=True)
