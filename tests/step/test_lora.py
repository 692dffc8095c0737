"""Adapters: where they stand, that they change nothing at first, and that they are predicted."""

import copy
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from peft import LoraConfig, inject_adapter_in_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dse.errors import ConfigError, NetworkError
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.memory.tape import Event, Tape
from dse.memory.trace import trace_step
from dse.networks.fixed import fixed_parameters
from dse.pruning.groups import ChannelGroup, find_groups
from dse.pruning.resize import resized
from dse.pruning.surgery import prune
from dse.step.canonical import classification_loss, training_step
from dse.step.lora import adapters_of, attach_adapters
from dse.step.optimizers import make_optimizer
from dse.step.schemes import apply_scheme, prepare_scheme
from dse.step.settings import StepSettings

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


@cache
def parts() -> tuple[nn.Module, tuple[ChannelGroup, ...]]:
    """A vision transformer of two blocks and its groups; not to be changed."""
    torch.manual_seed(0)
    network = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=3
    ).eval()
    return network, find_groups(network, images(1))


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def smaller(groups: tuple[ChannelGroup, ...]) -> list[int]:
    return [max(g.fewest, g.channels // 2 // g.multiple * g.multiple) for g in groups]


def network_of(*, pruned: bool) -> nn.Module:
    whole, groups = parts()
    return prune(whole, groups=groups, kept=smaller(groups)) if pruned else copy.deepcopy(whole)


def peak(tape: Tape) -> int:
    held = [
        int(np.prod(tape.dims[buffer])) * (1 if event == Event.BIRTH else -1)
        for event, buffer, _ in tape.events
        if event in (Event.BIRTH, Event.DEATH)
    ]
    return int(np.cumsum(held).max())


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
def test_outputs_are_the_same_to_the_last_bit_until_something_was_learned(*, pruned: bool) -> None:
    network, given = network_of(pruned=pruned), images(3)
    adapted = copy.deepcopy(network)
    attach_adapters(adapted, given, "4")
    assert torch.equal(adapted(given), network(given))
    nn.init.ones_(adapted.blocks[0].mlp.fc1.lora_B["default"].weight)
    assert not torch.allclose(adapted(given), network(given))


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
def test_adapters_and_the_head_train_and_nothing_else(*, pruned: bool) -> None:
    network, given = network_of(pruned=pruned), images(4)
    apply_scheme(network, given, "lora:4")
    expected = {"head.weight", "head.bias"} | {
        f"blocks.{block}.{layer}.{part}.default.weight"
        for block in range(2)
        for layer in LAYERS
        for part in ("lora_A", "lora_B")
    }
    assert {n for n, p in network.named_parameters() if p.requires_grad} == expected
    assert set(adapters_of(network)) == expected - {"head.weight", "head.bias"}
    for name, module in network.named_modules():
        if name.endswith(LAYERS):
            base = module.base_layer
            assert module.lora_A["default"].weight.shape == (4, base.in_features)
            assert module.lora_B["default"].weight.shape == (base.out_features, 4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = make_optimizer(network.parameters(), StepSettings(), learning_rate=0.1)
    batch = [(given, torch.tensor([0, 1, 2, 0]))]
    for _ in range(2):
        training_step(network, optimizer, classification_loss, batch, settings=StepSettings())
    changed = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == expected


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"checkpointing": "blocks", "optimizer": "adamw"},
        {"precision": "bf16-mixed"},
    ],
    ids=str,
)
def test_memory_is_that_of_a_fresh_trace_of_a_network_that_peft_adapted(
    variant: dict[str, object],
) -> None:
    whole, groups = parts()
    step = StepSettings(scheme="lora:4", **variant)  # type: ignore[arg-type]
    model = MemoryModel.compile(whole, images(1), settings=step, groups=groups)
    assert model.method == "markers"
    for kept in ([group.channels for group in groups], smaller(groups)):
        shell = resized(prune(whole, groups=groups, kept=kept), (), ())
        inject_adapter_in_model(LoraConfig(r=4, target_modules=list(LAYERS)), shell)
        for name, parameter in shell.named_parameters():
            parameter.requires_grad_("lora_" in name or name.startswith("head."))
        tape = trace_step(shell.train(), (8, 3, 16, 16), settings=step, loss=classification_loss)
        assert model.peaks(kept, batch_size=8) == peak(tape)
        held = sum(parameter.nbytes for parameter in shell.parameters())
        assert model.parameter_bytes(kept) == held


def test_a_real_step_holds_what_is_predicted(tmp_path: Path) -> None:
    network, given, labels = network_of(pruned=True), images(8), torch.arange(8) % 3
    settings = StepSettings(scheme="lora:4")
    predicted = probed_timeline(
        network, given, batch_size=8, settings=settings, cache=tmp_path
    ).breakdown()
    measured = measure_peak(network, given, labels, settings=settings, timed_steps=1)
    # PyTorch keeps the scale of each of eight adapters for the backward pass, as 8 bytes.
    assert 0 <= measured.peak_bytes - predicted.peak_bytes <= 8 * 8


def test_a_lower_rank_holds_less() -> None:
    whole, groups = parts()
    full = [group.channels for group in groups]
    peaks = [
        int(
            MemoryModel.compile(whole, images(1), scheme=scheme, groups=groups).peaks(
                full, batch_size=8
            )
        )
        for scheme in ("lora:2", "lora:8", "full")
    ]
    assert peaks == sorted(peaks)


def test_alpha_scales_what_is_added_and_targets_choose_layers() -> None:
    network, given = network_of(pruned=False), images(2)
    apply_scheme(network, given, "lora:4,alpha=16,targets=fc1,blocks.0.attn.qkv")
    held = {name.partition(".lora_")[0] for name in adapters_of(network)}
    assert held == {"blocks.0.attn.qkv", "blocks.0.mlp.fc1", "blocks.1.mlp.fc1"}
    assert network.blocks[0].mlp.fc1.scaling == {"default": 4.0}


