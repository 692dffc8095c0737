"""What lean training saves, and what it costs: real steps beside stock PyTorch's, in one run.

    python benchmarks/lean.py                    # every row of the table; an hour on one core
    python benchmarks/lean.py --only mobilenet   # the rows whose name contains it
    python benchmarks/lean.py --picture          # docs/lean-step.png

Each row trains one network with random weights: stock; checkpointed block by block; lean without
a budget; lean within a budget, 90 % of the goal's share of the stock step's predicted peak, without
chunks (bit-identical) and with them; and with the least memory. Peak is what the CPU's allocator
holds in the second step, time is the process's user time. The steps of all ways take turns, so that
each is timed beside stock PyTorch's whatever else the machine does; medians, as shares of the stock
step. Rows go to lean.json when they are done, and the table to lean.md.
Networks named ``timm:...`` need timm.
"""

import argparse
import copy
import json
import os
import resource
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dse
from dse.errors import DseError
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.step.canonical import classification_loss, training_step
from dse.step.optimizers import make_optimizer
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings

HERE = Path(__file__).parent
PAGE, ROWS = HERE / "lean.md", HERE / "lean.json"
CLASSES, BATCH, SIZE = 10, 8, 224
REPETITIONS = 5
MARGIN = 90  # percent of a goal that is given as the budget: kernels' workspace comes on top
MIB = 2**20
EARLIER = (
    "The rows of mnasnet1_0, resnet18 and mobilenet_v2 with biases were measured before a plan's "
    "blocks had to pay, those of efficientnet_b0, mobilenet_v3_large and mobilenet_v2 with norms "
    "earlier still, one way after the other, before plans could run single layers again and "
    "compute in slices. convnext_tiny has not been measured."
)


@dataclass(frozen=True)
class Goal:
    """A row of the table.

    Attributes:
        network: torchvision's name, or ``timm:`` and timm's.
        scheme: Which parameters train.
        lean_percent: Goal of bit-identical training, in percent of the stock step's peak.
        least_percent: Goal of the least memory.
        saved_percent: Goal of training with values saved in 8 bits. 0 leaves it out.
    """

    network: str
    scheme: str
    lean_percent: int
    least_percent: int
    saved_percent: int = 0


GOALS = (
    Goal("mobilenet_v2", "full", 42, 18, saved_percent=25),
    Goal("efficientnet_b0", "full", 50, 30),
    Goal("mobilenet_v3_large", "full", 50, 30),
    Goal("mnasnet1_0", "full", 50, 30),
    Goal("timm:efficientnet_lite0", "full", 50, 30),
    Goal("timm:mobilenetv4_conv_small", "full", 50, 30),
    Goal("resnet18", "full", 64, 60),
    Goal("resnet50", "full", 64, 60),
    Goal("convnext_tiny", "full", 70, 50),
    Goal("timm:vit_tiny_patch16_224", "full", 70, 50),
    Goal("mobilenet_v2", "bias", 22, 15),
    Goal("mobilenet_v2", "norm", 45, 20),
)


@dataclass(frozen=True)
class Row:
    """One measured step.

    Attributes:
        network, scheme: As in the goal.
        engine: ``stock``, ``checkpointing``, ``lean`` (no budget), ``identical`` and ``identical
            least`` (the goal's budget, and the least, without chunks), ``budget`` or ``least``, or
            ``8 bits`` (the goal's budget, with values saved in 8 bits).
        peak_bytes: What the allocator held.
        user_seconds: User time of a step.
        predicted_bytes: Peak that the plan predicts, without kernels' workspace. 0 without a plan.
        predicted_time: Time that the plan predicts, as a share of stock. 0 without a plan.
        inexact: Whether gradients aren't bit-identical: a block is computed in chunks, or values
            are saved in 8 bits.
        prepare_seconds: CPU seconds of ``dse.lean``.
    """

    network: str
    scheme: str
    engine: str
    peak_bytes: int
    user_seconds: float
    predicted_bytes: int = 0
    predicted_time: float = 0.0
    inexact: bool = False
    prepare_seconds: float = 0.0


def build(name: str) -> nn.Module:
    """Return a network with random weights."""
    torch.manual_seed(0)
    if name.startswith("timm:"):
        import timm  # noqa: PLC0415  # an extra

        return timm.create_model(name.removeprefix("timm:"), num_classes=CLASSES)
    import torchvision  # noqa: PLC0415

    return torchvision.models.get_model(name, num_classes=CLASSES)


