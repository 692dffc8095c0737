"""How a run grows: time to open it, to draw the next candidate and to report, by stored trials.

    python benchmarks/scale.py [--most 10000] [--study digits]

The network, its memory model, the storage and the default sampler are real; the accuracies are made
up, because nothing is trained. Writes scale.md and scale.png beside this file.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from dse.candidate import Candidate
from dse.config import Study, load_study
from dse.finetune.evaluation import Evaluation
from dse.results import trials as attributes
from dse.results.records import RunRecords
from dse.sampling.aim import scale_all
from dse.sampling.front_sampler import Evaluated, FrontSampler
from dse.sampling.propose import Proposer
from dse.sampling.samplers import mixed
from dse.search.aiming import Aiming
from dse.search.draws import DrawSampler
from dse.search.gate import CONSTRAINT
from dse.search.load import load_run
from dse.search.progress import Silent
from dse.search.resolve import Resolved, resolve
from dse.search.run_folder import RunFolder
from dse.search.run_models import run_models
from dse.search.storage import open_storage
from dse.search.study import carry_out

mpl.use("Agg")

from matplotlib import pyplot as plt  # after the backend

HERE = Path(__file__).parent
ASKS = 9
ROWS = ("open", "ask", "report")
MOST_SECONDS = {"open": 5.0, "ask": 0.1, "report": 30.0}


class MadeUp:
    """An evaluator whose accuracy follows from the peak, with noise of the candidate's own."""

    def __init__(self, predict: Callable[[Candidate], int]) -> None:
        self.predict = predict

    def under(self, _study: Study) -> "MadeUp":
        """Recipes change nothing."""
        return self

    def evaluate(
        self, candidate: Candidate, *, fidelity: str, seed_index: int = 0, **_others: object
    ) -> Evaluation:
        """Make an accuracy up."""
        accuracy = accuracy_of(self.predict(candidate), int(candidate.digest[:8], 16))
        return Evaluation(
            candidate_digest=candidate.digest,
            fidelity=fidelity,
            seed=seed_index,
            accuracy=accuracy,
            validation_accuracy=accuracy,
            loss=1 - accuracy,
            wall_seconds=1.0,
            step_seconds=0.01,
            images_trained=100,
            images_forward=100,
        )


def accuracy_of(peak_bytes: int, seed: int) -> float:
    """An accuracy that rises with the peak, and scatters by two points."""
    noise = np.random.default_rng(seed).normal(0.0, 0.02)
    return float(np.clip(0.9 - 0.4 / (1 + peak_bytes / 2**23) + noise, 0.0, 1.0))


def main() -> None:
    """Measure at some sizes, and write the page and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--study", default="digits")
    arguments = parser.parse_args()
    sizes = [one for one in (100, 300, 1000, 3000, 10_000) if one <= arguments.most]
    overrides = ["network.weights=none", "baselines.methods=[]", "reference.tune=false"]
    study = load_study(arguments.study, overrides=[*overrides, "search.trials=1"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        held: list[Resolved] = []
        carry_out(
            study, out=folder, storage=None, observer=Silent(), resolve=partial(stubbed, held)
        )
        rows = list(measured(study, folder, held[0], sizes))
    write(rows, study)


def stubbed(held: list[Resolved], study: Study, folder: RunFolder, file: object) -> Resolved:
    """Resolve a study, with made-up accuracies in place of training."""
    parts = resolve(study, folder, file)
    given = {**vars(parts), "preparation": None}
    given["build_evaluator"] = lambda _on_progress: MadeUp(parts.costs.peak_bytes)
    held.append(Resolved(**given))
    return held[0]


def measured(
    study: Study, folder: Path, parts: Resolved, sizes: list[int]
) -> Iterator[dict[str, float]]:
    """Add trials up to each size, and measure there."""
    file = RunFolder(folder).read()
    study = RunFolder(folder).resolved_study()
    aiming = Aiming(parts.space, parts.costs, study.search, study.seed)
    stored = 1
    for size in sizes:
        archive = opened(folder, file.study_name)
        add(archive, parts, study, size - stored)
        stored = size
        started = time.perf_counter()
        archive = opened(folder, file.study_name)
        archive.get_trials(deepcopy=False)
        found = {"trials": size, "open": time.perf_counter() - started}
        proposer = aiming.proposer(1 / parts.classes)
        evaluated = Evaluated(parts.space, chance=1 / parts.classes)

        archive.sampler = DrawSampler(partial(sampler_of, parts, aiming, proposer, evaluated))
        seconds = []
        for _ in range(ASKS):
            started = time.perf_counter()
            trial = archive.ask()
            parts.space.draw(trial)
            seconds.append(time.perf_counter() - started)
            archive.tell(trial, state=TrialState.FAIL)
        found |= {"first ask": seconds[0], "ask": statistics.median(seconds[1:])}
        started, cpu = time.perf_counter(), time.process_time()
        records = load_run(folder)
        found["load"] = time.perf_counter() - started
        report(records, folder)
        found["report"] = time.perf_counter() - started
        found["report cpu"] = time.process_time() - cpu
        found["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print({key: round(value, 3) for key, value in found.items()}, flush=True)
        yield found


def sampler_of(
    parts: Resolved, aiming: Aiming, proposer: Proposer, evaluated: Evaluated, draw: int
) -> FrontSampler:
    """Return the default sampler of one draw."""
    return FrontSampler(
        proposer,
        parts.space,
        target_bytes=aiming.target(draw),
        seed=mixed(aiming.seed, draw),
        evaluated=evaluated,
    )


def opened(folder: Path, name: str) -> optuna.Study:
    """Open the run's Optuna study anew, without what was cached."""
    storage = open_storage(RunFolder(folder).storage_url(RunFolder(folder).read(), given=None))
    return optuna.load_study(study_name=name, storage=storage)


