"""What an earlier run on other data gives a search of the same network, on recorded candidates.

    python benchmarks/search/warm_start.py [--seeds 10]

A search of 100 evaluations of one recorded world warms 25 evaluations of the other, both ways, and
each is compared with a search that begins cold. Rewrites warm_start.md beside this file.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import optuna
from interpolated import InterpolatedEvaluator
from interpolated_world import interpolated_world
from measures import Floats, history, with_interval
from methods import Point, session_of, study_of
from optuna.trial import TrialState
from recorded import HERE, STUDIES
from world import World

from dse.candidate import Candidate
from dse.results.seeds import ratio_interval
from dse.results.trials import ACCURACY, CANDIDATE, PEAK_BYTES
from dse.sampling.front_sampler import Evaluated
from dse.sampling.warm_start import Row
from dse.search.baselines import score_baselines
from dse.search.loop import sample
from dse.search.seeding import seed_trials

COUNTS = (10, 15, 25, 50)
SOURCE_EVALUATIONS = 100
_HEAD = """\
# Searches warmed by a run on other data, on recorded candidates

Rewritten by `python benchmarks/search/warm_start.py`. Hypervolume as a share of the box after so
many evaluations, our five baselines included; fronts are chosen by what was scored, and measured by
means. Warm: an earlier search of 100 evaluations of the same network (MobileNetV2) on the other
data set. Means over {seeds} searches, 95 % t intervals; the ratio's is Welch's. Memory is priced in
the present world, so only what accuracies say of each other passes over.

| earlier run | search | evaluations | cold | warm | warm over cold |
| :--- | :--- | ---: | ---: | ---: | ---: |"""


def main() -> None:
    """Run all searches and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    worlds = {name: interpolated_world(name) for name in STUDIES}
    lines = [_HEAD.format(seeds=seeds)]
    for target, (world, evaluator) in worlds.items():
        (source,) = (name for name in STUDIES if name != target)
        reached: dict[bool, list[Floats]] = {False: [], True: []}
        for seed in range(seeds):
            _, earlier = _search(*worlds[source], seed=seed, evaluations=SOURCE_EVALUATIONS)
            priced = [
                (text, world.peak_bytes(_kept(world, text)), accuracy)
                for text, _, accuracy in earlier
            ]
            for warm in (False, True):
                points, _ = _search(
                    world,
                    evaluator,
                    seed=seed,
                    evaluations=max(COUNTS),
                    earlier=[priced] if warm else [],
                )
                reached[warm].append(history(world, points))
        for count in COUNTS:
            cold, hot = (np.array([one[count - 1] for one in reached[warm]]) for warm in (0, 1))
            low, high = ratio_interval(hot.tolist(), cold.tolist()) or (math.nan, math.nan)
            line = (
                f"| {source} | {target} | {count} | {with_interval(cold)} | {with_interval(hot)} "
                f"| {hot.mean() / cold.mean():.3f} ({low:.3f} to {high:.3f}) |"
            )
            print(line, flush=True)
            lines.append(line)
    (HERE / "warm_start.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _kept(world: World, text: str) -> tuple[int, ...]:
    return Candidate.from_json(text).kept(world.space.choices)


def _search(
    world: World,
    evaluator: InterpolatedEvaluator,
    *,
    seed: int,
    evaluations: int,
    earlier: Sequence[Sequence[Row]] = (),
) -> tuple[list[Point], list[Row]]:
    """Search one world; return its points in order, and the rows that warm another search."""
    study = study_of(world, seed=seed, evaluations=evaluations, changed={})
    session = session_of(world, study, evaluator)
    evaluated = Evaluated(world.space, chance=1 / world.classes, earlier=earlier)
    session = replace(session, evaluated=evaluated)
    baselines = score_baselines(session)
    seed_trials(session, baselines)
    sample(session, deadline=None)
    rows: list[Row] = [
        (one.candidate.canonical_json(), one.peak_bytes, one.accuracy) for one in baselines
    ]
    known = {text for text, _, _ in rows}
    for trial in session.archive.get_trials(states=(TrialState.COMPLETE,)):
        text = trial.user_attrs[CANDIDATE]
        if text not in known:
            rows.append((text, trial.user_attrs[PEAK_BYTES], trial.user_attrs[ACCURACY]))
    points = [
        Point(peak_bytes, accuracy, 0.0, evaluator.mean(_kept(world, text)))
        for text, peak_bytes, accuracy in rows
    ]
    return points, rows


if __name__ == "__main__":
    main()
