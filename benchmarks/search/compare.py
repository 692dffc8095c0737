"""Every sampler and every switch against plain Optuna, at equal cost, on recorded candidates.

    python benchmarks/search/compare.py [--study digits] [--seeds 10] [--evaluations 100]

Rewrites comparison_STUDY.md and comparison_STUDY.png beside this file, and the study's part of
summary.json, from STUDY.csv and STUDY_fidelity.csv (see record.py and fidelity.py). Searches are
the package's own, in a storage in memory and with a table in place of training; each is kept under
runs/bench-search, so that this goes on where it stopped.
"""

import argparse
import hashlib
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import optuna
from fidelity import read_fidelity
from figure import draw
from interpolated import InterpolatedEvaluator, Interpolation
from measures import (
    Floats,
    cost_to_reach,
    gap_closed,
    history,
    kendall,
    ratio,
    seed_noise,
    share,
)
from methods import Method, Point, methods, within
from pages import page
from recorded import HERE, STUDIES, Row, fidelity_table_of, read, table_of
from summary import read_summary, write_summary
from world import World, load_world, study_file

from dse.results.seeds import mean_interval

CACHE = HERE.parents[1] / "runs" / "bench-search"
TRAINED_STUDY = "digits"
"""The one that trained.py trains."""


def main() -> None:
    """Run what isn't known yet, and write tables, figure and summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", choices=STUDIES, default="digits")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--slow-seeds", type=int, default=0, help="seeds of slow samplers")
    parser.add_argument("--only", nargs="*", help="names of methods; all if left out")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no run after this")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    mpl.use("agg")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    world = load_world(arguments.study)
    rows = read(table_of(arguments.study), world)
    lines = read_fidelity(fidelity_table_of(arguments.study))
    noise = seed_noise(lines)
    interpolation = Interpolation(world, rows, noise)
    evaluator = InterpolatedEvaluator(interpolation, rows[0].images_trained, rows[0].images_forward)
    key = _key(arguments.study, noise)
    deadline = time.monotonic() + 60 * arguments.minutes
    budget = min(world.study.search.budget_bytes)
    found: dict[str, list[Run]] = {}
    tight: dict[str, list[Run]] = {}
    for seed in range(arguments.seeds):
        for kept, folder, offered in (
            (found, CACHE / key, methods(world, evaluator, slow=seed < arguments.slow_seeds)),
            (tight, CACHE / key / "within", within(world, evaluator, budget)),
        ):
            for method in offered:
                if arguments.only and method.name not in arguments.only:
                    continue
                run = _run(method, seed, arguments.evaluations, folder=folder, deadline=deadline)
                if run is not None:
                    kept.setdefault(method.name, []).append(run)
    if arguments.only:
        return  # a part of the runs, kept for a later call
    everything = [point for runs in found.values() for run in runs for point in run.points]
    recorded = [Point(row.peak_bytes, interpolation.mean(row.kept), 0.0) for row in rows]
    settled = [Point(one.peak_bytes, one.mean or 0.0, 0.0) for one in everything]
    ceiling = share(world, [*settled, *recorded])
    write(
        arguments.out,
        world,
        rows,
        interpolation,
        _histories(world, found),
        within_budget=(budget, _histories(world, tight, limit_bytes=budget)),
        seconds={name: [run.cpu_seconds for run in runs] for name, runs in found.items()},
        cost=everything[0].cost,
        ceiling=ceiling,
        lines=lines,
    )


def write(
    out: Path,
    world: World,
    rows: Sequence[Row],
    interpolation: Interpolation,
    histories: dict[str, Floats],
    *,
    within_budget: tuple[int, dict[str, Floats]],
    seconds: dict[str, list[float]],
    cost: float,
    ceiling: float,
    lines: Sequence[dict[str, str]],
) -> None:
    """Write page and figure, and the study's part of summary.json."""
    name = world.study.name
    evaluations = next(iter(histories.values())).shape[1]
    ours, tpe, nsga2 = (histories[name] for name in ("dse front", "plain tpe", "plain nsga2"))
    better = max((tpe, nsga2), key=lambda one: float(one[:, -1].mean()))
    goal = float(better[:, -1].mean())
    spent = cost_to_reach(ours, goal) / evaluations
    ends = mean_interval(spent.tolist())
    alike = "" if np.ptp(spent) else " (the same in every search)"
    how = (
        f"{evaluations} evaluations each on the recorded benchmark {name} ({len(rows)} candidates "
        "trained, interpolated between), baselines of ours counted, ratio of mean final "
        "hypervolumes, 95 % t intervals over seeds; make bench-search"
    )
    summary = read_summary(out)
    summary.setdefault("recorded", {})[name] = {
        "hypervolume_vs_nsga2": {
            **ratio(ours[:, -1], nsga2[:, -1]),
            "gap_closed": round(gap_closed(histories, "plain nsga2", ceiling), 3),
            "how": how,
        },
        "hypervolume_vs_tpe": {
            **ratio(ours[:, -1], tpe[:, -1]),
            "gap_closed": round(gap_closed(histories, "plain tpe", ceiling), 3),
            "how": how,
        },
        "cost_to_plain_final": {
            "value": round(float(spent.mean()), 4),
            "interval": None if ends is None else [round(end, 4) for end in ends],
            "seeds": len(ours),
            "how": "share of the evaluations after which ours has the mean final hypervolume of "
            f"the better plain sampler{alike}; {how}",
        },
        "kendall_short_full": {
            **kendall(lines),
            "how": "Kendall's tau of short (one seed) with full (mean of three seeds, as in a "
            "run), over candidates spread along the front, real training, 95 % bootstrap over "
            f"candidates; python benchmarks/search/fidelity.py --study {name}",
        },
    }
    if name == TRAINED_STUDY:  # so that all headlines speak of one
        summary["kendall_short_full"] = summary["recorded"][name]["kendall_short_full"]
    write_summary(out, summary)
    picture = f"comparison_{name}.png"
    written = page(
        world,
        rows,
        interpolation,
        histories,
        within_budget=within_budget,
        seconds=seconds,
        cost=cost,
        ceiling=ceiling,
        goal=goal,
        lines=lines,
        picture=picture,
    )
    (out / f"comparison_{name}.md").write_text(written)
    draw(histories, out / picture, ceiling=ceiling, cost=cost)
    print(written)


