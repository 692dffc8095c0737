"""Hand-written networks, each with one way of passing channels on that is easy to get wrong."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(inputs: int, outputs: int, kernel: int = 3, *, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)


class Pooled(nn.Module):
    """Features, averaged over space and classified."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 4)

    def features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class SumWithConcat(Pooled):
    """A sum with a concatenation ties parts of ``wide`` to ``left`` and ``right``."""

    def __init__(self) -> None:
        super().__init__(6)
        self.left, self.right, self.wide = conv(3, 8), conv(3, 4), conv(3, 12)
        self.last = conv(12, 6)

    def features(self, x: Tensor) -> Tensor:
        return self.last((torch.cat([self.left(x), self.right(x)], 1) + self.wide(x)).relu())


class ConcatWithInput(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.second = conv(3, 8), conv(11, 6)

    def features(self, x: Tensor) -> Tensor:
        return self.second(torch.cat([x, self.first(x)], 1))


class ConcatTwice(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.second = conv(3, 4), conv(8, 6)

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(torch.cat([x, x], 1))


class SumWithInput(Pooled):
    """``tied`` has the input's channels; the depthwise convolution follows ``free``."""

    def __init__(self) -> None:
        super().__init__(8)
        self.tied, self.free, self.depthwise = conv(3, 3), conv(3, 8), conv(8, 8, groups=8)

    def features(self, x: Tensor) -> Tensor:
        return self.depthwise(self.free(self.tied(x) + x))


class Grouped(Pooled):
    """Grouped convolutions fed by one layer, in a residual sum."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.norm = conv(3, 12), nn.BatchNorm2d(12)
        self.grouped, self.again = conv(12, 24, groups=3), conv(24, 12, groups=2)
        self.last = conv(12, 8)

    def features(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.last(self.again(self.grouped(x).relu()) + x)


class GroupedConcat(Pooled):
    """Each half of the grouped convolution would have to lose channels of another layer."""

    def __init__(self) -> None:
        super().__init__(6)
        self.left, self.right, self.grouped = conv(3, 4), conv(3, 8), conv(12, 6, groups=2)

    def features(self, x: Tensor) -> Tensor:
        return self.grouped(torch.cat([self.left(x), self.right(x)], 1))


class Flattened(nn.Module):
    """A residual sum, PReLU, and feature maps flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = conv(3, 8), conv(8, 8)
        self.norm, self.act = nn.BatchNorm2d(8), nn.PReLU(8)
        self.hidden, self.head = nn.Linear(8 * 8 * 8, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.act(self.norm(x + self.block(x)))
        return self.head(self.hidden(x.flatten(1)).relu())


class Scaled(Pooled):
    """Bare parameters, with the channels along different axes, and a scalar."""

    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.second = conv(3, 8), conv(8, 6)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8).view(8, 1, 1))
        self.other = nn.Parameter(torch.linspace(0.5, 1.5, 6).view(1, 6, 1, 1))
        self.scalar = nn.Parameter(torch.ones(1))

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) * self.scale) * self.other * self.scalar


class Deconvolution(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.up = conv(3, 8), nn.ConvTranspose2d(8, 6, 2, 2)
        self.last = conv(6, 6)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.up(self.first(x)).relu())


class Reused(Pooled):
    """One convolution run twice ties its input to its output."""

    def __init__(self) -> None:
        super().__init__(8)
        self.stem, self.twice = conv(3, 8), conv(8, 8)

    def features(self, x: Tensor) -> Tensor:
        return self.twice(self.twice(self.stem(x)).relu())


class Shuffled(Pooled):
    """Channels are rearranged between ``first`` and the grouped convolution."""

    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.grouped, self.last = conv(3, 12), conv(12, 12, groups=3), conv(12, 6)

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.last(self.grouped(x).relu())


class ChannelsLastFlatten(nn.Module):
    """Flattens with the channels innermost, which looks like any other flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 8), conv(8, 6)
        self.head = nn.Linear(6 * 8 * 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).permute(0, 2, 3, 1).flatten(1))


class HardCoded(nn.Module):
    """The width of ``second`` is written into the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 8), conv(8, 6)
        self.head = nn.Linear(6 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.second(self.first(x)), 2)
        return self.head(x.view(-1, 6 * 4))


class Chunked(Pooled):
    """Halving works for even counts only, and pairs the channels."""

    def __init__(self) -> None:
        super().__init__(6)
        self.both, self.last = conv(3, 12), conv(6, 6)

    def features(self, x: Tensor) -> Tensor:
        left, right = self.both(x).chunk(2, 1)
        return self.last(left * right.sigmoid())


class Sliced(Pooled):
    """Takes the first channels by number, whatever their count."""

    def __init__(self) -> None:
        super().__init__(6)
        self.both, self.last = conv(3, 12), conv(6, 6)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.both(x)[:, 2:8])


class SoftmaxOverChannels(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.second = conv(3, 8), conv(8, 6)

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).softmax(1))


class WeightNormed(Pooled):
    def __init__(self) -> None:
        super().__init__(6)
        self.first = nn.utils.parametrizations.weight_norm(conv(3, 8))
        self.second = conv(8, 6)

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class GroupNormed(Pooled):
    def __init__(self) -> None:
        super().__init__(8)
        self.first, self.second = conv(3, 16), conv(16, 8)
        self.norm, self.other = nn.GroupNorm(4, 16), nn.GroupNorm(1, 8)

    def features(self, x: Tensor) -> Tensor:
        return self.other(self.second(self.norm(self.first(x)).relu()))


def perceptron() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(10, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 30), nn.GELU(),
        nn.Linear(30, 4),
    )  # fmt: skip


def sequence() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 6, 3),
        nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip
