"""Small networks in which some channels can't be followed, beside others that can be pruned."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from support.couplings import Pooled, conv


class Attention(nn.Module):
    """Self-attention with fused queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.relative_position_bias = nn.Parameter(torch.randn(heads, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, self.head_width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) + self.relative_position_bias).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, tokens, width))


class AttentionBesideConvolutions(nn.Module):
    """A stem, one transformer block on 4x4 tokens, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.patches = conv(3, 10), nn.Conv2d(10, 8, 2, 2)
        self.norm, self.attention = nn.LayerNorm(8), Attention(8, 4)
        self.second, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(self.stem(x).relu()).flatten(2).transpose(1, 2)
        x = x + self.attention(self.norm(x))
        x = x + self.narrow(functional.gelu(self.wide(self.second(x))))
        return self.head(x.mean(1))


class BuiltInAttention(AttentionBesideConvolutions):
    """The same with PyTorch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(self.stem(x).relu()).flatten(2).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.narrow(functional.gelu(self.wide(self.second(x))))
        return self.head(x.mean(1))


class _Reversed(torch.autograd.Function):
    """An operation that no tool knows: it reverses the channels."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.flip(1)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.flip(1)


class OwnOperation(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.second, self.third, self.last = (
            conv(3, 10), conv(10, 8), conv(8, 12), conv(12, 6),
        )  # fmt: skip

    def features(self, x: Tensor) -> Tensor:
        x = _Reversed.apply(self.second(self.first(x).relu()).relu())
        return self.last(self.third(x).relu())


class RaisingOperation(Pooled):
    """Its code checks the width of one layer."""

    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.second, self.last = conv(3, 10), conv(10, 8), conv(8, 6)

    def features(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu())
        if x.shape[1] != 8:
            raise KeyError("only eight will do")
        return self.last(x)


class PixelShuffled(Pooled):
    def __init__(self, num_classes: int = 4) -> None:
        super().__init__(6)
        self.head = nn.Linear(6, num_classes)
        self.first, self.wide, self.narrow, self.last = (
            conv(3, 10), conv(10, 16), conv(4, 12), conv(12, 6),
        )  # fmt: skip

    def features(self, x: Tensor) -> Tensor:
        x = functional.pixel_shuffle(self.wide(self.first(x).relu()), 2)
        return self.last(self.narrow(x).relu())


class StrongestPixel(Pooled):
    """Takes the largest value of each channel, by ``topk``."""

    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.second, self.last = conv(3, 10), conv(10, 8), conv(8, 6)

    def features(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu())
        strongest, _ = x.flatten(2).topk(1)
        return self.last(x + strongest.unsqueeze(3))


class SideOfWidth(StrongestPixel):
    """The image's side, which its code checks, equals the number of a layer's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = _Rows(8)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.rows(self.second(self.first(x).relu())))


class _Rows(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.side:
            raise ValueError("images of another size")
        rows = x.flatten(2).transpose(1, 2).reshape(len(x), 64, x.shape[1])
        return rows.transpose(1, 2).unflatten(2, (8, 8))


class ScaledByNorm(StrongestPixel):
    """Divides by numbers that all values of a layer give together."""

    def features(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu())
        return self.last(x) / (1 + x.norm(p=1) + x.sum() + x.abs().max())


class ShuffleBlock(Pooled):
    """Halves are split, one is convolved, and both are shuffled together, as in ShuffleNet."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.first, self.inner, self.last = (
            conv(3, 8), conv(4, 10), conv(10, 4), conv(8, 8),
        )  # fmt: skip

    def features(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, 1)
        x = torch.cat([left, self.inner(self.first(right).relu())], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.last(x)


class Recurrent(nn.Module):
    """Rows of features are read by an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 10), conv(10, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.hidden, self.head = nn.Linear(5, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).mean(3).transpose(1, 2)
        x, _ = self.lstm(x)
        return self.head(self.hidden(x[:, -1]).relu())


class ScaledByWidth(Pooled):
    """Divides the channels of ``second`` by the root of their number."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__(6)
        self.head = nn.Linear(6, num_classes)
        self.first, self.second, self.last = conv(3, 10), conv(10, 8), conv(8, 6)

    def features(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu())
        return self.last(x * x.shape[1] ** -0.5)


class SlicedAndSummed(Pooled):
    """Both halves of ``wide`` are added to the whole of ``narrow``."""

    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.wide, self.narrow, self.last = (
            conv(3, 10), conv(10, 16), conv(10, 8), conv(8, 6),
        )  # fmt: skip

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        left, right = self.wide(x).split(8, 1)
        return self.last(self.narrow(x) + left * right.sigmoid())


class DepthwiseMultiplier(Pooled):
    """Each channel of ``narrow`` gives two of ``doubled``."""

    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.narrow, self.last = conv(3, 10), conv(10, 4), conv(8, 6)
        self.doubled = conv(4, 8, groups=4)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.doubled(self.narrow(self.first(x).relu())).relu())


class Standardised(nn.Conv2d):
    """Standardises its weights over all input channels, so that none can go alone."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return functional.conv2d(x, w, self.bias, padding=1)


def standardised_and_deep() -> nn.Sequential:
    """Signals grow a hundredfold in each layer, beyond single precision."""
    layers: list[nn.Module] = [conv(3, 8)]
    for _ in range(20):
        layers += [Standardised(8, 8, 3), nn.GroupNorm(2, 8), nn.ReLU()]
    layers += [conv(8, 6), conv(6, 6)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
