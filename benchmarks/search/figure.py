"""Hypervolume against cost, for a few methods."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

SHOWN = {
    "dse front": ("#0072b2", "-"),
    "dse random": ("#56b4e9", "-"),
    "dse tpe": ("#009e73", "-"),
    "plain tpe": ("#d55e00", "--"),
    "plain nsga2": ("#cc79a7", "--"),
    "plain random": ("#000000", ":"),
}


def draw(
    histories: dict[str, NDArray[np.float64]], path: Path, *, ceiling: float, cost: float
) -> None:
    """Draw means over seeds, and a band from the second worst to the second best seed."""
    figure, axes = plt.subplots(figsize=(6.2, 3.4), layout="constrained")
    for name, (color, style) in SHOWN.items():
        if name not in histories:
            continue
        runs = histories[name]
        images = cost * np.arange(1, runs.shape[1] + 1) / 1000
        ordered = np.sort(runs, axis=0)
        inner = 1 if len(runs) >= 5 else 0  # noqa: PLR2004  # of fewer seeds the whole range
        axes.plot(images, runs.mean(axis=0), color=color, linestyle=style, label=name)
        axes.fill_between(
            images, ordered[inner], ordered[-1 - inner], color=color, alpha=0.12, linewidth=0
        )
    axes.axhline(ceiling, color="0.5", linewidth=0.8, label="best known front")
    axes.set_xlabel("Cost (thousand images trained, a third of those passed forward)")
    axes.set_ylabel("Hypervolume (share of box)")
    axes.set_ylim(0.4, None)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8, ncols=2, loc="lower right")
    figure.savefig(path, dpi=160)
    plt.close(figure)
