"""The paper's rule with accuracy: memory saved against points lost, over five seeds.

    python benchmarks/paper_accuracy.py --out reports/paper \
        --set data.root=FOLDER --set recovery.root=FOLDER --set network.weights=FILE \
        [--search RUN]

With --search, the finalists of a run of studies/paper/cifar4_search.toml stand beside the rule, at
the same memory and over the same number of seeds. Every training that ended is a line of a file in
the run folder, so an interrupted run goes on where it stopped. The tables are rewritten after each.
"""

import argparse
import json
import logging
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from scipy import stats

from dse.candidate import Candidate
from dse.config import Study, load_study, resolve_space
from dse.data import DataParts, load_data
from dse.engines.engine import study_plan
from dse.finetune.pretrain import starting_network
from dse.finetune.proxy import Proxy
from dse.finetune.pruner import Pruner
from dse.finetune.recovery import recovery_of
from dse.memory.model import MemoryModel
from dse.methods.greedy import Trajectory, limits_of, peak_greedy
from dse.networks.examples import example_input
from dse.pruning.groups import find_groups
from dse.search.load import load_run

OUT = Path(__file__).parents[1] / "reports" / "paper"
POINTS = ((0.65, 0.59), (0.75, 0.68))  # shares of peak activation and of the whole peak to save