def report(records: RunRecords, folder: Path) -> None:
    """Write the report."""
    from dse.report.content import report_content  # noqa: PLC0415  # a report's own time
    from dse.report.write import write_report  # noqa: PLC0415

    content = report_content(records, models=run_models(folder))
    write_report(content, out=folder.parent / "report")


def add(archive: optuna.Study, parts: Resolved, study: Study, count: int) -> None:
    """Store complete trials of scattered candidates over all peaks."""
    space, costs = parts.space, parts.costs
    rng = np.random.default_rng(count)
    widest = costs.peaks([ladder[-1] for ladder in space.ladders])
    smallest = costs.peaks([ladder[0] for ladder in space.ladders])
    aims = np.exp(rng.uniform(np.log(smallest), np.log(widest), count)).astype(np.int64)
    shares = np.exp(rng.normal(0.0, 0.4, (count, len(space.choices))))
    rows = scale_all(shares, ladders=space.ladders, peaks=costs.peaks, targets_bytes=aims)
    limit = max(study.search.budget_bytes)
    for kept in rows:
        candidate = Candidate.from_kept(space.choices, tuple(map(int, kept)))
        values = costs.of(candidate)
        peak = values["peak_bytes"]
        accuracy = accuracy_of(peak, int(candidate.digest[:8], 16))
        archive.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                params=space.parameters(tuple(map(int, kept)), recipe=0),
                distributions=space.distributions,
                values=[{**values, "accuracy": accuracy}[one] for one in study.search.objectives],
                constraints={CONSTRAINT: float(peak - limit)},
                user_attrs={
                    attributes.CANDIDATE: candidate.canonical_json(),
                    attributes.PEAK_BYTES: peak,
                    attributes.ACCURACY: accuracy,
                    attributes.LOSS: 1 - accuracy,
                    attributes.WALL_SECONDS: 1.0,
                    attributes.SEEDS: [0],
                    attributes.FIDELITY: "short",
                },
            )
        )


def write(rows: list[dict[str, float]], study: Study) -> None:
    """Write the table and the picture."""
    lines = [
        "# A run of thousands of trials",
        "",
        f"Study `{study.name}`: its network, memory model, SQLite storage and default sampler are",
        "real; accuracies are made up, and nothing is trained. Wall seconds of one run on",
        f"{os.cpu_count()} cores that were busy with other work; the median of {ASKS - 1} draws.",
        "",
        "| trials | open, s | next draw, s | first draw, s | load, report, s (CPU) | RSS, MiB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['trials']:,} | {row['open']:.2f} | {row['ask']:.3f} | {row['first ask']:.2f} "
        f"| {row['report']:.1f} ({row['report cpu']:.1f}) | {row['MiB']:.0f} |"
        for row in rows
    ]
    lines += ["", "![growth](scale.png)", "", "    python benchmarks/scale.py", ""]
    (HERE / "scale.md").write_text("\n".join(lines), encoding="utf-8")
    figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    sizes = [row["trials"] for row in rows]
    for name, marker in zip(ROWS, "osd", strict=True):
        (line,) = axes.loglog(sizes, [row[name] for row in rows], marker=marker, label=name)
        axes.axhline(MOST_SECONDS[name], color=line.get_color(), linestyle=":", linewidth=0.8)
    axes.set_xlabel("stored trials")
    axes.set_ylabel("seconds (dotted: the aim)")
    axes.legend()
    figure.savefig(HERE / "scale.png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
