"""The paper's rule with accuracy: memory saved against points lost, over five seeds.

    python benchmarks/paper_accuracy.py --out reports/paper \
        --set data.root=FOLDER --set recovery.root=FOLDER --set network.weights=FILE

Every training that ended is a line of a file in the run folder, so an interrupted run goes on where
it stopped. The tables are rewritten after each one.
"""

import argparse
import json
import logging
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy import stats

from dse.candidate import Candidate
from dse.config import Study, load_study, resolve_space
from dse.data import DataParts, load_data
from dse.finetune.pretrain import starting_network
from dse.finetune.proxy import Proxy
from dse.finetune.recovery import recovery_of
from dse.memory.model import MemoryModel
from dse.methods.greedy import Trajectory, limits_of, peak_greedy
from dse.networks import example_input
from dse.pruning.groups import find_groups

POINTS = ((0.65, 0.59), (0.75, 0.68))  # shares of peak activation and of the whole peak to save


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table: what is trained, and how."""

    label: str
    candidate: Candidate
    recovered: bool
    activation_reduction: float
    total_reduction: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All that the trainings share."""

    study: Study
    data: DataParts
    model: MemoryModel
    trajectory: Trajectory
    proxies: dict[bool, Proxy]  # by whether pruned networks are recovered
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
    recovering = Proxy(
        study=study,
        network=network,
        data=data,
        groups=groups,
        recovery=recovery_of(study, groups=groups),
    )
    plain = replace(recovering, recovery=None)
    # Judging channels takes a while, and comes to the same.
    plain.__dict__["importance"] = recovering.importance
    return Bench(
        study=study,
        data=data,
        model=model,
        trajectory=peak_greedy(model, batch_size=training.batch_size, limits=limits),
        proxies={True: recovering, False: plain},
        ledger=run / "trainings.jsonl",
    )


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
        recovered=False,
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
        for recovered in (True, False):
            yield Variant(
                label=f"peak-greedy {100 * activation:.0f}/{100 * total:.0f}"
                + (", recovered" if recovered else ""),
                candidate=Candidate.from_kept(bench.model.groups, kept.tolist()),
                recovered=recovered,
                activation_reduction=saved[0],
                total_reduction=saved[1],
            )


def trainings(bench: Bench) -> dict[str, dict[str, Any]]:
    """Read the ledger."""
    if not bench.ledger.exists():
        return {}
    lines = bench.ledger.read_text(encoding="utf-8").splitlines()
    return {one["key"]: one for one in map(json.loads, lines)}


def key_of(bench: Bench, variant: Variant, seed_index: int) -> str:
    """Names one training by all that it depends on."""
    study = bench.study if variant.recovered else bench.study.model_copy(update={"recovery": None})
    return f"{study.meaning_digest}:{variant.candidate.digest}:{seed_index}"


def train(bench: Bench, variant: Variant, seed_index: int) -> None:
    """Train one variant with one seed, and write it down."""
    evaluation = bench.proxies[variant.recovered].evaluate(
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
    parser.add_argument("--run", type=Path, default=Path("runs/paper_accuracy"))
    parser.add_argument("--only", default="", help="Variants whose label begins so.")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    study = load_study(given.study, overrides=given.overrides)
    bench = prepare(study, given.run)
    rows = list(variants(bench))
    for row in rows:
        print(
            f"{row.label}: -{row.activation_reduction:.2%} activation, -{row.total_reduction:.2%} "
            f"total, {row.candidate.canonical_json()}",
            flush=True,
        )
    for seed_index in range(study.proxy.full_seeds):
        for row in rows:
            if row.label.startswith(given.only) and key_of(bench, row, seed_index) not in trainings(
                bench
            ):
                train(bench, row, seed_index)


if __name__ == "__main__":
    main()