Mode = Literal["plain", "fitted", "recovered"]
TITLES: dict[Mode, str] = {
    "plain": "",
    "fitted": ", least squares",
    "recovered": ", recovered",
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table: what is trained, and how."""

    label: str
    candidate: Candidate
    mode: Mode
    activation_reduction: float
    total_reduction: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All that the trainings share."""

    study: Study
    data: DataParts
    model: MemoryModel
    trajectory: Trajectory
    proxies: dict[Mode, Proxy]
    ledger: Path


def prepare(study: Study, run: Path) -> Bench:
    """Read data and network, and follow the rule to its end."""
    data = load_data(study.data, seed=study.seed)
    network = starting_network(study, classes=data.classes)
    example = example_input(2, study.data.image_size)
    groups = find_groups(network, example)
    training = study.training
    model = MemoryModel.compile(
        network,
        example,
        scheme=training.scheme,
        optimizer=training.optimizer,
        weight_decay=training.weight_decay,
        nesterov=training.nesterov,
        memory_format=training.memory_format,
        groups=groups,
    )
    limits = limits_of(resolve_space(study.space, groups))
    run.mkdir(parents=True, exist_ok=True)
    recovering = Pruner(
        study=study,
        network=network,
        data=data,
        groups=groups,
        recovery=recovery_of(study, groups=groups),
    )
    plain = replace(recovering, recovery=None, study=changed(study, recovery=None))
    own = study.proxy.model_copy(update={"reconstruct": True})
    fitting = replace(plain, study=changed(plain.study, proxy=own))
    return Bench(
        study=study,
        data=data,
        model=model,
        trajectory=peak_greedy(model, batch_size=training.batch_size, limits=limits),
        proxies={
            "plain": Proxy(pruner=plain, make_plan=study_plan),
            "fitted": Proxy(pruner=fitting, make_plan=study_plan),
            "recovered": Proxy(pruner=recovering, make_plan=study_plan),
        },
        ledger=run / "trainings.jsonl",
    )


def changed(study: Study, **tables: Any) -> Study:
    """The study with other tables."""
    return study.model_copy(update=tables)


def reductions(bench: Bench, channels: Any) -> tuple[float, float]:
    """Shares saved of peak activation and of the whole peak."""
    size = bench.study.training.batch_size
    full = [group.channels for group in bench.model.groups]
    whole, own = (bench.model.breakdown(kept, batch_size=size) for kept in (full, channels))
    return (
        1 - own.peak_activation_bytes / whole.peak_activation_bytes,
        1 - own.peak_bytes / whole.peak_bytes,
    )


def variants(bench: Bench) -> Iterator[Variant]:
    """The unpruned network, and the rule's first networks that save enough."""
    yield Variant(
        label="unpruned",
        candidate=Candidate(),
        mode="plain",
        activation_reduction=0.0,
        total_reduction=0.0,
    )
    for activation, total in POINTS:
        for index in bench.trajectory.corners:
            kept = bench.trajectory.channels[index]
            saved = reductions(bench, kept)
            if saved[0] >= activation and saved[1] >= total:
                break
        else:
            raise SystemExit(f"the rule never saves {activation:.0%} and {total:.0%}")
        for mode, title in TITLES.items():
            yield Variant(
                label=f"peak-greedy {100 * activation:.0f}/{100 * total:.0f}{title}",
                candidate=Candidate.from_kept(bench.model.groups, kept.tolist()),
                mode=mode,
                activation_reduction=saved[0],
                total_reduction=saved[1],
            )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search chose at the memory of one of the points.

    Attributes:
        reference: the unpruned network's validation accuracies in the same run, one a seed.
        scores: its own, in the order of the same seeds.
        trials: that the search trained.
        matched: the rule's own network under the recipe that the search chose.
    """

    variant: Variant
    matched: Variant
    reference: tuple[float, ...]
    scores: tuple[float, ...]
    trials: int


def searched(bench: Bench, folder: Path | None) -> Iterator[Found]:
    """For each point, the finalist that does best on the selection part and saves enough."""
    if folder is None:
        return
    records = load_run(folder)
    if records.unpruned is None:
        raise SystemExit(f"{folder} has not scored the unpruned network")
    whole = records.final_of(records.unpruned.candidate)
    if whole is None:
        raise SystemExit(f"{folder} has no finalists yet")
    for activation, total in POINTS:
        name = f"{100 * activation:.0f}/{100 * total:.0f}"
        rule = next(row for row in variants(bench) if row.label == f"peak-greedy {name}")
        limit = records_peak(bench, rule.candidate)
        fitting = [
            final
            for final in records.finals
            if final.trial is not None
            and final.peak_bytes <= limit
            and reductions(bench, final.candidate.kept(bench.model.groups))[0] >= activation
        ]
        if not fitting:
            print(f"no finalist of {folder} saves {name}", flush=True)
            continue
        best = max(fitting, key=lambda one: one.accuracy)
        saved = reductions(bench, best.candidate.kept(bench.model.groups))
        yield Found(
            variant=Variant(
                label=f"search {name} ({best.candidate.recipe_text or 'the same recipe'})",
                candidate=best.candidate,
                mode="fitted" if best.candidate.reconstruct else "plain",
                activation_reduction=saved[0],
                total_reduction=saved[1],
            ),
            matched=replace(
                rule,
                label=f"{rule.label}, {best.candidate.recipe_text or 'the same recipe'}",
                candidate=best.candidate.model_copy(update={"channels": rule.candidate.channels}),
            ),
            reference=whole.validation_accuracies,
            scores=best.validation_accuracies,
            trials=len(records.complete),
        )


def records_peak(bench: Bench, candidate: Candidate) -> int:
    """Predicted peak of a candidate's step."""
    kept = candidate.kept(bench.model.groups)
    return int(bench.model.peaks(kept, batch_size=bench.study.training.batch_size))


def trainings(bench: Bench) -> dict[str, dict[str, Any]]:
    """Read the ledger."""
    if not bench.ledger.exists():
        return {}
    lines = bench.ledger.read_text(encoding="utf-8").splitlines()
    return {one["key"]: one for one in map(json.loads, lines)}


def key_of(bench: Bench, variant: Variant, seed_index: int) -> str:
    """Names one training by all that it depends on."""
    study = bench.proxies[variant.mode].study
    return f"{study.meaning_digest}:{variant.candidate.digest}:{seed_index}"


def train(bench: Bench, variant: Variant, seed_index: int) -> None:
    """Train one variant with one seed, and write it down."""
    # Judging channels takes a while, and comes to the same in every mode.
    proxy = replace(bench.proxies[variant.mode], scores=bench.proxies["plain"].importance)
    evaluation = proxy.evaluate(
        variant.candidate, fidelity="full", seed_index=seed_index, read_validation=True
    )
    line = {
        "key": key_of(bench, variant, seed_index),
        "label": variant.label,
        "seed_index": seed_index,
        **evaluation.to_json(),
    }
    with bench.ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    accuracy = evaluation.validation_accuracy or 0.0
    print(f"{variant.label}, seed {seed_index}: {accuracy:.4f}", flush=True)


def write(bench: Bench, rows: list[Variant], out: Path, found_by_search: list[Found]) -> None:
    """Write the table and the summary of what is trained so far."""
    done = trainings(bench)
    scored = {
        row.label: [
            done[key]["validation_accuracy"]
            for seed_index in range(bench.study.proxy.full_seeds)
            if (key := key_of(bench, row, seed_index)) in done
        ]
        for row in rows
    }
    reference = scored["unpruned"]
    lines, entries = [], []
    for row in rows:
        found = scored[row.label]
        if not found or not reference:
            continue
        paired = [100 * (a - b) for a, b in zip(reference, found, strict=False)]
        lines.append(
            f"| {row.label} | {-100 * row.activation_reduction:z.1f} % | "
            f"{-100 * row.total_reduction:z.1f} % | {spread([100 * one for one in found])} | "
            f"{spread(paired) if row.candidate.channels else ''} | {len(found)} |"
        )
        if row.candidate.channels:
            entries.append(entry(bench, row, reference, found))
    for one in found_by_search:
        row = one.variant
        paired = [100 * (a - b) for a, b in zip(one.reference, one.scores, strict=True)]
        lines.append(
            f"| {row.label} | {-100 * row.activation_reduction:z.1f} % | "
            f"{-100 * row.total_reduction:z.1f} % | {spread([100 * a for a in one.scores])} | "
            f"{spread(paired)} | {len(paired)} |"
        )
        entries.append(
            {
                **entry(bench, row, list(one.reference), list(one.scores)),
                "chosen_by": "search",
                "trials": one.trials,
            }
        )
    out.mkdir(parents=True, exist_ok=True)
    study = bench.study
    recovery = study.recovery
    text = TEXT.format(
        data=len(bench.data.train),
        selection=len(bench.data.selection),
        validation=len(bench.data.validation),
        scheme=study.training.scheme,
        batch=study.training.batch_size,
        image=study.data.image_size,
        rate=study.training.learning_rate,
        epochs=study.proxy.full_epochs,
        importance=study.proxy.importance,
        recovery="none" if recovery is None else f"{recovery.aim}, {recovery.epochs:g} epochs",
        table="\n".join(lines),
        wanted=study.proxy.full_seeds,
    )
    (out / "accuracy.md").write_text(text, encoding="utf-8")
    summary = json.dumps({"version": 1, "results": entries}, indent=2) + "\n"
    (out / "summary.json").write_text(summary, encoding="utf-8")


def entry(bench: Bench, row: Variant, reference: list[float], found: list[float]) -> dict[str, Any]:
    """One result of the summary: shares as fractions, the drop in points."""
    pairs = list(zip(reference, found, strict=False))
    drops = [100 * (whole - own) for whole, own in pairs]
    half = interval(drops)
    return {
        "label": row.label,
        "chosen_by": "peak-greedy",
        "recovered": row.mode == "recovered",
        "reconstructed": row.mode == "fitted" or row.candidate.reconstruct is True,
        "candidate": json.loads(row.candidate.canonical_json()),
        "scheme": bench.study.training.scheme,
        "batch_size": bench.study.training.batch_size,
        "image_size": bench.study.data.image_size,
        "peak_activation_reduction": row.activation_reduction,
        "total_reduction": row.total_reduction,
        "accuracy_unpruned": statistics.fmean(whole for whole, _ in pairs),
        "accuracy": statistics.fmean(own for _, own in pairs),
        "accuracy_drop": statistics.fmean(drops),
        "interval": None if math.isnan(half) else half,
        "seeds": len(pairs),
        "convention": "tensors",
    }


def spread(values: list[float]) -> str:
    """A mean and its 95 % interval."""
    half = interval(values)
    mean = f"{statistics.fmean(values):.2f}"
    return mean if math.isnan(half) else f"{mean} ± {half:.2f}"


def interval(values: list[float]) -> float:
    """Half the width of the 95 % t interval of a mean."""
    if len(values) < 2:  # noqa: PLR2004  # no spread
        return float("nan")
    error = statistics.stdev(values) / len(values) ** 0.5
    return float(stats.t.ppf(0.975, len(values) - 1)) * error


def main() -> None:
    """Train what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", default="studies/paper/cifar4.toml")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--run", type=Path, default=Path("runs/paper_accuracy"))
    parser.add_argument("--search", type=Path, help="A run of studies/paper/cifar4_search.toml.")
    parser.add_argument("--only", default="", help="Variants whose label begins so.")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    study = load_study(given.study, overrides=given.overrides)
    bench = prepare(study, given.run)
    rows = list(variants(bench))
    for row in rows:
        print(
            f"{row.label}: {-row.activation_reduction:z.2%} activation, "
            f"{-row.total_reduction:z.2%} total, {row.candidate.canonical_json()}",
            flush=True,
        )
    chosen = list(searched(bench, given.search))
    known_labels = {row.label for row in rows}  # the search may choose the study's own recipe
    rows += [one.matched for one in chosen if one.matched.label not in known_labels]
    write(bench, rows, given.out, chosen)
    for seed_index in range(study.proxy.full_seeds):
        for row in rows:
            known = key_of(bench, row, seed_index) in trainings(bench)
            if row.label.startswith(given.only) and not known:
                train(bench, row, seed_index)
                write(bench, rows, given.out, chosen)


TEXT = """# The paper's rule with accuracy

Written by `python benchmarks/paper_accuracy.py`, images and weights given by `--set`; so far or in
full, as the last column says ({wanted} seeds are meant).

MobileNetV2, trained on six classes of CIFAR-10 and transferred to the four others ({data} images to
train, {selection} to choose the recipe by, {validation} to score), {image}x{image}, batch {batch},
scheme `{scheme}`: a frozen backbone. One recipe for all rows, chosen on the unpruned network: SGD
with momentum, one cycle to a rate of {rate:g}, {epochs:g} epochs. The unpruned
network keeps its own statistics of batch norm; a pruned one takes, where pruning changed a norm's
input, its own, recomputed ones or the mean of both, whichever other training images say is better.
Channels are ranked by importance `{importance}`, which a first comparison of all criteria on the
validation images had put first. Batch and image size are fixed; no accumulation, no checkpointing.

Rows with *least squares* fit the layers that read pruned channels to what the unpruned network
gave, on 512 of the target's training images: no gradients, no labels, no source images. *Recovered*
rows were trained off the device between pruning and fine-tuning, on images of the six source
classes alone ({recovery}; `imitate` uses no labels). *Search* rows are of a run of
studies/paper/cifar4_search.toml: at the rule's memory, the finalist that does best on the selection
part; pruning ratios, criterion and least squares are what it may choose, without recovery. Its loss
is against the unpruned network trained in the same run. Rows of the rule *ranked by* something else
have the rule's own network under the recipe that the search chose: what is left between the two is
the ratios. `dse export RUN --trial N --out FOLDER` makes a bundle of any of them; all trials:
[search](search/report.md).

Memory is by the convention `tensors`, activation being input, saved and temporary buffers at the
peak. Points are of validation accuracy; intervals are 95 % t intervals over the seeds, those of the
loss of the paired differences.

| | activation | all | accuracy, % | points lost | seeds |
| --- | --- | --- | --- | --- | --- |
{table}
"""


if __name__ == "__main__":
    main()
