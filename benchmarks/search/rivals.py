"""The search against the strongest samplers, on recorded candidates.

    python benchmarks/search/rivals.py [--seeds 5] [--minutes 60]

Adds what isn't known yet to rivals.csv beside this file, a line for each search with its
hypervolume after several numbers of evaluations, and rewrites rivals.md and the ratios in
summary.json. Delete rivals.csv to begin anew. Needs botorch (pip install '.[bench]').
"""

import argparse
import csv
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from interpolated import InterpolatedEvaluator
from interpolated_world import interpolated_world
from measures import history, ratio, with_interval
from methods import Method, Point, baseline_ratios, methods
from qlognehvi import search
from recorded import HERE, STUDIES
from summary import read_summary, write_summary
from world import World

TABLE = HERE / "rivals.csv"
COUNTS = (25, 50, 100)
OURS, GP = "dse front", "plain gp"
QLOGNEHVI, GATED = "qlognehvi", "qlognehvi, gate and baselines"
EVALUATIONS = {OURS: 100, GP: 100, QLOGNEHVI: 25, GATED: 25}
"""Evaluations of each method. BoTorch's take seconds each, so theirs end early."""

_HOW = """\
Rewritten by `python benchmarks/search/rivals.py` from rivals.csv. Hypervolume as a share of the
box, as in [comparison_digits.md](comparison_digits.md): fronts are chosen by what was scored, and
measured by means. Each evaluation counts, our five baselines included. `plain gp` is Optuna's
GPSampler with both objectives. `qlognehvi` is BoTorch's, with accuracy as a Gaussian process and
memory known exactly, gradient included; with gate and baselines it begins with our five baselines
and trains nothing twice. Means over searches, 95 % t intervals."""
_MISSING = """\
OptunaHub's AutoSampler isn't here: `optunahub` (0.5.0) installs from PyPI, but fetches a sampler's
code from GitHub when it is used, and these searches run without a network."""

Lines = list[dict[str, str]]


def main() -> None:
    """Run what isn't known yet, and write table, page and summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no search after this")
    parser.add_argument(
        "--only", nargs="*", choices=EVALUATIONS, default=list(EVALUATIONS), help="methods to run"
    )
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * arguments.minutes
    worlds = {name: interpolated_world(name) for name in STUDIES}
    for method in arguments.only:
        for name, (world, evaluator) in worlds.items():
            run = _methods(world, evaluator)[method]
            for seed in range(arguments.seeds):
                known = [(one["world"], one["method"], int(one["seed"])) for one in lines()]
                if (name, method, seed) not in known and time.monotonic() < deadline:
                    _add(world, name, Method(method, run), seed)
    write(lines())


def _methods(
    world: World, evaluator: InterpolatedEvaluator
) -> dict[str, Callable[[int, int], list[Point]]]:
    known = {one.name: one.run for one in methods(world, evaluator, slow=True)}

    def botorch(first: tuple[float, ...]) -> Callable[[int, int], list[Point]]:
        def run(seed: int, evaluations: int) -> list[Point]:
            found = search(
                world, evaluator.accuracy, seed=seed, evaluations=evaluations, first=first
            )
            return [
                Point(world.peak_bytes(kept), accuracy, 0.0, evaluator.mean(kept))
                for kept, accuracy in found
            ]

        return run

    return {
        OURS: known[OURS],
        GP: known[GP],
        QLOGNEHVI: botorch(()),
        GATED: botorch(baseline_ratios(world)),
    }


def _add(world: World, name: str, method: Method, seed: int) -> None:
    started = time.process_time()
    reached = history(world, method.run(seed, EVALUATIONS[method.name]))
    seconds = time.process_time() - started
    line = {
        "world": name,
        "method": method.name,
        "seed": str(seed),
        **{str(n): f"{reached[n - 1]:.6f}" if n <= len(reached) else "" for n in COUNTS},
        "cpu_seconds": f"{seconds:.1f}",
    }
    print(line, flush=True)
    new = not TABLE.exists()
    with TABLE.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(line), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(line)


def lines() -> Lines:
    """Read the searches that are known."""
    if not TABLE.exists():
        return []
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _values(found: Lines, world: str, method: str, count: int) -> np.ndarray[Any, Any]:
    own = (one for one in found if (one["world"], one["method"]) == (world, method))
    return np.array([float(one[str(count)]) for one in own if one[str(count)]])


def write(found: Lines, out: Path = HERE) -> None:
    """Write page and summary."""
    summary = read_summary(out)
    for key, method, count in (
        ("hypervolume_vs_gp_25", GP, 25),
        ("hypervolume_vs_gp_100", GP, 100),
        ("hypervolume_vs_qlognehvi", QLOGNEHVI, 25),
    ):
        worst = None
        for world in STUDIES:
            pair = [_values(found, world, one, count) for one in (OURS, method)]
            if min(map(len, pair)) < 2:  # noqa: PLR2004  # no spread is known
                continue
            entry = {
                **ratio(*pair),
                "how": f"ratio of mean hypervolumes after {count} evaluations, dse front over "
                f"{method}, recorded world {world}, baselines of ours counted, 95 % Welch "
                "interval over searches; python benchmarks/search/rivals.py",
            }
            summary.setdefault("recorded", {}).setdefault(world, {})[key] = entry
            if worst is None or entry["value"] < worst["value"]:
                worst = entry
        if worst is not None:
            summary[key] = worst
    write_summary(out, summary)
    (out / "rivals.md").write_text("\n".join(_page(found)) + "\n")


def _page(found: Lines) -> list[str]:
    page = [
        "# Against the strongest samplers, on recorded candidates",
        "",
        _HOW,
        "",
        "| world | method | searches | after 25 | after 50 | after 100 | CPU s |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for world in STUDIES:
        for method in EVALUATIONS:
            own = [one for one in found if (one["world"], one["method"]) == (world, method)]
            if not own:
                continue
            cells = [
                with_interval(values) if len(values) else ""
                for values in (_values(found, world, method, count) for count in COUNTS)
            ]
            seconds = np.mean([float(one["cpu_seconds"]) for one in own])
            page.append(
                f"| {world} | {method} | {len(own)} | {' | '.join(cells)} | {seconds:.0f} |"
            )
    page += ["", _MISSING]
    return page


if __name__ == "__main__":
    main()
