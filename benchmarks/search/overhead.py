"""What share of a run is not training? A whole run of the default sampler, without the training.

    python benchmarks/search/overhead.py [--trials 500]

Carries out the digits study as `dse run` does, SQLite and all, with a table in place of training,
in CPU seconds of this one process, and sets them against the CPU seconds that trainings took where
they were recorded, the mean of digits.csv. Writes `overhead_share` into summary.json.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from interpolated import InterpolatedEvaluator, Interpolation
from methods import resolved, study_of
from recorded import HERE, read, table_of
from summary import read_summary, write_summary
from world import load_world

from dse.candidate import Candidate
from dse.finetune.evaluation import Evaluation, Fidelity
from dse.search.progress import Silent
from dse.search.study import carry_out


@dataclass(eq=False)
class Timed:
    """Leaves out the time of the table itself."""

    inner: InterpolatedEvaluator
    seconds: float = 0.0

    def evaluate(self, candidate: Candidate, *, fidelity: Fidelity, **others: object) -> Evaluation:
        """Look a candidate up."""
        started = time.process_time()
        evaluation = self.inner.evaluate(candidate, fidelity=fidelity, **others)
        self.seconds += time.process_time() - started
        return evaluation


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    arguments = parser.parse_args()
    world = load_world()
    rows = read(table_of("digits"), world)
    evaluator = Timed(InterpolatedEvaluator(Interpolation(world, rows, 0.02), 896, 661))
    baselines = 1 + len(world.study.search.uniform_baselines)
    study = study_of(world, seed=0, evaluations=arguments.trials + baselines, changed={})
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        records = carry_out(
            study,
            out=Path(folder) / "run",
            storage=None,
            observer=Silent(),
            resolve=lambda study, _folder, _file: resolved(world, study, evaluator),
        )
        spent = time.process_time() - started - evaluator.seconds
    count = sum(trial.baseline is None for trial in records.complete)
    training = float(np.mean([row.cpu_seconds for row in rows])) * count
    share = spent / (spent + training)
    print(f"{count} trials: {spent:.1f} s beside {training:.0f} s of training, {100 * share:.1f} %")
    summary = read_summary(HERE)
    summary["overhead_share"] = {
        "value": round(share, 4),
        "interval": None,
        "seeds": 1,
        "how": f"{count} trials of the default sampler with SQLite, {spent / count:.3f} CPU s each "
        f"beside {training / count:.2f} CPU s of a mean recorded training at fidelity short; "
        "python benchmarks/search/overhead.py",
    }
    write_summary(HERE, summary)


if __name__ == "__main__":
    main()
