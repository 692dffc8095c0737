"""Loss curves and accuracy of lean training beside stock PyTorch's, on handwritten digits.

    python benchmarks/lean_curves.py

A MobileNetV2 of four blocks learns scikit-learn's digits (1,437 training and 360 test images, at
16 x 16) from random weights in three epochs, with the same five seeds for each way to run the step.
Writes docs/lean-curves.png, and a table into lean.md.
"""

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from lean import write_section
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

import dse

HERE = Path(__file__).parent
SEEDS, EPOCHS, BATCH, RATE = 5, 3, 32, 0.05
BLOCKS = [[1, 16, 1, 1], [4, 24, 2, 2], [4, 32, 1, 1]]  # expansion, channels, blocks, stride
WAYS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "stock PyTorch": lambda network, _images: network,
    "lean": lambda network, images: dse.lean(network, images, "full"),
    "least memory (chunks)": lambda network, images: dse.lean(network, images, "full", "least"),
    "lean, 8 bits saved": lambda network, images: dse.lean(network, images, "full", saved_bits=8),
}


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images and labels, and those of the test."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    images = functional.interpolate(images, size=16, mode="bilinear").expand(-1, 3, -1, -1)
    labels = torch.tensor(found.target)
    train, test = train_test_split(
        torch.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    return images[train].contiguous(), labels[train], images[test].contiguous(), labels[test]


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        losses: Loss of every step.
        accuracy: Share of the test images that are classified correctly.
        statistics: Running means and variances after the last step, one after the other.
    """

    losses: list[float]
    accuracy: float
    statistics: Tensor


def trained(way: str, seed: int, data: tuple[Tensor, ...]) -> Run:
    """Train once."""
    images, labels, test_images, test_labels = data
    torch.manual_seed(seed)
    base = torchvision.models.MobileNetV2(10, inverted_residual_setting=BLOCKS, dropout=0.0)
    network = WAYS[way](copy.deepcopy(base).train(), images[:BATCH])
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=0.9)
    order = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(EPOCHS):
        for part in torch.randperm(len(labels), generator=order).split(BATCH)[:-1]:
            loss = functional.cross_entropy(network(images[part]), labels[part])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    network.eval()
    with torch.no_grad():
        right = (network(test_images).argmax(1) == test_labels).float().mean()
    statistics = [b.flatten() for b in network.buffers() if b.is_floating_point()]
    return Run(losses, float(right), torch.cat(statistics))


def main() -> None:
    """Train in every way with every seed, draw the curves and write the table."""
    torch.set_num_threads(1)
    data = digits()
    found: dict[str, list[Run]] = {way: [] for way in WAYS}
    for seed in range(SEEDS):
        for way in WAYS:
            found[way].append(trained(way, seed, data))
            print(seed, way, found[way][-1].accuracy, flush=True)
    draw(found, HERE.parent / "docs" / "lean-curves.png")
    write_section("Loss curves and accuracy", table(found))


def table(found: dict[str, list[Run]]) -> str:
    """Return accuracies as Markdown."""
    stock = found["stock PyTorch"]
    lines = [
        (
            f"Digits, MobileNetV2 of four blocks (random weights), {EPOCHS} epochs, {SEEDS} seeds, "
            "accuracy on 360 test images. Made by `python benchmarks/lean_curves.py`."
        ),
        "",
        (
            "| step | accuracy, mean ± sd | per seed | a step's loss differs by at most | running "
            "statistics differ by at most |"
        ),
        "| --- | --- | --- | --- | --- |",
    ]
    for way, runs in found.items():
        shares = [100 * run.accuracy for run in runs]
        pairs = list(zip(runs, stock, strict=True))
        away = max(
            abs(a - b)
            for own, other in pairs
            for a, b in zip(own.losses, other.losses, strict=True)
        )
        moved = max(float((own.statistics - other.statistics).abs().max()) for own, other in pairs)
        each = ", ".join(f"{share:.1f}" for share in shares)
        mean, deviation = statistics.fmean(shares), statistics.stdev(shares)
        lines.append(
            f"| {way} | {mean:.1f} ± {deviation:.1f} % | {each} | {away:.2g} | {moved:.2g} |"
        )
    return "\n".join(lines)


def draw(found: dict[str, list[Run]], path: Path) -> None:
    """Draw the loss curves, each averaged over 10 steps: every way over stock PyTorch."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    others = [way for way in found if way != "stock PyTorch"]
    figure, all_axes = plt.subplots(
        1, len(others), figsize=(9, 3), sharey=True, sharex=True, layout="tight"
    )
    for axes, way in zip(all_axes, others, strict=True):
        for name, colour, width in (("stock PyTorch", "#bbbbbb", 3.0), (way, "#4477aa", 0.9)):
            for number, run in enumerate(found[name]):
                means = torch.tensor(run.losses).unfold(0, 10, 5).mean(1)
                steps = range(5, 5 + 5 * len(means), 5)
                label = name if number == 0 else None
                axes.plot(steps, means, color=colour, linewidth=width, label=label)
        axes.set_yscale("log")
        axes.set_title(way, fontsize=10, loc="left")
        axes.set_xlabel("step")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("training loss")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