def test_adapters_join_other_schemes() -> None:
    network = network_of(pruned=False)
    apply_scheme(network, images(2), "lora:2+norm+from:blocks.1.mlp")
    trained = {name for name, one in network.named_parameters() if one.requires_grad}
    assert {"norm.weight", "blocks.1.mlp.fc2.base_layer.weight"} <= trained
    assert set(adapters_of(network)) <= trained
    assert "blocks.0.mlp.fc1.base_layer.weight" not in trained


def test_adapters_begin_alike_and_leave_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, other = network_of(pruned=False), network_of(pruned=False)
    attach_adapters(one, images(2), "4")
    assert torch.equal(torch.rand(1), expected)
    attach_adapters(other, images(2), "4")
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_the_same_adapters_are_added_once_and_others_are_refused() -> None:
    network = network_of(pruned=False)
    apply_scheme(network, images(2), "lora:4")
    names = list(network.state_dict())
    apply_scheme(network, images(2), "lora:4")
    assert list(network.state_dict()) == names
    with pytest.raises(NetworkError, match="has adapters of 'lora:4' already"):
        apply_scheme(network, images(2), "lora:8")


def test_a_network_with_adapters_of_its_own_is_refused() -> None:
    network = network_of(pruned=False)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["qkv"]), network)
    with pytest.raises(NetworkError, match="has adapters of its own"):
        apply_scheme(network, images(2), "lora:4")


def test_what_a_factory_froze_stays_frozen_and_nothing_else_does() -> None:
    network = network_of(pruned=False)
    network.blocks[0].mlp.fc1.weight.requires_grad_(requires_grad=False)
    prepare_scheme(network, images(2), "lora:4")
    assert fixed_parameters(network) == {"blocks.0.mlp.fc1.base_layer.weight"}
    apply_scheme(network, images(2), "full")
    frozen = {name for name, one in network.named_parameters() if not one.requires_grad}
    assert frozen == {"blocks.0.mlp.fc1.base_layer.weight"}


class Encoder(nn.Module):
    """PyTorch's own encoder layers, which read their layers' weights in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, sequences: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(sequences)
        result: Tensor = self.head(encoded.mean(1))
        return result


def test_adapters_of_pytorchs_encoder_work_in_evaluation_mode_too() -> None:
    network, sequences = Encoder(), torch.randn(2, 5, 8)
    apply_scheme(network, sequences, "lora:2")
    layers = {name.partition(".lora_")[0] for name in adapters_of(network)}
    assert layers == {f"encoder.layers.{at}.linear{n}" for at in (0, 1) for n in (1, 2)}
    network.eval()
    with torch.no_grad():
        before = network(sequences)
        for name in adapters_of(network):
            nn.init.normal_(network.get_parameter(name))
        assert not torch.allclose(network(sequences), before)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("lora:4,targets=head", "head is the output layer"),
        ("lora:4,targets=norm1", "blocks.0.norm1 is a LayerNorm: adapters stand beside linear"),
        ("lora:4,targets=query", "has no module 'query'; its linear layers are blocks.0.attn.qkv"),
    ],
)
def test_targets_that_cant_have_adapters_are_refused(scheme: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        apply_scheme(network_of(pruned=False), images(2), scheme)


def test_a_network_without_linear_layers_is_refused_in_one_line() -> None:
    network = torchvision.models.resnet18(num_classes=3)
    with pytest.raises(NetworkError) as caught:
        apply_scheme(network, torch.randn(2, 3, 32, 32), "lora")
    assert str(caught.value) == (
        "scheme 'lora:8': ResNet has no linear layer for an adapter (fc is the output layer, which "
        "trains as a whole): use another scheme, such as 'bias'"
    )


def test_shared_layers_have_no_adapter() -> None:
    one = nn.Linear(4, 4)
    network = nn.Sequential(one, nn.ReLU(), one, nn.Linear(4, 4), nn.Linear(4, 2))
    network[3].weight = network[0].weight
    with pytest.raises(NetworkError, match="0 stands in several places of the network, and 2 more"):
        apply_scheme(network, torch.randn(2, 4), "lora:2")


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("lora:0", "has the rank '0': give a whole number from 1 to 4096"),
        ("lora:8,alpha=-1", "has the alpha '-1': give a number above 0"),
        ("lora:8,beta=2", "has 'beta=2' where alpha=NUMBER or targets=NAME,NAME may stand"),
        ("lora:8,targets=", "has the target ''"),
        ("lora:8,targets=fc1,fc1", "has a target twice"),
        ("lora:4+lora:8", 'joins "lora" twice'),
    ],
)
def test_wrong_texts_are_refused(scheme: str, message: str) -> None:
    for act in (
        lambda: StepSettings(scheme=scheme),
        lambda: apply_scheme(network_of(pruned=False), images(2), scheme),
    ):
        with pytest.raises(ConfigError) as caught:
            act()
        assert message in str(caught.value)


def test_equal_settings_have_one_text() -> None:
    for text in ("lora", "lora:8", "lora:08,alpha=8.0", "lora:8,alpha=8e0"):
        assert StepSettings(scheme=text).scheme == "lora:8"
    texts = ("lora:2,targets=b,a+bias", "lora:2,targets=a,b+bias")
    assert {StepSettings(scheme=text).scheme for text in texts} == {texts[1]}


def test_without_peft_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(NetworkError) as caught:
        apply_scheme(network_of(pruned=False), images(2), "lora")
    assert str(caught.value).startswith("scheme 'lora:8' needs the package peft (")
    assert str(caught.value).endswith("): pip install 'dse[lora]'")
