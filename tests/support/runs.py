"""Made-up runs: records such as a search leaves, without training anything."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.candidate import Candidate
from dse.config import (
    DataConfig,
    NetworkConfig,
    ProxyConfig,
    SearchConfig,
    SpaceConfig,
    Study,
    TrainingConfig,
)
from dse.data.summary import DataSummary, PartSummary
from dse.results.candidate_records import BaselineRecord, FinalRecord, TrialRecord, TrialState
from dse.results.records import RunRecords

MIB = 2**20
Groups = tuple[tuple[str, int], ...]
Peak = Callable[[Sequence[int]], int]

GROUPS: Groups = (
    ("stem", 32),
    *((f"features.{n}.conv.{part}", 16 * n) for n in range(1, 6) for part in ("0.0", "2")),
)


def make_study(
    *,
    name: str = "digits",
    budgets: tuple[int, ...] = (24 * MIB, 48 * MIB),
    objectives: tuple[str, ...] = ("accuracy", "peak_bytes"),
    network: str = "torchvision:mobilenet_v2",
) -> Study:
    return Study(
        name=name,
        description="A made-up run.",
        source_dir=Path("/nowhere"),
        network=NetworkConfig(name=network),
        data=DataConfig(name="digits", labels=("5", "6", "7", "8", "9")),
        space=SpaceConfig(ratio=(0.0, 0.9), multiple=8, floor=8),
        training=TrainingConfig(),
        proxy=ProxyConfig(),
        search=SearchConfig(budgets=budgets, objectives=objectives),
    )


def candidate_of(groups: Groups, kept: Sequence[int]) -> Candidate:
    pairs = zip(groups, kept, strict=True)
    return Candidate(channels={name: count for (name, full), count in pairs if count < full})


def simple_peak(groups: Groups, *, whole_bytes: int = 64 * MIB) -> Peak:
    """Peaks that fall with the kept channels, early groups weighing most."""
    weights = np.linspace(2, 1, len(groups)) if groups else np.ones(0)
    full = float(sum(w * channels for w, (_, channels) in zip(weights, groups, strict=True)))

    def peak(kept: Sequence[int]) -> int:
        share = float(np.dot(weights, kept)) / full if groups else 1.0
        return round(whole_bytes * (0.08 + 0.92 * share))

    return peak


@dataclass(frozen=True, kw_only=True)
class World:
    """What a made-up run would measure: pruning costs accuracy, the more the more is pruned."""

    study: Study
    groups: Groups
    peak: Peak

    @property
    def full(self) -> NDArray[np.int64]:
        return np.array([channels for _, channels in self.groups], dtype=np.int64)

    def kept(self, ratios: ArrayLike) -> list[int]:
        kept: list[int] = (
            np.maximum(1, np.floor(self.full * (1 - np.asarray(ratios)))).astype(int).tolist()
        )
        return kept

    def accuracy(self, kept: Sequence[int], *, luck: float) -> float:
        share = float(np.mean(np.asarray(kept) / self.full)) if self.groups else 1.0
        return float(np.clip(0.98 - 0.5 * (1 - share) ** 3 - luck, 0.0, 1.0))

    def values(self, accuracy: float, kept: Sequence[int]) -> dict[str, float]:
        known = {
            "accuracy": accuracy,
            "peak_bytes": float(self.peak(kept)),
            "inference_peak_bytes": self.peak(kept) / 8,
            "parameters": float(1000 + 37 * sum(kept)),
            "macs_forward": float(10_000 + 991 * sum(kept)),
        }
        return {name: known[name] for name in self.study.search.objectives}


def make_records(
    *,
    trials: int = 40,
    seed: int = 0,
    study: Study | None = None,
    groups: Groups = GROUPS,
    peak: Peak | None = None,
    baselines: bool = True,
    finals: int = 5,
    seeds: int = 3,
    images: Mapping[str, int] | None = None,
) -> RunRecords:
    """Make a run; `images` are those of each class in the validation part, as many in the others.

    Trials over the largest budget are infeasible, every eleventh is a duplicate, every
    seventeenth failed.
    """
    rng = np.random.default_rng(seed)
    world = World(study=study or make_study(), groups=groups, peak=peak or simple_peak(groups))
    found = tuple(_trial(world, number, rng) for number in range(trials))
    scored = _baselines(world) if baselines else ()
    return RunRecords(
        folder=Path("runs") / world.study.name,
        study=world.study,
        groups=groups,
        reference=world.values(0.2, world.full.tolist()),
        trials=found,
        baselines=scored,
        finals=_finals(found, scored, most=finals, seeds=seeds, rng=rng, images=images),
        classes=5 if images is None else len(images),
        unpruned_peak_bytes=world.peak(world.full.tolist()),
        smallest_peak_bytes=world.peak(world.kept(0.9)),
        data=None if images is None else summary_of(images),
    )


def summary_of(images: Mapping[str, int]) -> DataSummary:
    """What is known of made-up data with so many images of each class in every part."""
    counts = tuple(images.values())
    return DataSummary(
        name="made up",
        labels=tuple(images),
        classes=len(images),
        parts=tuple(
            PartSummary(name=name, origin="made up", per_label=counts)
            for name in ("train", "selection", "validation")
        ),
    )


def _trial(world: World, number: int, rng: np.random.Generator) -> TrialRecord:
    centre = rng.uniform(0.05, 0.95)
    ratios = np.clip(rng.normal(centre, 0.15, len(world.groups)), 0, 0.9)
    kept = world.kept(ratios)
    accuracy = world.accuracy(kept, luck=float(rng.uniform(0, 0.06)))
    state: TrialState = "complete"
    if world.peak(kept) > max(world.study.search.budget_bytes):
        state = "infeasible"
    elif number % 11 == 10:
        state = "duplicate"
    elif number % 17 == 16:
        state = "failed"
    params = {
        f"ratio:{name}": float(ratio) for (name, _), ratio in zip(world.groups, ratios, strict=True)
    }
    trial = TrialRecord(
        number=number,
        state=state,
        params=params,
        candidate=candidate_of(world.groups, kept),
        peak_bytes=world.peak(kept),
        accuracy=accuracy,
        values=world.values(accuracy, kept),
        wall_seconds=0.01,
        duplicate_of=0 if state == "duplicate" else None,
    )
    if state != "complete":
        return replace(trial, accuracy=None, values={})
    return replace(trial, wall_seconds=3.5, seeds=(1000 + number,), fidelity="short")


def _baselines(world: World) -> tuple[BaselineRecord, ...]:
    scored = []
    for ratio in (0.0, *world.study.search.uniform_baselines):
        kept = world.kept(ratio)
        accuracy = world.accuracy(kept, luck=0.05)
        scored.append(
            BaselineRecord(
                label=f"uniform {ratio:.2f}" if ratio else "unpruned",
                kind="uniform" if ratio else "unpruned",
                ratio=ratio,
                candidate=candidate_of(world.groups, kept),
                peak_bytes=world.peak(kept),
                accuracy=accuracy,
                values=world.values(accuracy, kept),
            )
        )
    return tuple(scored)


def _finals(
    trials: Sequence[TrialRecord],
    baselines: Sequence[BaselineRecord],
    *,
    most: int,
    seeds: int,
    rng: np.random.Generator,
    images: Mapping[str, int] | None,
) -> tuple[FinalRecord, ...]:
    """Some of the front, and the unpruned network; by peak memory."""
    front: list[TrialRecord] = []
    for trial in sorted(trials, key=lambda trial: trial.peak_bytes):
        if (trial.accuracy or 0) > (front[-1].accuracy or 0 if front else 0):
            front.append(trial)
    if not most:
        return ()
    chosen: list[TrialRecord | BaselineRecord] = [*front[:: max(1, len(front) // most)][:most]]
    counts = [] if images is None else list(images.values())
    finals = [_final(one, seeds=seeds, rng=rng, counts=counts) for one in [*chosen, *baselines[:1]]]
    return tuple(sorted(finals, key=lambda final: final.peak_bytes))


def _final(
    one: TrialRecord | BaselineRecord,
    *,
    seeds: int,
    rng: np.random.Generator,
    counts: Sequence[int],
) -> FinalRecord:
    mean = min((one.accuracy or 0) + 0.015, 0.99)
    selection = np.clip(rng.normal(mean, 0.004, seeds), 0, 1)
    validation = np.clip(rng.normal(mean - 0.004, 0.005, seeds), 0, 1)
    trial = one.number if isinstance(one, TrialRecord) else None
    return FinalRecord(
        label=one.label if isinstance(one, BaselineRecord) else f"trial {one.number}",
        trial=trial,
        candidate=one.candidate,
        peak_bytes=one.peak_bytes,
        accuracies=tuple(selection.tolist()),
        validation_accuracies=tuple(validation.tolist()),
        step_seconds=0.05 + one.peak_bytes / (400 * MIB),
        seeds=tuple(range(seeds)),
        validation_correct=tuple(
            # The last class is never right.
            (*(round(count * share) for count in counts[:-1]), 0)
            for share in validation.tolist()
        )
        if counts
        else (),
    )
