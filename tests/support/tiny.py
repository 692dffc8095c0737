"""The smallest real study: a hand-written network on three digits, a few seconds in all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

NETWORK = """
from torch import nn


class Tiny(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        print("building a tiny network")  # a user's factory may print
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(128, num_classes)

    def forward(self, images):
        return self.head(self.pool(self.body(self.stem(images))).flatten(1))
"""

STUDY = """
name = "tiny"

[network]
name = "tiny_network:Tiny"

[data]
name = "digits"
labels = [0, 1, 2]
image_size = 12

[space]
ratio = [0.0, 0.8]
joint = false

[training]
batch_size = 16
learning_rate = 0.1

[proxy]
calibrate_batches = 2
short_epochs = 1.0
full_epochs = 4.0
full_seeds = 2

[baselines]
methods = ["uniform"]

[reference]
tune = false

[search]
sampler = "random"
trials = 3
budgets = ["400 KiB", "1 MiB"]
uniform_baselines = [0.5]
finalists = 2
"""


@dataclass(frozen=True)
class TinyRun:
    """A real, finished run, not to be changed: its study file, run folder and `--json` answer."""

    study: Path
    folder: Path
    answer: dict[str, Any]


def write_tiny_study(folder: Path) -> Path:
    """Write the network and its study into a folder, and return the study's path."""
    (folder / "tiny_network.py").write_text(NETWORK, encoding="utf-8")
    study = folder / "tiny.toml"
    study.write_text(STUDY, encoding="utf-8")
    return study