def _key(study: str, noise: float) -> str:
    """Name all that the searches follow from: the table, the study, and the code."""
    root = HERE.parents[1]
    files = [
        table_of(study),
        study_file(study),
        HERE / "methods.py",
        HERE / "interpolated.py",
        *sorted((root / "dse" / "search").glob("*.py")),
        *sorted((root / "dse" / "space").glob("*.py")),
    ]
    digest = hashlib.sha256(f"{noise:.6f}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Run:
    """What one search did.

    Attributes:
        points: in the order of their evaluations.
        cpu_seconds: of all but training, which a table stands in for.
    """

    points: list[Point]
    cpu_seconds: float


def _histories(
    world: World, found: dict[str, list[Run]], *, limit_bytes: int | None = None
) -> dict[str, Floats]:
    """Histories by method; a search that ended early, its space exhausted, stays where it was."""
    length = max(len(run.points) for runs in found.values() for run in runs)
    return {
        name: np.array(
            [
                np.pad(reached, (0, length - len(reached)), mode="edge")
                for reached in (history(world, run.points, limit_bytes=limit_bytes) for run in runs)
            ]
        )
        for name, runs in found.items()
    }


def _run(
    method: Method, seed: int, evaluations: int, *, folder: Path, deadline: float
) -> Run | None:
    """Run a method once, or read what it did; None if the time is over."""
    path = folder / f"{method.name.replace(' ', '-').replace(',', '')}-{seed}-{evaluations}.json"
    if path.exists():
        read = json.loads(path.read_text())
        return Run([Point(**one) for one in read["points"]], read["cpu_seconds"])
    if time.monotonic() >= deadline:
        return None
    started = time.process_time()
    points = method.run(seed, evaluations)
    run = Run(points, time.process_time() - started)
    print(f"{method.name}, seed {seed}: {run.cpu_seconds:.1f} s", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(run)))
    return run


if __name__ == "__main__":
    main()
