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

_FIRST = 5
"""Evaluations after which the picture begins to be of interest."""


def draw(
    histories: dict[str, NDArray[np.float64]], path: Path, *, ceiling: float, cost: float
) -> None:
    """Draw means over seeds, and a band from the second worst to the second best seed."""
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
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
    axes.set_xlabel("Cost (thousand images: trained, and a third of those only passed forward)")
    axes.set_ylabel("Hypervolume (share of box)")
    # What lies below the first evaluations of plain samplers says nothing.
    starts = [runs[:, : _FIRST + 1].mean(axis=0)[-1] for runs in histories.values()]
    axes.set_ylim(min(starts), 1.03 * ceiling)
    axes.grid(visible=True, alpha=0.3)
    figure.legend(fontsize=8, loc="outside right center")
    figure.savefig(path, dpi=160)
    plt.close(figure)
