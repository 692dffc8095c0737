"""How fast are static placements, and how far above the lower bound do they lie?

    python benchmarks/arena_speed.py

Times ``arena_peaks`` (sizes, order and placement, from channel counts to bytes) on one thread for
random candidates, with numba where it is installed and as plain Python, and writes the table to
arena_speed.md beside this file. Times are CPU seconds, which others on the machine distort less
than the clock's, the best of several passes.
"""

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from dse.memory import placement
from dse.memory.arena import ArenaLayout, arena_layout, arena_lower_bounds, arena_peaks
from dse.memory.model import MemoryModel
from dse.networks.build import build_network

HERE = Path(__file__).parent
NETWORKS = ("mobilenet_v2", "resnet18", "efficientnet_b0")
MODES = {"training": 8, "inference": 1}  # and the batch size
IMAGE_SIZE = 224
PASSES = 5


def main() -> None:
    """Measure every network and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=1024, help="placed in each pass")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in NETWORKS:
        network = build_network(f"torchvision:{name}", classes=10)
        for mode in MODES:
            model = MemoryModel.compile(
                network, torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE), mode=mode
            )
            rows.append(measured(name, mode, model, candidates=arguments.candidates))
            print(rows[-1], flush=True)
    (HERE / "arena_speed.md").write_text(table(rows))


def measured(name: str, mode: str, model: MemoryModel, *, candidates: int) -> dict[str, Any]:
    """One line of the table."""
    layout, batch_size = arena_layout(model.tape), MODES[mode]
    units = drawn_units(model, candidates)
    peaks = arena_peaks(layout, units, batch_size=batch_size)
    ratio = peaks.arena_bytes / peaks.lower_bound_bytes
    return {
        "network": name,
        "mode": mode,
        "blocks": len(layout.blocks),
        "compiled": speed(layout, units, batch_size) if placement.COMPILED else None,
        "python": speed_as_python(layout, units[: max(1, candidates // 32)], batch_size),
        "bounds": bound_speed(layout, units, batch_size),
        "at_bound": float((ratio == 1).mean()),
        "mean": float(ratio.mean()) - 1,
        "worst": float(ratio.max()) - 1,
    }


def drawn_units(model: MemoryModel, candidates: int) -> Any:
    """Counts between a tenth and all of each group."""
    full = np.array([group.channels // group.multiple for group in model.groups])
    share = np.random.default_rng(0).uniform(0.1, 1.0, (candidates, len(full)))
    return np.maximum(1, (full * share).astype(np.int64))


def speed(layout: ArenaLayout, units: Any, batch_size: int) -> float:
    """Placements a second."""
    seconds = []
    for _ in range(PASSES):
        start = time.thread_time()
        arena_peaks(layout, units, batch_size=batch_size)
        seconds.append(time.thread_time() - start)
    return len(units) / min(seconds)


def speed_as_python(layout: ArenaLayout, units: Any, batch_size: int) -> float:
    """Placements a second without numba."""
    compiled, placement.COMPILED = placement.COMPILED, False
    try:
        return speed(layout, units, batch_size)
    finally:
        placement.COMPILED = compiled


def bound_speed(layout: ArenaLayout, units: Any, batch_size: int) -> float:
    """Lower bounds a second."""
    seconds = []
    for _ in range(PASSES):
        start = time.thread_time()
        arena_lower_bounds(layout, units, batch_size=batch_size)
        seconds.append(time.thread_time() - start)
    return len(units) / min(seconds)


def table(rows: list[dict[str, Any]]) -> str:
    """The measurements as a Markdown page."""
    lines = [
        "# Static placements a second",
        "",
        "Convention `arena`, 32-bit elements, elementwise results in place; "
        f"{IMAGE_SIZE}² images, batch {MODES['training']} in training and "
        f"{MODES['inference']} in inference, SGD with momentum, everything trained; channel counts "
        "uniform between a tenth and all. Per second of one thread's CPU time, best of "
        f"{PASSES} passes; sizes and order are included. "
        f"Python {platform.python_version()}, NumPy {np.__version__}, PyTorch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, "
        + (f"numba {numba_version()}. " if placement.COMPILED else "numba not installed. ")
        + "Written by `python benchmarks/arena_speed.py`.",
        "",
        (
            "| network | step | blocks | placements/s with numba | without | lower bounds/s "
            "| at the bound | mean above it | worst |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        compiled = "not measured" if row["compiled"] is None else f"{row['compiled']:,.0f}"
        lines.append(
            f"| {row['network']} | {row['mode']} | {row['blocks']} | {compiled} "
            f"| {row['python']:,.0f} | {row['bounds']:,.0f} | {row['at_bound']:.1%} "
            f"| {row['mean']:.2%} | {row['worst']:.2%} |"
        )
    return "\n".join(lines) + "\n"


def numba_version() -> str:
    """Of the numba that compiles the placement."""
    import numba  # noqa: PLC0415  # optional

    return str(numba.__version__)


if __name__ == "__main__":
    main()
