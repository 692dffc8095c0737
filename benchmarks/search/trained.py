"""The default search against plain Optuna with real training, no table in between.

    python benchmarks/search/trained.py [--seeds 5] [--evaluations 24] [--minutes 120]

Every candidate of the digits study is fine-tuned at `short`; then each run's final front is
fine-tuned again at `full`, all with the same seed, and scored on the validation part, which no
search sees (fidelity `validation` in the table; `full` is the same training on the selection part).
Kept in trained.csv beside this file, so that it goes on where it stopped; trained.md and
summary.json are rewritten after each run.
"""

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
import torch
from measures import Floats, cost_to_reach, history, ratio, share
from methods import Method, Point, methods
from recorded import HERE, key_of
from summary import read_summary, write_summary
from world import Evaluators, Kept, World, load_world

from dse.candidate import Candidate
from dse.config import Study
from dse.finetune.evaluation import Evaluation
from dse.finetune.rung import Rung
from dse.names import Fidelity
from dse.results.front import non_dominated
from dse.results.seeds import mean_interval

NAMES = ("plain nsga2", "plain tpe", "dse front")
Scored = Fidelity | Literal["validation"]
_FIELDS = ("kept", "peak_bytes", "fidelity", "accuracy", "images_trained", "images_forward", "cpu")


class OverError(Exception):
    """The time is over."""


