"""Side branches: where they sit, that they change nothing at first, and that they are predicted."""

import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import dse
from dse.candidate import Candidate
from dse.deploy import bundle
from dse.errors import NetworkError
from dse.footprint.rebuild import rebuild
from dse.inputs import InputSpec
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.memory.tape import Event
from dse.memory.trace import trace_step
from dse.metrics import Confusion
from dse.pruning.groups import ChannelGroup, find_groups
from dse.pruning.resize import resized
from dse.pruning.surgery import prune
from dse.step.canonical import classification_loss, training_step
from dse.step.checkpointing import find_blocks
from dse.step.lite_residual import LITE_RESIDUAL, attach, has_branches
from dse.step.optimizers import make_optimizer
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings
from support.figures import figures_of
from support.networks import Blocks, Residual, short_efficientnet, short_mobilenet
from support.recipes import make_recipe

SIZES = {"mobilenet_v2": 32, "resnet18": 32, "efficientnet_b0": 32, "Blocks": 14}
SHORT = {"short MobileNetV2": short_mobilenet, "short EfficientNet-B0": short_efficientnet}
SIZES |= dict.fromkeys(SHORT, 32)


@cache
def parts(name: str) -> tuple[nn.Module, tuple[ChannelGroup, ...]]:
    """A network whose normalisation has seen images, and its groups; not to be changed."""
    torch.manual_seed(0)
    own = {"Blocks": Blocks, **SHORT}
    network = own[name]() if name in own else getattr(torchvision.models, name)(num_classes=3)
    network.train()(images_for(name, 4))
    return network.eval(), find_groups(network, images_for(name, 1))


def images_for(name: str, count: int) -> torch.Tensor:
    noise = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, SIZES[name], SIZES[name], generator=noise)


