"""Regions of every kind against stock PyTorch."""

import copy
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dse.engines.lean import lean
from dse.engines.plan import Level
from support.lean import assert_same, at_level, lean_copy, levels_of

SLOW = pytest.mark.slow
ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hardswish": lambda: nn.Hardswish(inplace=True),
    "hardsigmoid": nn.Hardsigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu-tanh": lambda: nn.GELU(approximate="tanh"),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "leaky": lambda: nn.LeakyReLU(0.2),
    "mish": nn.Mish,
    "none": nn.Identity,
}
TOLERANCE = {"stock": 0.0, "lean": 0.0, "recomputed": 0.0, "chunked": 1e-12}


@dataclass(frozen=True)
class Shape:
    """Of an inverted residual block."""

    channels: int
    expansion: int
    out: int
    kernel: int
    stride: int
    dilation: int
    act: str
    gate: str | None
    groups: int | None
    bias: bool


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int, act: str) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, 2, 1)
        self.act = nn.ReLU()
        self.excite = nn.Conv2d(2, channels, 1)
        self.scale = ACTIVATIONS[act]()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale(self.excite(self.act(self.squeeze(self.pool(images))))) * images


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        wide = shape.channels * shape.expansion
        act, pad = ACTIVATIONS[shape.act], shape.dilation * (shape.kernel // 2)
        self.residual = shape.stride == 1 and shape.out == shape.channels
        self.body = nn.Sequential(
            nn.Conv2d(shape.channels, wide, 1, bias=shape.bias),
            nn.BatchNorm2d(wide),
            act(),
            nn.Conv2d(
                wide,
                wide,
                shape.kernel,
                stride=shape.stride,
                padding=pad,
                dilation=shape.dilation,
                groups=shape.groups or wide,
                bias=shape.bias,
            ),
            nn.BatchNorm2d(wide),
            act(),
            Gate(wide, shape.gate) if shape.gate else nn.Identity(),
            nn.Conv2d(wide, shape.out, 1, bias=shape.bias),
            nn.BatchNorm2d(shape.out),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.body(images) if self.residual else self.body(images)


def network_of(shape: Shape) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, shape.channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(shape.channels),
        nn.ReLU6(inplace=True),
        Block(shape),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(shape.out, 3),
    ).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


shapes = st.builds(
    Shape,
    channels=st.sampled_from([2, 4]),
    expansion=st.sampled_from([1, 2, 3]),
    out=st.sampled_from([2, 4]),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    act=st.sampled_from(sorted(ACTIVATIONS)),
    gate=st.sampled_from([None, "sigmoid", "hardsigmoid"]),
    groups=st.sampled_from([None, 1, 2]),
    bias=st.booleans(),
)


@settings(max_examples=40)
@given(
    shape=shapes,
    level=st.sampled_from(["stock", "lean", "recomputed", "chunked"]),
    chunks=st.integers(1, 7),
    rerun=st.integers(0, 3),
    batch=st.integers(1, 3),
    side=st.sampled_from([7, 8, 12]),
    data=st.data(),
)
def test_a_block_has_the_gradients_of_stock_pytorch(
    shape: Shape,
    level: Level,
    chunks: int,
    rerun: int,
    batch: int,
    side: int,
    data: st.DataObject,
) -> None:
    network = network_of(shape)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(data.draw(st.booleans(), label=name))
    network[6].weight.requires_grad_()
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(data.draw(st.booleans(), label=f"{name} trains"))
    images = torch.randn(batch, 3, side, side, dtype=torch.double)
    lean_network = at_level(lean(copy.deepcopy(network), images), level, chunks, rerun)
    assert_same(network, lean_network, images, tolerance=TOLERANCE[level])


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(act, marks=() if act in ("none", "relu6", "silu", "hardswish") else SLOW)
        for act in sorted(ACTIVATIONS)
    ],
)
def test_slices_have_the_bits_of_the_whole_also_where_vectors_of_values_end(act: str) -> None:
    shape = Shape(2, 3, 4, 5, 2, 1, act, None, None, bias=True)
    network = network_of(shape)
    for seed in range(8):
        images = torch.randn(
            1, 3, 7, 7, dtype=torch.double, generator=torch.Generator().manual_seed(seed)
        )
        sliced = at_level(lean(copy.deepcopy(network), images), "lean", 2, 1)
        assert_same(network, sliced, images)


def test_the_wide_tensors_of_a_block_are_chunked() -> None:
    shape = Shape(4, 3, 4, 3, 1, 1, "relu6", None, None, bias=False)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.double)
    assert "chunked" in levels_of(lean_copy(network_of(shape), images, "chunked", 2))


@pytest.mark.parametrize("level", ["lean", "recomputed", "chunked"])
@pytest.mark.parametrize("pool", [(3, 2, 1, 1), (2, 2, 0, 1), (3, 1, 1, 2), (5, 3, 2, 1)])
def test_a_stem_with_max_pooling(level: Level, pool: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    kernel, stride, padding, dilation = pool
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=stride == 3),
        nn.Conv2d(6, 4, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()
    images = torch.randn(2, 3, 11, 13, dtype=torch.double)
    assert_same(network, lean_copy(network, images, level, 3), images, tolerance=TOLERANCE[level])


class Mlp(nn.Module):
    """A transformer's block without attention, or one of ConvNeXt's, which permutes."""

    def __init__(self, width: int, hidden: int, *, permutes: bool, dropout: float) -> None:
        super().__init__()
        self.permutes = permutes
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.drop = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        inner = values.permute(0, 2, 3, 1) if self.permutes else values
        inner = self.second(self.drop(self.act(self.first(self.norm(inner))))) * self.scale
        return values + (inner.permute(0, 3, 1, 2) if self.permutes else inner)


class Tokens(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("permutes", [False, True])
@pytest.mark.parametrize(("level", "chunks"), [("lean", 1), ("recomputed", 1), ("chunked", 5)])
def test_an_mlp(level: Level, chunks: int, *, permutes: bool, dropout: float) -> None:
    torch.manual_seed(0)
    inner: nn.Module = Mlp(6, 17, permutes=permutes, dropout=dropout)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if permutes else [nn.Flatten()]
    middle = [inner] if permutes else [Tokens(), inner]
    size = 6 if permutes else 6 * 16
    network = nn.Sequential(nn.Conv2d(3, 6, 2, 2), *middle, *head, nn.Linear(size, 3)).double()
    images = torch.randn(3, 3, 8, 8, dtype=torch.double)
    found = lean_copy(network, images, level, chunks)
    assert level in levels_of(found) or (level == "chunked" and dropout)
    # Dropout draws the hidden width at once, so that it isn't computed in chunks.
    assert ("chunked" in levels_of(found)) == (level == "chunked" and not dropout)
    assert_same(network, found, images, tolerance=TOLERANCE[level])


@pytest.mark.parametrize("level", ["lean", "recomputed", "chunked"])
def test_gradients_are_those_of_finite_differences(level: Level) -> None:
    network = network_of(Shape(2, 2, 2, 3, 1, 1, "gelu", "sigmoid", None, bias=True))
    images = torch.randn(2, 3, 6, 6, dtype=torch.double)
    found = lean_copy(network, images, level, 2).train()
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    parameters = list(found.parameters())

    def output(*tensors: torch.Tensor) -> torch.Tensor:
        for parameter, tensor in zip(parameters, tensors, strict=True):
            parameter.data = tensor.data
        return found(images)

    assert torch.autograd.gradcheck(
        output, tuple(parameters), check_batched_grad=False, nondet_tol=0
    )


def test_channels_last_stays_channels_last() -> None:
    network = network_of(Shape(4, 2, 4, 3, 1, 1, "relu6", "sigmoid", None, bias=False))
    network = network.to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 12, 12, dtype=torch.double)
    images = images.contiguous(memory_format=torch.channels_last)
    assert_same(network, lean_copy(network, images), images)
    assert_same(network, lean_copy(network, images, "chunked", 2), images, tolerance=1e-12)


@pytest.mark.parametrize("scheme_freezes", [False, True])
@pytest.mark.parametrize("level", ["lean", "recomputed"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_slices_of_channels_have_the_bits_of_stock_pytorch(
    level: Level, layout: torch.memory_format, *, scheme_freezes: bool
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 48, 1, bias=False),
        nn.BatchNorm2d(48),
        nn.ReLU6(inplace=True),
        nn.Conv2d(48, 48, 3, stride=2, padding=1, groups=48, bias=False),
        nn.BatchNorm2d(48),
        nn.Hardswish(inplace=True),
        nn.Conv2d(48, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).to(memory_format=layout)
    for parameter in network[3:7].parameters():
        parameter.requires_grad_(not scheme_freezes)
    images = torch.randn(4, 3, 24, 24).contiguous(memory_format=layout)
    found = lean_copy(network, images, level, 3, rerun=1)
    assert_same(network, found, images, steps=2)


def test_a_graph_can_be_kept_where_slices_overwrite_what_is_held() -> None:
    network = network_of(Shape(4, 3, 4, 3, 1, 1, "relu6", None, None, bias=False)).train()
    images = torch.randn(2, 3, 12, 12, dtype=torch.double)
    other = copy.deepcopy(network)
    other(images).square().sum().backward()
    found = lean_copy(network, images, "lean", 2)
    loss = found(images).square().sum()
    loss.backward(retain_graph=True)
    loss.backward()
    for one, twice in zip(other.parameters(), found.parameters(), strict=True):
        assert torch.equal(2 * one.grad, twice.grad)
