"""ProxylessNAS-Mobile, which TinyTL's table 2 is about and torchvision lacks.

Widths, kernels, expansions and strides are those of Cai et al., "ProxylessNAS: Direct Neural
Architecture Search on Target Task and Hardware" (ICLR 2019), as osmr/imgclsmob has them; so is
the number of its parameters.
"""

import torch
from torch import nn

# Of each stage: stride, output channels, expansion and depthwise kernel of each block.
STAGES = (
    (1, 16, ((1, 3),)),
    (2, 32, ((3, 5), (3, 3))),
    (2, 40, ((3, 7), (3, 3), (3, 5), (3, 5))),
    (2, 80, ((6, 7), (3, 5), (3, 5), (3, 5))),
    (1, 96, ((6, 5), (3, 5), (3, 5), (3, 5))),
    (2, 192, ((6, 7), (6, 7), (3, 7), (3, 7))),
    (1, 320, ((6, 7),)),
)


class Inverted(nn.Module):
    """A bottleneck the other way round, added to its input where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, *, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expand
        layers = [] if expand == 1 else [*_convolution(inputs, wide), nn.ReLU6(inplace=True)]
        layers += _convolution(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.conv = nn.Sequential(*layers, nn.ReLU6(inplace=True), *_convolution(wide, outputs))
        self.residual = inputs == outputs and stride == 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.conv(images) if self.residual else self.conv(images)


class ProxylessMobile(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        width = 32
        first = nn.Sequential(*_convolution(3, width, kernel=3, stride=2), nn.ReLU6(inplace=True))
        blocks: list[nn.Module] = [first]
        for stride, outputs, members in STAGES:
            for number, (expand, kernel) in enumerate(members):
                own = stride if number == 0 else 1
                blocks.append(Inverted(width, outputs, expand=expand, kernel=kernel, stride=own))
                width = outputs
        last = nn.Sequential(*_convolution(width, 1280), nn.ReLU6(inplace=True))
        self.features = nn.Sequential(*blocks, last)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).mean(dim=(2, 3)))


def _convolution(
    inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(outputs)]
