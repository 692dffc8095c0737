"""Heads of attention are groups, whatever the layout of queries, keys and values."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.memory.model import MemoryModel
from dse.pruning.groups import ChannelGroup, Member, find_groups, survey_channels
from dse.pruning.importance import group_importance
from dse.pruning.resize import resized
from dse.pruning.surgery import keep_indices, prune
from dse.step.settings import StepSettings
from support.masking import masked
from support.traces import fresh_peak

IMAGE = torch.zeros(2, 3, 8, 8)
HEADS, WIDTH, TOKENS = 3, 4, 16


class Fused(nn.Module):
    """One layer computes the queries, keys and values of all heads."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.inner = HEADS, WIDTH, HEADS * WIDTH
        self.qkv = nn.Linear(features, 3 * self.inner)
        self.proj = nn.Linear(self.inner, features)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, self.inner))


class Separate(nn.Module):
    """A layer each for queries, keys and values, and a learned bias of positions for each head."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.heads = HEADS
        self.q, self.k, self.v = (nn.Linear(features, HEADS * WIDTH) for _ in range(3))
        self.table = nn.Parameter(torch.randn(TOKENS, HEADS))
        self.proj = nn.Linear(HEADS * WIDTH, features)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        places = torch.arange(x.shape[1], device=x.device)
        near = (places[:, None] - places[None, :]).abs()
        bias = self.table[near.view(-1)].view(len(places), len(places), -1).permute(2, 0, 1)
        weights = (q @ k.transpose(-2, -1) * WIDTH**-0.5 + bias).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Grouped(nn.Module):
    """Each head of the keys and values serves two heads of the queries."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.key_heads, self.repeats = HEADS, 2
        self.q = nn.Linear(features, 2 * HEADS * WIDTH)
        self.k, self.v = nn.Linear(features, HEADS * WIDTH), nn.Linear(features, HEADS * WIDTH)
        self.proj = nn.Linear(2 * HEADS * WIDTH, features)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q = self.q(x).view(n, tokens, -1, WIDTH).transpose(1, 2)
        k, v = (
            layer(x)
            .view(n, tokens, self.key_heads, WIDTH)
            .transpose(1, 2)[:, :, None]
            .expand(n, self.key_heads, self.repeats, tokens, WIDTH)
            .reshape(n, -1, tokens, WIDTH)
            for layer in (self.k, self.v)
        )
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, -1))


class Windowed(Fused):
    """Attention within each of four windows of tokens."""

    def forward(self, x: Tensor) -> Tensor:
        n, _, features = x.shape
        windows = x.view(n, 2, 2, 2, 2, features).permute(0, 1, 3, 2, 4, 5)
        mixed = super().forward(windows.reshape(-1, 4, features))
        back = mixed.view(n, 2, 2, 2, 2, features).permute(0, 1, 3, 2, 4, 5)
        return back.reshape(n, TOKENS, features)


class WidthByHeads(Fused):
    """The code divides the width of its input by the number of heads."""

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, features = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.num_heads, features // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, features))


