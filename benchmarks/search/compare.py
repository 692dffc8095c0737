"""Every sampler and every switch against plain Optuna, at equal cost, on recorded candidates.

    python benchmarks/search/compare.py [--seeds 5] [--evaluations 100]

Rewrites comparison.md, comparison.png and summary.json beside this file from digits.csv and
fidelity.csv (see record.py and fidelity.py). Searches are the package's own, in a storage in
memory and with a table in place of training; each is kept under runs/bench-search, so that this
goes on where it stopped.
"""

import argparse
import hashlib
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import optuna
from fidelity import FIDELITY_TABLE, read_fidelity
from figure import draw
from interpolated import InterpolatedEvaluator, Interpolation
from measures import (
    Floats,
    cost_to_reach,
    history,
    interval,
    kendall,
    ratio,
    resampled,
    seed_noise,
    share,
)
from methods import Method, Point, methods
from pages import page
from recorded import TABLE, Row, read
from world import World, load_world

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "runs" / "bench-search"


def main() -> None:
    """Run what isn't known yet, and write tables, figure and summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--slow-seeds", type=int, default=0, help="seeds of slow samplers")
    parser.add_argument("--only", nargs="*", help="names of methods; all if left out")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no run after this")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    mpl.use("agg")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    world = load_world()
    rows = read(TABLE, world)
    noise = seed_noise(read_fidelity(FIDELITY_TABLE))
    interpolation = Interpolation(world, rows, noise)
    evaluator = InterpolatedEvaluator(interpolation, rows[0].images_trained, rows[0].images_forward)
    key = hashlib.sha256(TABLE.read_bytes() + f"{noise:.6f}".encode()).hexdigest()[:12]
    deadline = time.monotonic() + 60 * arguments.minutes
    found: dict[str, list[list[Point]]] = {}
    for seed in range(arguments.seeds):
        for method in methods(world, evaluator, slow=seed < arguments.slow_seeds):
            if arguments.only and method.name not in arguments.only:
                continue
            points = _run(
                method, seed, arguments.evaluations, folder=CACHE / key, deadline=deadline
            )
            if points is not None:
                found.setdefault(method.name, []).append(points)
    histories = {
        name: np.array([history(world, run) for run in runs]) for name, runs in found.items()
    }
    everything = [point for runs in found.values() for run in runs for point in run]
    ceiling = share(world, [*everything, *(Point(r.peak_bytes, r.accuracy, 0.0) for r in rows)])
    cost = everything[0].cost
    write(
        arguments.out,
        world,
        rows,
        interpolation,
        histories,
        cost=cost,
        ceiling=ceiling,
    )


def write(
    out: Path,
    world: World,
    rows: Sequence[Row],
    interpolation: Interpolation,
    histories: dict[str, Floats],
    *,
    cost: float,
    ceiling: float,
) -> None:
    """Write comparison.md, comparison.png and summary.json."""
    evaluations = next(iter(histories.values())).shape[1]
    ours, tpe, nsga2 = (histories[name] for name in ("dse front", "plain tpe", "plain nsga2"))
    better = max((tpe, nsga2), key=lambda one: float(one[:, -1].mean()))
    goal = float(better[:, -1].mean())
    spent = cost_to_reach(ours, goal) / evaluations
    low, high = interval(resampled(spent, seed=0))
    lines = read_fidelity(FIDELITY_TABLE)
    recorded = (
        f"{evaluations} evaluations each on the recorded digits benchmark ({len(rows)} candidates "
        "trained, interpolated between), baselines of ours counted, ratio of mean final "
        "hypervolumes, 95 % bootstrap over seeds; make bench-search"
    )
    summary_path = out / "summary.json"
    before = json.loads(summary_path.read_text()) if summary_path.exists() else {}
    summary = {
        **before,
        "hypervolume_vs_nsga2": {**ratio(ours[:, -1], nsga2[:, -1]), "how": recorded},
        "hypervolume_vs_tpe": {**ratio(ours[:, -1], tpe[:, -1]), "how": recorded},
        "cost_to_plain_final": {
            "value": round(float(spent.mean()), 4),
            "interval": [round(low, 4), round(high, 4)],
            "seeds": len(ours),
            "how": "share of the evaluations after which ours has the mean final hypervolume of "
            f"the better plain sampler; {recorded}",
        },
        "kendall_short_full": {
            **kendall(lines),
            "how": "Kendall's tau of short (one seed) with full (mean of three seeds, as in a "
            "run), over candidates spread along the front, real training, 95 % bootstrap over "
            "candidates; python benchmarks/search/fidelity.py",
        },
    }
    summary_path.write_text(json.dumps(summary, indent=2) + "\n")
    (out / "comparison.md").write_text(
        page(
            world,
            rows,
            interpolation,
            histories,
            cost=cost,
            ceiling=ceiling,
            goal=goal,
            lines=lines,
        )
    )
    draw(histories, out / "comparison.png", ceiling=ceiling, cost=cost)
    print((out / "comparison.md").read_text())


def _run(
    method: Method, seed: int, evaluations: int, *, folder: Path, deadline: float
) -> list[Point] | None:
    """Run a method once, or read what it did; None if the time is over."""
    path = folder / f"{method.name.replace(' ', '-').replace(',', '')}-{seed}-{evaluations}.json"
    if path.exists():
        return [Point(*one) for one in json.loads(path.read_text())]
    if time.monotonic() >= deadline:
        return None
    started = time.process_time()
    points = method.run(seed, evaluations)
    print(f"{method.name}, seed {seed}: {time.process_time() - started:.1f} s", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([(one.peak_bytes, one.accuracy, one.cost) for one in points]))
    return points


if __name__ == "__main__":
    main()
