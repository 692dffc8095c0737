"""What share of a run is not training? A whole run of the default sampler, without the training.

    python benchmarks/search/overhead.py [--trials 500] [--trainings 24]

Carries out the digits study as `dse run` does, SQLite and all, with a table in place of training,
and sets its wall seconds against those of as many trainings: some of digits.csv, evenly spread over
it, are trained again with the study's own number of threads, and what one takes on average follows
from the CPU seconds that all took where they were recorded. Writes `overhead_share` into
summary.json. Needs an idle machine.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from interpolated import InterpolatedEvaluator, Interpolation
from methods import resolved, study_of
from recorded import HERE, Row, read, table_of
from summary import read_summary, write_summary
from world import Evaluators, World, load_world

from dse.candidate import Candidate
from dse.config import Study
from dse.finetune.evaluation import Evaluation
from dse.names import Fidelity
from dse.search.progress import Silent
from dse.search.study import carry_out


@dataclass(eq=False)
class Timed:
    """Leaves out the time of the table itself."""

    inner: InterpolatedEvaluator
    seconds: float = 0.0

    def under(self, _study: Study) -> "Timed":
        """Recipes are what they were when the table was recorded."""
        return self

    def evaluate(self, candidate: Candidate, *, fidelity: Fidelity, **others: object) -> Evaluation:
        """Look a candidate up."""
        started = time.perf_counter()
        evaluation = self.inner.evaluate(candidate, fidelity=fidelity, **others)
        self.seconds += time.perf_counter() - started
        return evaluation


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--trainings", type=int, default=24)
    arguments = parser.parse_args()
    world = load_world(overrides=["training.threads=0"])
    rows = read(table_of("digits"), world)
    evaluator = Timed(InterpolatedEvaluator(Interpolation(world, rows, 0.02), 896, 661))
    baselines = 1 + len(world.study.search.uniform_baselines)
    study = study_of(world, seed=0, evaluations=arguments.trials + baselines, changed={})
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        records = carry_out(
            study,
            out=Path(folder) / "run",
            storage=None,
            observer=Silent(),
            resolve=lambda study, _folder, _file: resolved(world, study, evaluator),
        )
        spent = time.perf_counter() - started - evaluator.seconds
    count = sum(trial.baseline is None for trial in records.complete)
    training = count * training_seconds(world, rows, arguments.trainings)
    share = spent / (spent + training)
    print(f"{count} trials: {spent:.1f} s beside {training:.0f} s of training, {100 * share:.1f} %")
    summary = read_summary(HERE)
    summary["overhead_share"] = {
        "value": round(share, 4),
        "interval": None,
        "seeds": 1,
        "how": f"{count} trials of the default sampler with SQLite, {spent / count:.3f} s of wall "
        f"time each beside {training / count:.2f} s of training at fidelity short, both on "
        f"{os.cpu_count()} cores, {arguments.trainings} trainings measured; "
        "python benchmarks/search/overhead.py",
    }
    write_summary(HERE, summary)


def training_seconds(world: World, rows: Sequence[Row], trainings: int) -> float:
    """Measure what one training takes on average with all cores, in wall seconds."""
    proxy = Evaluators(world).proxy
    some = rows[:: max(1, len(rows) // trainings)][:trainings]
    proxy.evaluate(world.candidate(some[0].kept), fidelity="short")  # kernels are chosen here
    started = time.perf_counter()
    for row in some:
        proxy.evaluate(world.candidate(row.kept), fidelity="short")
    spent = time.perf_counter() - started
    recorded = np.mean([row.cpu_seconds for row in rows])
    return float(spent / sum(row.cpu_seconds for row in some) * recorded)


if __name__ == "__main__":
    main()