class FixedHeads(Fused):
    """The number of heads is written into the code, and their width isn't."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        v = v.unflatten(-1, (3, -1)).transpose(1, 2)
        weights = (q @ k.transpose(-2, -1)).softmax(-1)[:, None]
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """A patch embedding with a learned token and positions, one block, and a classifier."""

    def __init__(
        self, attention: Callable[[int], nn.Module], features: int = HEADS * WIDTH
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, features, 2, 2)
        self.positions = nn.Parameter(torch.randn(1, TOKENS, features))
        self.first, self.second = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attention = attention(features)
        self.scale = nn.Parameter(torch.full((features,), 0.5))
        self.wide, self.narrow = nn.Linear(features, 10), nn.Linear(10, features)
        self.head = nn.Linear(features, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        x = x + self.scale * self.attention(self.first(x))
        x = x + self.narrow(functional.gelu(self.wide(self.second(x))))
        return self.head(x.mean(1))


# The groups beside the width of the MLP: their channels, by name.
KINDS: dict[type[nn.Module], dict[str, int]] = {
    Fused: {"patches": 12, "attention.qkv": HEADS},
    Separate: {"patches": 12, "attention.q": HEADS},
    Grouped: {"patches": 12, "attention.q": HEADS},
    Windowed: {"patches": 12, "attention.qkv": HEADS},
    WidthByHeads: {"patches": HEADS},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_heads_hidden_width_and_embedding_are_groups(kind: type[nn.Module]) -> None:
    survey = survey_channels(Transformer(kind), IMAGE)
    assert {group.name: group.channels for group in survey.groups} == {**KINDS[kind], "wide": 10}
    assert not survey.refused


def test_a_head_is_a_channel_with_a_span_in_queries_keys_and_values() -> None:
    groups = {group.name: group for group in find_groups(Transformer(Fused), IMAGE)}
    assert groups["attention.qkv"] == ChannelGroup(
        "attention.qkv",
        HEADS,
        1,
        (
            Member("attention.qkv", "out", 0, WIDTH),
            Member("attention.qkv", "out", 12, WIDTH),
            Member("attention.qkv", "out", 24, WIDTH),
            Member("attention", "num_heads"),
            Member("attention", "inner", span=WIDTH),
            Member("attention.proj", "in", span=WIDTH),
        ),
        fewest=2,
    )


def test_the_number_of_heads_is_written() -> None:
    network = Transformer(Fused)
    groups = find_groups(network, IMAGE)
    counts = [2 if group.name == "attention.qkv" else group.channels for group in groups]
    for smaller in (prune(network, groups=groups, kept=counts), resized(network, groups, counts)):
        attention = smaller.attention
        assert (attention.num_heads, attention.head_dim, attention.inner) == (2, WIDTH, 2 * WIDTH)
        assert attention.qkv.out_features == 3 * 2 * WIDTH
    assert network.attention.num_heads == HEADS


@pytest.mark.parametrize("kind", [*KINDS, FixedHeads], ids=lambda kind: kind.__name__)
def test_pruned_outputs_equal_masking_and_memory_a_fresh_trace(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = Transformer(kind)
    groups = find_groups(network, IMAGE)
    counts = [max(group.fewest, group.channels // 2) for group in groups]
    model = MemoryModel.compile(network, IMAGE, groups=groups, settings=StepSettings())
    small = prune(network, groups=groups, kept=counts)
    assert model.peaks(counts, batch_size=2) == fresh_peak(small, IMAGE.shape, step=StepSettings())
    whole, images = network.double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    scores = group_importance(whole, groups)
    pruned = prune(whole, groups=groups, kept=counts, importance=scores)
    kept = {
        group.name: keep_indices(group, count, scores=scores[group.name]).tolist()
        for group, count in zip(groups, counts, strict=True)
    }
    torch.testing.assert_close(pruned(images), masked(whole, pruned, groups, kept)(images))


@pytest.mark.parametrize("channels", [2, 8])
def test_one_of_the_channels_that_a_linear_layer_reads_flattened_can_stay(channels: int) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 64, 4)
    )
    (group,) = groups = find_groups(network, IMAGE)
    assert (group.channels, group.fewest) == (channels, 1)
    model = MemoryModel.compile(network, IMAGE, groups=groups, settings=StepSettings())
    small = prune(network, groups=groups, kept=[1])
    assert model.peaks([1], batch_size=2) == fresh_peak(small, IMAGE.shape, step=StepSettings())


def test_the_most_important_head_stays() -> None:
    torch.manual_seed(0)
    network = Transformer(Fused)
    with torch.no_grad():
        for start in (0, 12, 24):
            network.attention.qkv.weight[start + WIDTH : start + 2 * WIDTH] *= 10
    (group,) = [each for each in find_groups(network, IMAGE) if each.name == "attention.qkv"]
    assert np.argmax(group_importance(network, [group])[group.name]) == 1


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_heads_are_scored_by_data(criterion: str) -> None:
    torch.manual_seed(0)
    network = Transformer(Windowed)
    groups = find_groups(network, IMAGE)
    batches = [(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]))]
    scores = group_importance(network, groups, criterion=criterion, batches=batches)
    for group in groups:
        assert scores[group.name].shape == (group.channels,)
        assert (scores[group.name] > 0).all()


def test_fisher_on_tokens_is_the_derivative_of_removing_a_head() -> None:
    torch.manual_seed(0)
    network = Transformer(Fused)
    (group,) = [each for each in find_groups(network, IMAGE) if each.name == "attention.qkv"]
    network.double().eval()
    image, label = torch.randn(1, 3, 8, 8, dtype=torch.float64), torch.tensor([1])
    scores = group_importance(network, [group], criterion="fisher", batches=[(image, label)])
    step = 1e-5
    for head in range(HEADS):
        losses = []
        for sign in (1, -1):
            changed = Transformer(Fused).double().eval()
            changed.load_state_dict(network.state_dict())
            with torch.no_grad():
                own = slice(head * WIDTH, (head + 1) * WIDTH)
                changed.attention.proj.weight[:, own] *= 1 + sign * step
                losses.append(functional.cross_entropy(changed(image), label))
        slope = float(losses[0] - losses[1]) / (2 * step)
        assert scores[group.name][head] == pytest.approx(slope**2, rel=1e-3)