def peak_of(network: nn.Module, settings: StepSettings) -> int:
    """Measure the peak of a network's step."""
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(0, CLASSES, (BATCH,))
    return measure_peak(network, images, labels, settings=settings, timed_steps=1).peak_bytes


def user_seconds(ways: dict[str, tuple[nn.Module, StepSettings]]) -> dict[str, float]:
    """Return the median user time of a step of each network. Their steps take turns."""
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(0, CLASSES, (BATCH,))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(REPETITIONS + 1):
        for name, (network, settings) in ways.items():
            optimizer = make_optimizer(network.parameters(), settings, learning_rate=1e-6)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            training_step(
                network, optimizer, classification_loss, [(images, labels)], settings=settings
            )
            seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
            if repetition:  # the first warms caches
                taken[name].append(seconds)
    return {name: statistics.median(each) for name, each in taken.items()}


def plans_of(
    base: nn.Module, goal: Goal, images: torch.Tensor
) -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """Return lean networks by the name of their row, with what is known of their plans."""
    model = MemoryModel.compile(base, images, groups=(), scheme=goal.scheme)
    stock = int(model.peaks([], batch_size=BATCH))
    least: int | str = "least"
    wishes: dict[str, tuple[int | str | None, dict[str, Any]]] = {
        "lean": (None, {}),
        "identical": (stock * goal.lean_percent * MARGIN // 10_000, {"bit_identical": True}),
        "identical least": (least, {"bit_identical": True}),
        "budget": (stock * goal.least_percent * MARGIN // 10_000, {}),
        "least": (least, {}),
    }
    if goal.saved_percent:
        wishes["8 bits"] = (stock * goal.saved_percent * MARGIN // 10_000, {"saved_bits": 8})
    found: dict[str, tuple[nn.Module, dict[str, Any]]] = {}
    for engine, (budget, options) in wishes.items():
        start = time.process_time()
        try:
            network = dse.lean(copy.deepcopy(base), images, goal.scheme, budget, **options)
        except DseError as error:
            print(f"  {engine}: {error}", flush=True)
            continue
        plan = network.lean_plan
        levels = [each.level for program in plan.programs for each in program.segments]
        found[engine] = (
            network,
            {
                "predicted_bytes": plan.peak_bytes or 0,
                "predicted_time": plan.time or 0.0,
                "inexact": "chunked" in levels or "saved_bits" in options,
                "prepare_seconds": time.process_time() - start,
            },
        )
    return found


def rows_of(goal: Goal) -> list[Row]:
    """Measure one network in every way."""
    images = torch.zeros(BATCH, 3, SIZE, SIZE)
    settings = StepSettings(scheme=goal.scheme)
    base = build(goal.network)
    apply_scheme(base, images[:2], goal.scheme)
    plans = plans_of(base, goal, images)
    ways = {
        "stock": (copy.deepcopy(base), settings),
        "checkpointing": (copy.deepcopy(base), replace(settings, checkpointing="blocks")),
        **{name: (network, settings) for name, (network, _) in plans.items()},
    }
    peaks: dict[str, int] = {}
    for name, (network, own) in list(ways.items()):
        try:
            peaks[name] = peak_of(network, own)
        except DseError as error:  # checkpointing finds no blocks
            print(f"  {name}: {error}", flush=True)
            del ways[name]
    seconds = user_seconds(ways)
    return [
        Row(
            goal.network,
            goal.scheme,
            name,
            peak_bytes=peaks[name],
            user_seconds=seconds[name],
            **(plans[name][1] if name in plans else {}),
        )
        for name in ways
    ]


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown, each beside its stock step."""
    stock = {(r.network, r.scheme): r for r in rows if r.engine == "stock"}
    goals = {(g.network, g.scheme): g for g in GOALS}
    lines = [
        "| network | trains | step | peak (MiB) | of stock | user time | bit-identical | goal |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        own, goal = stock[row.network, row.scheme], goals[row.network, row.scheme]
        share = 100 * row.peak_bytes / own.peak_bytes
        slower = row.user_seconds / own.user_seconds
        met = ""
        if row.engine in ("lean", "identical", "identical least"):
            wish = f"{goal.lean_percent} %, 1.15 x"
            met = _met(wish, share <= goal.lean_percent and slower <= 1.15)  # noqa: PLR2004
        elif row.engine == "8 bits":
            wish = f"{goal.saved_percent} %, 1.15 x"
            met = _met(wish, share <= goal.saved_percent and slower <= 1.15)  # noqa: PLR2004
        elif row.engine in ("budget", "least"):
            wish = f"{goal.least_percent} %, 1.4 x"
            met = _met(wish, share <= goal.least_percent and slower <= 1.4)  # noqa: PLR2004
        exact = "no" if row.inexact else "yes"
        lines.append(
            f"| {row.network} | {row.scheme} | {row.engine} | {row.peak_bytes / MIB:.1f} | "
            f"{share:.1f} % | {slower:.2f} | {exact} | {met} |"
        )
    return "\n".join(lines)


def _met(goal: str, met: bool) -> str:  # noqa: FBT001
    return f"{goal}: {'met' if met else 'missed'}"


def picture(path: Path) -> None:
    """Draw what one step of MobileNetV2 holds over its events, stock above lean."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    images = torch.zeros(BATCH, 3, SIZE, SIZE)
    base = build("mobilenet_v2")
    steps = {
        "stock PyTorch": base,
        "dse.lean(network, images), bit-identical": dse.lean(copy.deepcopy(base), images),
        'budget="128 MiB"': dse.lean(copy.deepcopy(base), images, "full", "128 MiB"),
    }
    figure, all_axes = plt.subplots(len(steps), 1, figsize=(7, 6), sharey=True, layout="tight")
    for axes, (title, network) in zip(all_axes, steps.items(), strict=True):
        model = MemoryModel.compile(network, images, groups=())
        line = model.timeline([], batch_size=BATCH)
        held = line.bytes.sum(axis=1) / MIB
        place = [index / len(held) for index in range(len(held))]
        axes.fill_between(place, held, step="post", color="#4477aa", linewidth=0)
        axes.axhline(held.max(), color="#aa3377", linewidth=0.8)
        axes.text(0.995, held.max() + 12, f"peak {held.max():.0f} MiB", ha="right", color="#aa3377")
        first = line.phases.index("backward") / len(held)
        axes.axvline(first, color="0.4", linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        axes.set_ylabel("MiB")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylim(0, None)
    all_axes[0].set_ylim(top=all_axes[0].get_ylim()[1] * 1.1)
    all_axes[-1].set_xlabel("one training step, event by event (dotted: the backward pass begins)")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure the rows that the command line selects, or draw the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="rows whose network and scheme contain this")
    parser.add_argument("--picture", action="store_true", help="draw docs/lean-step.png")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.picture:
        picture(HERE.parent / "docs" / "lean-step.png")
        return
    rows = stored_rows()
    for goal in GOALS:
        if given.only not in f"{goal.network} {goal.scheme}":
            continue
        print(f"{goal.network}, {goal.scheme}", flush=True)
        rows = [r for r in rows if (r.network, r.scheme) != (goal.network, goal.scheme)]
        for row in rows_of(goal):
            rows.append(row)
            print(f"  {row}", flush=True)
        ROWS.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    write_page(rows, stored_sections())


def write_section(title: str, text: str) -> None:
    """Put a section of another script into lean.md, below the table."""
    write_page(stored_rows(), {**stored_sections(), title: text})


def stored_rows() -> list[Row]:
    """Return the rows measured so far."""
    return [Row(**row) for row in json.loads(ROWS.read_text())] if ROWS.exists() else []


def stored_sections() -> dict[str, str]:
    """Return the sections below the table of lean.md, by title."""
    _, *sections = PAGE.read_text().split("\n## ") if PAGE.exists() else [""]
    return {title: text.strip() for title, _, text in (one.partition("\n") for one in sections)}


def write_page(rows: list[Row], sections: dict[str, str]) -> None:
    """Write lean.md: the table, and the sections of other scripts."""
    head = (
        f"Batch {BATCH}, {SIZE}², SGD with momentum, one thread, PyTorch {torch.__version__}, "
        f"{os.cpu_count()} cores, other processes running. Made by `python benchmarks/lean.py`.\n\n"
        f"{EARLIER}\n\n"
    )
    more = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
    PAGE.write_text("# Lean training\n\n" + head + table(rows) + "\n" + more)


if __name__ == "__main__":
    main()
