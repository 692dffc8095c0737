"""Small studies of every task, on images that are drawn here."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16
NETWORKS = '''
import torch
from torch import nn
from torch.nn import functional


def block(inputs, outputs, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Vectors(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(block(3, 16), block(16, 16, 2), block(16, 32, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(32, num_classes)

    def forward(self, images):
        return self.head(torch.flatten(self.pool(self.body(images)), 1))


class Maps(nn.Module):
    """Maps of the images' size, from two depths."""

    def __init__(self, num_classes):
        super().__init__()
        self.stem, self.down = block(3, 16), block(16, 32, 2)
        self.join = block(48, 16)
        self.head = nn.Conv2d(16, num_classes, 1)

    def forward(self, images):
        fine = self.stem(images)
        coarse = self.down(fine)
        wide = functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        return self.head(self.join(torch.cat([fine, wide], 1)))


def dice(smooth=1.0):
    def loss(logits, targets):
        shares = logits.softmax(1)
        own = functional.one_hot(targets.clamp(max=logits.shape[1] - 1), logits.shape[1])
        own = own.movedim(-1, 1).to(shares.dtype)
        both, every = (shares * own).sum((0, 2, 3)), (shares + own).sum((0, 2, 3))
        return 1 - ((2 * both + smooth) / (every + smooth)).mean()

    return loss


def wrong_pixels():
    def metric(logits, targets):
        return float(100 * (logits.argmax(1) != targets).float().mean())

    return metric
'''


def write_data(folder: Path, kind: str, *, count: int = 48) -> None:
    """Draw images with a square; the targets follow from its place, side and colour."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        colour, side = number % 2, 5 + 3 * (number // 2 % 2)
        top, left = rng.integers(0, SIDE - side, 2)
        image = rng.integers(0, 60, (SIDE, SIDE, 3))
        image[top : top + side, left : left + side, colour] += 180
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        mask[top : top + side, left : left + side] = 1 + colour
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{number:02d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:02d}.png")
        values = (
            f"{colour},{int(side > 5)},{int(left > SIDE // 3)}"
            if kind == "multi-label"
            else f"{10 + side + colour},{100.0 * colour:.1f}"
        )
        rows.append(f"{number:02d}.png,{values}")
    header = "file,green,large,right" if kind == "multi-label" else "file,size,shade"
    (folder / "table.csv").write_text("\n".join([header, *rows]), "utf-8")


def write_study(folder: Path, kind: str, *, task: str = "", more: str = "") -> Path:
    """Write the network's code, the data and a study of a task.

    Args:
        folder: where everything is written.
        kind: the task.
        task: further lines of `[task]`.
        more: further tables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task_nets.py").write_text(NETWORKS, "utf-8")
    write_data(folder, kind)
    maps = kind == "segmentation"
    data = '''root = "."''' if maps else '''root = "images"\ntable = "table.csv"'''
    path = folder / "study.toml"
    path.write_text(
        f"""
name = "{kind}"
[network]
name = "task_nets:{"Maps" if maps else "Vectors"}"
weights = "none"
[task]
kind = "{kind}"
{task}
[data]
name = "folder"
{data}
image_size = {SIDE}
augment = "flip"
[space]
multiple = 4
floor = 4
[training]
batch_size = 8
learning_rate = 0.01
threads = 1
[proxy]
short_epochs = 2.0
full_epochs = 6.0
full_seeds = 2
[baselines]
methods = ["uniform", "last"]
[reference]
tune = false
[search]
trials = 3
finalists = 1
budgets = ["50 %", "90 %"]
uniform_baselines = [0.5]
{more}
""",
        "utf-8",
    )
    return path
