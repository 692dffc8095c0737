"""Does a finished run's front dominate the baselines whose recipes the search could have, in full?

    dse run digits --out RUN --set proxy.full_seeds=5 --set search.finalists=6 ...
    python benchmarks/search/dominance.py RUN
    dse run digits --out JOINT --set space.joint.auto=true ...
    python benchmarks/search/dominance.py JOINT

Fine-tunes each such baseline in full with as many seeds as the run's finalists had, and sets it
beside the finalist of no more memory that is most accurate on the selection part. Without a joint
space these are the baselines that keep batch and image size, and dominance.md is written; with one,
those that change them too, and dominance_joint.md is. Trainings are kept beside the run
(dominance.json), so that this goes on where it stopped.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch

from dse.results.candidate_records import BaselineRecord, FinalRecord
from dse.results.records import RunRecords
from dse.results.seeds import differ
from dse.search.load import load_run
from dse.search.resolve import resolve
from dse.search.run_folder import RunFolder
from dse.units import format_size

HERE = Path(__file__).parent


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    records = load_run(given.run)
    study = records.study
    torch.set_num_threads(study.training.threads or torch.get_num_threads())
    folder = RunFolder(given.run)
    proxy = resolve(study, folder, folder.read()).build_evaluator(lambda _share: None)
    kept = given.run / "dominance.json"
    known: dict[str, list[float]] = json.loads(kept.read_text()) if kept.exists() else {}
    lines = []
    for baseline in sorted(records.rivals, key=lambda one: -one.peak_bytes):
        if baseline.peak_bytes > max(study.search.budget_bytes):
            continue
        own = records.final_of(baseline.candidate)
        scores = known.setdefault(baseline.candidate.digest, [])
        if own is not None:  # a finalist itself, and never trained twice
            scores[:] = own.validation_accuracies
        for seed_index in range(len(scores), study.proxy.full_seeds):
            found = proxy.evaluate(
                baseline.candidate, fidelity="full", seed_index=seed_index, read_validation=True
            )
            scores.append(found.validation_accuracy or 0.0)
            kept.write_text(json.dumps(known))
        within = [one for one in records.finals if one.peak_bytes <= baseline.peak_bytes]
        best = max(within, key=lambda one: one.accuracy, default=None)
        lines.append(_line(baseline, scores, best))
        print(lines[-1], flush=True)
    text = (
        f"# The front against the baselines, in full{', recipes free' * bool(records.joint)}\n\n"
        f"Study {study.name}: {_trained(records)} trained candidates, sampler "
        f"{study.search.sampler}, {len(records.finals) - 1} finalists. Validation accuracy after "
        f"{study.proxy.full_epochs:g} epochs, mean ± standard deviation over "
        f"{study.proxy.full_seeds} seeds; beside each baseline {_competing(records)} "
        "and fits the largest budget, the finalist of no more memory that is most accurate on the "
        "selection part. Ahead or behind: Welch's t-test, 5 %; not tested where there are too few "
        "seeds. Written by `python "
        "benchmarks/search/dominance.py`.\n\n"
        "| baseline | peak | accuracy, % | finalist | peak | accuracy, % | the finalist is |\n"
        "| --- | ---: | ---: | --- | ---: | ---: | --- |\n" + "\n".join(lines) + "\n"
    )
    name = "dominance_joint.md" if records.joint else "dominance.md"
    (given.out / name).write_text(text, encoding="utf-8")


def _trained(records: RunRecords) -> int:
    return sum(trial.baseline is None for trial in records.complete)


def _competing(records: RunRecords) -> str:
    if not records.joint:
        return "that keeps batch and image size"
    free = ", ".join(
        f"{name} {'/'.join(map(str, values))}" for name, values in records.joint.items()
    )
    return f"whose recipe the search could have ({free})"


def _line(baseline: BaselineRecord, scores: list[float], best: FinalRecord | None) -> str:
    own = f"| {baseline.label} | {format_size(baseline.peak_bytes)} | {_spread(scores)} |"
    if best is None:
        return f"{own} none so small | | | |"
    ours = list(best.validation_accuracies)
    difference = statistics.fmean(ours) - statistics.fmean(scores)
    if best.candidate.digest == baseline.candidate.digest:
        verdict = "the same candidate"
    else:
        distinguished = differ(ours, scores)
        side = "ahead" if difference > 0 else "behind"
        word = {None: "not tested", False: "tied", True: side}[distinguished]
        verdict = f"{word} ({100 * difference:+z.1f})"
    recipe = best.candidate.recipe_text
    label = f"{best.label} ({recipe})" if recipe else best.label
    return f"{own} {label} | {format_size(best.peak_bytes)} | {_spread(ours)} | {verdict} |"


def _spread(values: list[float]) -> str:
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