def odd_channels(groups: tuple[ChannelGroup, ...]) -> list[int]:
    """Counts between half and all of each group, odd ones among them."""
    rng = np.random.default_rng(len(groups))
    return [
        int(rng.integers((g.channels // g.multiple + 1) // 2, g.channels // g.multiple + 1))
        * g.multiple
        for g in groups
    ]


def network_of(name: str, *, pruned: bool) -> nn.Module:
    whole, groups = parts(name)
    if not pruned:
        return copy.deepcopy(whole)
    return prune(whole, groups=groups, kept=odd_channels(groups))


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
@pytest.mark.parametrize("name", SIZES)
def test_outputs_are_the_same_to_the_last_bit_until_something_was_learned(
    name: str, *, pruned: bool
) -> None:
    network, images = network_of(name, pruned=pruned), images_for(name, 3)
    branched = copy.deepcopy(network)
    attach(branched, images)
    for mode in (True, False):
        outputs = []
        for one in (network.train(mode), branched.train(mode)):
            torch.manual_seed(2)  # for dropout and stochastic depth
            outputs.append(one(images))
        assert torch.equal(*outputs)
    for branch in branched.lite_residual.values():
        nn.init.ones_(branch.last_norm.weight)
    assert not torch.allclose(network.eval()(images), branched.eval()(images))


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
@pytest.mark.parametrize("name", SIZES)
def test_gradients_reach_biases_branches_and_the_head_alone(name: str, *, pruned: bool) -> None:
    network, images = network_of(name, pruned=pruned), images_for(name, 4)
    head = {
        "mobilenet_v2": "classifier.1",
        "short MobileNetV2": "classifier.1",
        "resnet18": "fc",
        "efficientnet_b0": "classifier.1",
        "short EfficientNet-B0": "classifier.1",
    }
    own = {parameter for parameter, _ in network.named_parameters()}
    apply_scheme(network, images, LITE_RESIDUAL)
    expected = {
        name_
        for name_, _ in network.named_parameters()
        if name_.endswith(".bias")
        or name_.startswith(("lite_residual.", f"{head.get(name, 'head')}."))
    }
    assert expected - own, "there are branches"
    classification_loss(network(images), torch.tensor([0, 1, 2, 0])).backward()
    assert {n for n, p in network.named_parameters() if p.grad is not None} == expected
    for branch in network.lite_residual.values():
        assert branch.last_norm.weight.grad.abs().sum() > 0
        assert branch.norm.training
    frozen = {n: p.clone() for n, p in network.named_parameters() if n not in expected}
    optimizer = make_optimizer(network.parameters(), StepSettings(), learning_rate=0.01)
    batch = [(images, torch.tensor([0, 1, 2, 0]))]
    for _ in range(2):  # in the first, branches only learn how much of them to add
        training_step(network, optimizer, classification_loss, batch, settings=StepSettings())
    after = dict(network.named_parameters())
    assert all(torch.equal(after[n], tensor) for n, tensor in frozen.items())


def test_branches_stand_where_tinytl_has_them_with_the_pruned_blocks_widths() -> None:
    whole, groups = parts("mobilenet_v2")
    kept = odd_channels(groups)
    network = prune(whole, groups=groups, kept=kept)
    attach(network, images_for("mobilenet_v2", 2))
    assert list(network.lite_residual) == [f"features-{number}" for number in range(2, 18)]
    for key, branch in network.lite_residual.items():
        block = network.get_submodule(key.replace("-", "."))
        expand, _, reduce = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
        assert branch.conv.weight.shape == (expand.in_channels, expand.in_channels, 3, 3)
        assert branch.project.weight.shape == (reduce.out_channels, expand.in_channels, 1, 1)
        assert branch.conv.stride == block.conv[1][0].stride
    assert any(branch.conv.in_channels % 2 for branch in network.lite_residual.values())


OPTIMIZERS = ("sgd", "sgd-momentum", "adamw")
QUICK = {
    ("short MobileNetV2", "adamw"),
    ("short EfficientNet-B0", "sgd-momentum"),
    ("resnet18", "sgd"),
}


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *(
            pytest.param(
                name,
                {"optimizer": optimizer},
                marks=() if name == "Blocks" or (name, optimizer) in QUICK else pytest.mark.slow,
            )
            for name in SIZES
            for optimizer in OPTIMIZERS
        ),
        ("Blocks", {"checkpointing": "blocks"}),
        ("Blocks", {"precision": "bf16-mixed"}),
        ("Blocks", {"memory_format": "channels-last"}),
        ("Blocks", {"mode": "inference"}),
    ],
    ids=str,
)
def test_memory_is_that_of_a_fresh_trace_of_the_pruned_network(
    name: str, variant: dict[str, object]
) -> None:
    whole, groups = parts(name)
    step, size = StepSettings(**variant), SIZES[name]
    model = MemoryModel.compile(
        whole, images_for(name, 1), scheme=LITE_RESIDUAL, settings=step, groups=groups
    )
    assert model.method == "markers"
    kept = odd_channels(groups)
    pruned = prune(whole, groups=groups, kept=kept)
    for batch_size in (2, 32):
        shell = resized(pruned, (), ())
        apply_scheme(shell, torch.empty(2, 3, size, size, device="meta"), LITE_RESIDUAL)
        shape = (batch_size, 3, size, size)
        tape = trace_step(shell, shape, settings=step, loss=classification_loss)
        held = [
            int(np.prod(tape.dims[buffer])) * (1 if event == Event.BIRTH else -1)
            for event, buffer, _ in tape.events
            if event in (Event.BIRTH, Event.DEATH)
        ]
        assert model.peaks(kept, batch_size=batch_size) == np.cumsum(held).max()
    attach(pruned, images_for(name, 1))
    assert model.parameter_bytes(kept) == sum(p.nbytes for p in pruned.parameters())
    assert model.buffer_bytes(kept) == sum(b.nbytes for b in pruned.buffers())


def test_macs_of_branches_count() -> None:
    """Blocks: 14x14 images, 8 -> 12 channels at stride 2, pooled to 7x7 and then 4x4."""
    network, groups = parts("Blocks")
    full = [group.channels for group in groups]
    macs = {
        scheme: int(
            MemoryModel.compile(
                network, images_for("Blocks", 1), scheme=scheme, groups=groups
            ).macs_forward(full)
        )
        for scheme in ("bias", LITE_RESIDUAL)
    }
    second = 4 * 4 * (8 * 8 * 9 + 12 * 8)
    third = 4 * 4 * (12 * 12 * 9 + 12 * 12)
    assert macs[LITE_RESIDUAL] - macs["bias"] == second + third


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"checkpointing": "blocks"},
        pytest.param({"memory_format": "channels-last"}, marks=pytest.mark.slow),
        pytest.param({"accumulate": 2, "optimizer": "adamw"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_real_step_holds_what_is_predicted(variant: dict[str, object], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(num_classes=5)
    images, labels = torch.randn(8, 3, 32, 32), torch.randint(5, (8,))
    settings = StepSettings(scheme=LITE_RESIDUAL, **variant)
    predicted = probed_timeline(
        network, images, batch_size=8, settings=settings, cache=tmp_path
    ).breakdown()
    measured = measure_peak(network, images, labels, settings=settings, timed_steps=1)
    assert predicted.peak_bytes == measured.peak_bytes


def test_checkpointing_changes_nothing_but_memory() -> None:
    network, images = network_of("Blocks", pruned=False), images_for("Blocks", 4)
    apply_scheme(network, images, LITE_RESIDUAL)
    after = []
    for checkpointing in ("none", "blocks"):
        copied = copy.deepcopy(network)
        settings = StepSettings(checkpointing=checkpointing)  # type: ignore[arg-type]
        optimizer = make_optimizer(copied.parameters(), settings, learning_rate=0.1)
        batch = [(images, torch.tensor([0, 1, 2, 0]))]
        for _ in range(3):
            training_step(copied, optimizer, classification_loss, batch, settings=settings)
        after.append(copied.state_dict())
    plain, again = after
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, msg=name)
    assert find_blocks(network) == ("first", "second", "third")


def test_a_copy_runs_its_own_branches() -> None:
    network, images = network_of("Blocks", pruned=False), images_for("Blocks", 2)
    attach(network, images)
    copied = copy.deepcopy(network)
    for branch in copied.lite_residual.values():
        nn.init.ones_(branch.last_norm.weight)
    assert not torch.allclose(network(images), copied(images))
    assert torch.equal(network(images), parts("Blocks")[0](images))


def test_branches_begin_alike_and_leave_random_numbers_alone() -> None:
    images = images_for("Blocks", 2)
    one, other = network_of("Blocks", pruned=False), network_of("Blocks", pruned=False)
    torch.manual_seed(7)
    attach(one, images)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(1))
    attach(other, images)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_another_scheme_keeps_the_branches_and_the_same_scheme_adds_none() -> None:
    network, images = network_of("Blocks", pruned=False), images_for("Blocks", 2)
    apply_scheme(network, images, LITE_RESIDUAL)
    names = list(network.state_dict())
    apply_scheme(network, images, LITE_RESIDUAL)
    assert list(network.state_dict()) == names
    apply_scheme(network, images, "last")
    assert has_branches(network)
    assert {n for n, p in network.named_parameters() if p.requires_grad} == {
        "head.weight",
        "head.bias",
    }


def test_a_single_pixel_gets_a_branch_too() -> None:
    network = torchvision.models.mobilenet_v2(num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    before = network(images)
    attach(network, images)
    assert network.features[17](torch.randn(1, 160, 1, 1)).shape == (1, 320, 1, 1)
    assert torch.equal(network(images), before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_branches_are_laid_out_as_the_network_is(layout: torch.memory_format) -> None:
    network = network_of("mobilenet_v2", pruned=False).to(memory_format=layout)
    attach(network, images_for("mobilenet_v2", 2))
    for branch in network.lite_residual.values():
        assert branch.conv.weight.is_contiguous(memory_format=layout)


class InPlace(nn.Module):
    """Rectifies what it is given in place, so that nothing else may look at it afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images.relu_())


def test_blocks_that_no_branch_fits_have_none() -> None:
    def block() -> nn.Module:
        return nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))

    torch.manual_seed(0)
    single = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    network = nn.Sequential(single, block(), InPlace(), block(), head).eval()
    images = torch.randn(2, 3, 9, 9)
    before = network(images)
    attach(network, images)
    assert list(network.lite_residual) == ["3"]
    assert torch.equal(network(images), before)


@pytest.mark.parametrize("network", [Residual(), torchvision.models.vgg11(num_classes=3)])
def test_a_network_without_blocks_is_refused_in_a_line(network: nn.Module) -> None:
    name = type(network).__name__
    with pytest.raises(NetworkError, match=f"{name} has fewer than two blocks") as caught:
        apply_scheme(network, torch.zeros(2, 3, 32, 32), LITE_RESIDUAL)
    assert "\n" not in str(caught.value)


def test_a_bundle_is_rebuilt_with_its_branches(tmp_path: Path) -> None:
    factory = "support.networks:Blocks"
    channels = {"first.0": 5, "second.0": 7}
    network = rebuild(
        factory,
        classes=3,
        inputs=InputSpec.image(14),
        candidate=Candidate(channels=channels),
        options={},
    )
    images = images_for("Blocks", 4)
    apply_scheme(network, images, LITE_RESIDUAL)
    optimizer = make_optimizer(network.parameters(), StepSettings(), learning_rate=0.1)
    batch = [(images, torch.tensor([0, 1, 2, 0]))]
    for _ in range(3):
        training_step(network, optimizer, classification_loss, batch, settings=StepSettings())
    recipe = make_recipe(network=factory, channels=channels, scheme=LITE_RESIDUAL, image_size=14)
    scored = figures_of(Confusion(np.eye(2, dtype=np.int64)))
    bundle.write(tmp_path, network=network.eval(), recipe=recipe, score=lambda _: scored)
    loaded = dse.load(tmp_path, trust=True)
    assert torch.equal(loaded(images), network(images))
    assert list(loaded.state_dict()) == list(network.state_dict())