@dataclass(eq=False)
class TrainedEvaluator:
    """Fine-tunes each candidate once a fidelity, and keeps what it scored in a table.

    Attributes:
        deadline: on the monotonic clock; nothing is trained after it.
        scored: what was scored at `short`, in order, until someone clears it.
    """

    world: World
    table: Path
    deadline: float
    scored: list[Kept] = field(default_factory=list)
    _rows: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what was scored before."""
        if self.table.exists():
            with self.table.open(newline="") as file:
                for row in csv.DictReader(file):
                    self._rows[row["kept"], row["fidelity"]] = row

    @cached_property
    def _evaluators(self) -> Evaluators:
        return Evaluators(self.world)

    @property
    def images_trained(self) -> int:
        """Of one evaluation at `short`; all train equally many."""
        return int(self._short["images_trained"])

    @property
    def images_forward(self) -> int:
        """Of one evaluation at `short`."""
        return int(self._short["images_forward"])

    @property
    def _short(self) -> dict[str, str]:
        return next(row for (_, fidelity), row in self._rows.items() if fidelity == "short")

    def accuracy(self, kept: Kept, fidelity: Scored = "short") -> float:
        """Score channel counts with the first seed."""
        if fidelity == "short":
            self.scored.append(kept)
        key = (key_of(kept), fidelity)
        if key not in self._rows:
            if time.monotonic() >= self.deadline:
                raise OverError
            self._train(kept, fidelity)
        return float(self._rows[key]["accuracy"])

    def mean(self, kept: Kept) -> None:
        """Nobody knows."""

    def under(self, _study: Study) -> "TrainedEvaluator":
        """The world's recipe is held fixed."""
        return self

    def evaluate(
        self,
        candidate: Candidate,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
        read_validation: bool = False,
        rung: Rung | None = None,  # noqa: ARG002  # nothing is given up half-way
        on_progress: Callable[[float], None] | None = None,  # noqa: ARG002  # nobody looks
    ) -> Evaluation:
        """Score a candidate of a search."""
        accuracy = self.accuracy(candidate.kept(self.world.space.choices), fidelity)
        return Evaluation(
            candidate_digest=candidate.digest,
            fidelity=fidelity,
            seed=seed_index,
            accuracy=accuracy,
            validation_accuracy=accuracy if read_validation else None,
            loss=1 - accuracy,
            wall_seconds=0.0,
            step_seconds=0.0,
            images_trained=self.images_trained,
            images_forward=self.images_forward,
        )

    def _train(self, kept: Kept, fidelity: Scored) -> None:
        started = time.process_time()
        validation = fidelity == "validation"
        found = self._evaluators.proxy.evaluate(
            self.world.candidate(kept),
            fidelity="full" if fidelity == "validation" else fidelity,
            read_validation=validation,
        )
        values = (
            key_of(kept),
            self.world.peak_bytes(kept),
            fidelity,
            f"{found.validation_accuracy if validation else found.accuracy:.6f}",
            found.images_trained,
            found.images_forward,
            f"{time.process_time() - started:.3f}",
        )
        row = dict(zip(_FIELDS, map(str, values), strict=True))
        new = not self.table.exists()
        with self.table.open("a", newline="") as file:
            writer = csv.DictWriter(file, _FIELDS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        self._rows[row["kept"], fidelity] = row


@dataclass(frozen=True)
class Run:
    """One search with real training.

    Attributes:
        points: every evaluation at `short`, in order.
        full_share: hypervolume of its final front, fine-tuned at `full`, on the validation part.
    """

    points: list[Point]
    full_share: float


def main() -> None:
    """Search and fine-tune what isn't known yet, and write tables and summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=24)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--table", type=Path, default=HERE / "trained.csv")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    world = load_world()
    evaluator = TrainedEvaluator(world, arguments.table, time.monotonic() + 60 * arguments.minutes)
    evaluator.accuracy(world.full)
    every = {one.name: one for one in methods(world, evaluator, slow=False)}
    found: dict[str, list[Run]] = {name: [] for name in NAMES}
    try:
        for seed in range(arguments.seeds):
            for name in NAMES:
                found[name].append(_run(every[name], seed, arguments.evaluations, world, evaluator))
            _write(arguments.out, world, found, evaluations=arguments.evaluations)
    except OverError:
        print("the time is over; run it again to go on")


def _run(
    method: Method, seed: int, evaluations: int, world: World, evaluator: TrainedEvaluator
) -> Run:
    """Search, and fine-tune the final front in full."""
    evaluator.scored.clear()
    points = method.run(seed, evaluations)
    scored = list(dict.fromkeys(evaluator.scored))
    values = [(evaluator.accuracy(kept), world.peak_bytes(kept)) for kept in scored]
    front = non_dominated(values, maximise=[True, False])
    kept = [one for one, member in zip(scored, front, strict=True) if member]
    again = [
        Point(world.peak_bytes(one), evaluator.accuracy(one, "validation"), 0.0) for one in kept
    ]
    run = Run(points, share(world, again))
    print(
        f"{method.name}, seed {seed}: {share(world, points):.4f} at short, {run.full_share:.4f} at "
        f"full ({len(kept)} on the front)",
        flush=True,
    )
    return run


def _write(out: Path, world: World, found: dict[str, list[Run]], *, evaluations: int) -> None:
    """Write trained.md, and this part of summary.json."""
    histories = {
        name: np.array([history(world, run.points) for run in runs]) for name, runs in found.items()
    }
    fulls = {name: np.array([run.full_share for run in runs]) for name, runs in found.items()}
    ours = "dse front"
    better = max(NAMES[:2], key=lambda name: float(histories[name][:, -1].mean()))
    spent = cost_to_reach(histories[ours], float(histories[better][:, -1].mean())) / evaluations
    ends = mean_interval(spent.tolist())
    seeds = len(found[ours])
    reached = "of them all" if np.ptp(spent) else "the same in every search"
    how = (
        f"digits study, real training, {evaluations} evaluations at short each, baselines of ours "
        "counted; final fronts fine-tuned again at full, one seed, validation part; 95 % t "
        "interval over searches, which share their training seeds; "
        "python benchmarks/search/trained.py"
    )
    parts = {
        "hypervolume_vs_nsga2": {**ratio(fulls[ours], fulls["plain nsga2"]), "how": how},
        "hypervolume_vs_tpe": {**ratio(fulls[ours], fulls["plain tpe"]), "how": how},
        "cost_to_plain_final": {
            "value": round(float(spent.mean()), 4),
            "interval": None if ends is None else [round(end, 4) for end in ends],
            "seeds": seeds,
            "how": f"share of the evaluations until ours has the mean final hypervolume of {better}"
            f" at short ({reached}); {how}",
        },
    }
    write_summary(out, {**read_summary(out), **parts})
    (out / "trained.md").write_text(
        _page(histories, fulls, evaluations=evaluations, seeds=seeds, parts=parts)
    )


def _page(
    histories: dict[str, Floats],
    fulls: dict[str, Floats],
    *,
    evaluations: int,
    seeds: int,
    parts: dict[str, dict[str, object]],
) -> str:
    marks = [mark for mark in (5, 10, 15, 20) if mark < evaluations] + [evaluations]
    lines = [
        "# Searches with real training",
        "",
        (
            f"The digits study, {seeds} searches each of {evaluations} evaluations at `short` (the "
            "five baselines of `dse front` are among its own). Hypervolume as a share of the box "
            "between the unpruned network's peak and chance: mean ± standard deviation over "
            "searches, after so many evaluations, and of the final front fine-tuned again at "
            "`full` with one seed for all and scored on the validation part. Searches differ in "
            "their draws alone: what is trained twice scores the same. Written by `python "
            "benchmarks/search/trained.py`."
        ),
        "",
        (
            "Optuna's NSGA-II draws its first 50 candidates at random, and TPE its first 10: at "
            f"this length the one is random search up to its {min(50, evaluations)}th, the other "
            f"up to its {min(10, evaluations)}th. Longer searches, a smaller population, and TPE "
            "that is given the baselines: "
            "[comparison_digits.md](comparison_digits.md)."
        ),
        "",
        "| | " + " | ".join(f"after {mark}" for mark in marks) + " | final front at `full` |",
        "| --- |" + " ---: |" * (len(marks) + 1),
    ]
    for name in NAMES:
        cells = [_spread(histories[name][:, mark - 1]) for mark in marks]
        lines.append(f"| {name} | " + " | ".join([*cells, _spread(fulls[name])]) + " |")
    lines += ["", "| measure | value | 95 % |", "| --- | ---: | --- |"]
    for name, part in parts.items():
        lines.append(f"| {name} | {part['value']} | {part['interval'] or 'none'} |")
    lines += [
        "",
        (
            "`cost_to_plain_final`: share of the evaluations after which `dse front` has what the "
            "better plain sampler has at its end, at `short`. The first five are its baselines, "
            "the same in every search."
        ),
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float] | Floats) -> str:
    mean = f"{float(np.mean(values)):.3f}"
    return f"{mean} ± {float(np.std(values, ddof=1)):.3f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
