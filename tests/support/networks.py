"""Small networks, one for each way in which channels hang together."""

import torch
from torch import nn
from torchvision.models import EfficientNet, MobileNetV2
from torchvision.models.efficientnet import MBConvConfig


class Residual(nn.Module):
    """A stem whose channels a residual sum ties to the block's second convolution."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.first = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm = nn.BatchNorm2d(2 * width)
        self.second = nn.Conv2d(2 * width, width, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.stem(images)
        block = self.second(torch.relu(self.norm(self.first(stem))))
        return self.head(self.pool(stem + block).flatten(1))


class Concatenating(nn.Module):
    """Two branches that meet in a concatenation, flattened into a linear layer."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 6, 3, padding=1)
        self.right = nn.Conv2d(3, 10, 1)
        self.join = nn.Conv2d(16, 12, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.act = nn.ReLU6(inplace=True)
        self.hidden = nn.LazyLinear(20)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(20, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.left(images), self.right(images)], dim=1)
        features = self.act(self.norm(self.join(joined)))
        return self.head(self.drop(torch.relu(self.hidden(features.flatten(1)))))


class SqueezeExcite(nn.Module):
    """A depthwise convolution gated by squeeze and excitation, then a grouped convolution."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 16, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(16, 4, 1)
        self.excite = nn.Conv2d(4, 16, 1)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.head = nn.Linear(24, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = nn.functional.silu(self.depthwise(self.norm(self.expand(images))))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(self.pool(features)))))
        return self.head(self.pool(self.grouped(features * gate)).flatten(1))


class Blocks(nn.Module):
    """Three blocks of two convolutions each, plain containers all, the second with a stride."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.first = _block(3, 8, stride=1)
        self.second = _block(8, 12, stride=2)
        self.third = _block(12, 12, stride=1)
        self.head = nn.Linear(12, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.second(self.first(images))
        return self.head((features + self.third(features)).mean(dim=(2, 3)))


def pooled_early(num_classes: int = 3) -> nn.Module:
    """A factory whose normalisation gets one value per image and channel."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )


def _block(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, 10, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(10),
        nn.ReLU(),
        nn.Conv2d(10, outputs, 1),
        nn.BatchNorm2d(outputs),
    )


def concatenating(image_size: int = 12) -> Concatenating:
    """``Concatenating`` with its lazy layer made."""
    network = Concatenating()
    network.eval()(torch.zeros(1, 3, image_size, image_size))
    return network


def short_mobilenet(num_classes: int = 3) -> MobileNetV2:
    """MobileNetV2 with five blocks: with and without expansion, stride and residual sum."""
    settings = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]
    return MobileNetV2(num_classes=num_classes, inverted_residual_setting=settings)


def short_efficientnet(num_classes: int = 3) -> EfficientNet:
    """EfficientNet-B0 with five blocks: with and without expansion, stride and residual sum."""
    settings = [
        MBConvConfig(1, 3, 1, 32, 16, 1),
        MBConvConfig(6, 3, 2, 16, 24, 2),
        MBConvConfig(6, 5, 2, 24, 40, 2),
    ]
    return EfficientNet(settings, dropout=0.2, num_classes=num_classes)


class OnlyOutputs(nn.Module):
    """A single linear layer: all of its channels are outputs, so that none can be pruned."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 14 * 14, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, 14, 14) to (batch, num_classes)."""
        return self.head(images.flatten(1))
