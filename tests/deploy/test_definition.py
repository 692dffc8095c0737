import ast
import inspect
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from dse.deploy.definition import definition, output_layer
from dse.deploy.layer_source import (
    NoSourceError,
    can_have_other_outputs,
    is_layer,
    layer_source,
)
from dse.engines.budget import traced_peak
from dse.step.canonical import classification_loss
from dse.step.lite_residual import attach
from dse.step.schemes import prepare_scheme
from dse.step.settings import StepSettings


def built(source: str, *given: int) -> nn.Module:
    space: dict[str, Callable[..., nn.Module]] = {}
    exec(compile(source, "network.py", "exec"), space)  # noqa: S102  # what is tested
    return space["build"](*given)


def images(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False, padding_mode="reflect"),
        nn.Conv2d(4, 8, (3, 1), padding="same"),
        nn.BatchNorm2d(6, eps=1e-3, momentum=None),
        nn.BatchNorm2d(6, affine=False),
        nn.LayerNorm((4, 4), elementwise_affine=False),
        nn.GroupNorm(2, 4),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Hardtanh(-1.0, float("inf")),
        nn.Linear(3, 2, dtype=torch.float64),
        nn.MultiheadAttention(4, 2, bias=False, batch_first=True),
        nn.Upsample(scale_factor=2.0, mode="bilinear"),
    ],
)
def test_a_layer_is_built_again_as_it_was(layer: nn.Module) -> None:
    again = eval(layer_source(layer), {"nn": nn, "torch": torch})  # noqa: S307  # what is tested
    assert repr(again) == repr(layer)
    shapes = [(k, v.shape, v.dtype) for k, v in layer.state_dict().items()]
    assert [(k, v.shape, v.dtype) for k, v in again.state_dict().items()] == shapes


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1"])
def test_a_torchvision_network_is_the_same_without_torchvisions_classes(name: str) -> None:
    network = torchvision.models.get_model(name, num_classes=3, weights=None)
    source = definition(network, images(), title="T")  # which compares outputs and gradients
    assert "torchvision" not in source
    again = built(source)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(images()), network.eval()(images()))
    assert again(images()[:1]).shape == (1, 3)
    assert built(source, 5)(images()).shape == (2, 5)


class Modal(nn.Module):
    """Its computation, and values in it, depend on the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("shift", torch.arange(3.0), persistent=False)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3)) * self.scale + self.shift
        if self.training:
            x = x + 0.1
        return self.head(functional.dropout(x, 0.5, training=self.training))


def test_both_modes_keep_their_own_computation() -> None:
    torch.manual_seed(0)
    network = Modal()
    source = definition(network, images(8), title="T")
    assert "def forward_in_evaluation" in source
    again = built(source)
    again.load_state_dict(network.state_dict())
    for training in (True, False):
        outputs = []
        for one in (network, again):
            torch.manual_seed(1)
            outputs.append(one.train(training)(images(8)))
        assert torch.equal(*outputs)


class Droppy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.dropout(x.mean((2, 3)), 0.5, self.training))


def test_a_value_of_the_mode_is_read_from_the_module() -> None:
    source = definition(Droppy(), images(8), title="T")
    assert "self.training" in source
    assert "def forward_in" not in source


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.parts = nn.ModuleDict({"a-b": nn.Linear(3, 3), "class": self.first})
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x.mean((2, 3))))
        return self.head(self.parts["class"](self.parts["a-b"](x)))


def test_what_is_shared_stays_shared() -> None:
    again = built(definition(Tied(), images(8), title="T"))
    assert again.second.weight is again.first.weight
    assert again.get_submodule("parts.class") is again.first
    assert len(list(again.parameters())) == len(list(Tied().parameters()))


def test_side_branches_run_again() -> None:
    network = torchvision.models.resnet18(num_classes=2)
    attach(network, images())
    for norm in (m for n, m in network.named_modules() if n.endswith("last_norm")):
        nn.init.ones_(norm.weight)
    again = built(definition(network, images(), title="T"))
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(images()), network.eval()(images()))


def test_adapters_need_no_peft_and_can_be_merged() -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 2)
    )
    prepare_scheme(network, images(8), "lora:2,alpha=3")
    for name, parameter in network.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter)
    source = definition(network, images(8), title="T")
    assert "peft" not in source
    again = built(source)
    again.load_state_dict(network.state_dict())
    expected = network.eval()(images(8))
    assert torch.equal(again.eval()(images(8)), expected)
    peaks = []
    for own in (network, again):
        for name, parameter in own.named_parameters():
            parameter.requires_grad_(".lora_" in name or name.startswith("4."))
        step = StepSettings()
        peaks.append(traced_peak(own, (256, 3, 8, 8), settings=step, loss=classification_loss))
    assert peaks[0] == peaks[1]
    space: dict[str, Callable[..., nn.Module]] = {}
    exec(compile(source, "network.py", "exec"), space)  # noqa: S102  # what is tested
    other = space["build"](2)
    other.load_state_dict(network.state_dict())
    merged = space["merge"](other)
    assert [type(module) for module in merged if list(module.parameters())] == [nn.Linear] * 3
    torch.testing.assert_close(merged(images(8)), expected, rtol=1e-5, atol=1e-5)


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        return self.head(x if x.sum() > 0 else -x)


def hooked() -> nn.Module:
    network = Droppy()
    network.head.register_forward_hook(lambda _m, _i, output: output + 1)
    return network


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (Deciding, r"module network \(Deciding\): forward .* can't be traced"),
        (hooked, r"module head \(Linear\): it has hooks"),
    ],
)
def test_what_has_no_definition_is_refused_in_one_line(
    network: Callable[[], nn.Module], complaint: str
) -> None:
    with pytest.raises(NoSourceError, match=complaint) as caught:
        definition(network(), images(8), title="T")
    assert "\n" not in str(caught.value)


def test_names_of_a_users_classes_cant_break_out_of_the_text() -> None:
    evil = type("build", (Droppy,), {"__doc__": '"""\nimport os'})
    tree = ast.parse(definition(evil(), images(8), title="T"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert names == ["Part", "Ownbuild"]


def test_an_output_layer_that_cant_have_other_outputs_is_none() -> None:
    assert output_layer(Droppy(), images(8)) == "head"
    assert output_layer(Tied(), images(8)) == "head"
    assert output_layer(Pooled(), images(8)) is None


class Halved(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / 2)


def test_a_subclass_that_computes_what_pytorchs_layer_does_is_written_as_that() -> None:
    assert layer_source(timm.layers.Linear(4, 2)) == "nn.Linear(4, 2)"
    assert can_have_other_outputs(timm.layers.Linear(4, 2))
    same = timm.layers.Conv2dSame(4, 2, 1)  # of one pixel, so that nothing is padded
    assert layer_source(same, outputs="classes") == "nn.Conv2d(4, classes, 1)"
    for other in (timm.layers.Conv2dSame(4, 2, 3, stride=2), Halved(4, 2)):
        assert not is_layer(other)
        assert not can_have_other_outputs(other)


def test_the_head_of_a_timm_network_takes_other_labels() -> None:
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv4_conv_small_050", num_classes=3).eval()
    assert output_layer(network, images()) == "classifier"
    again = built(definition(network, images(), title="T"), 5)
    assert again(images()).shape == (2, 5)


def test_options_that_a_network_is_called_without_are_left_out() -> None:
    torch.manual_seed(0)
    network = timm.create_model(
        "test_vit", num_classes=3, img_size=32, patch_size=16, dynamic_img_size=False
    ).eval()
    assert "is_causal" in inspect.signature(type(network).forward).parameters
    source = definition(network, images(), title="T")
    again = built(source, 5)
    again.load_state_dict(
        {n: t for n, t in network.state_dict().items() if not n.startswith("head.")}, strict=False
    )
    assert again(images()).shape == (2, 5)
    assert type(network) is timm.models.vision_transformer.VisionTransformer


class Pooled(nn.Module):
    """A cosine classifier: its weight is no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.mean((2, 3)), functional.normalize(self.prototypes))
