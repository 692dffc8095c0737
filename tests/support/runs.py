"""Made-up runs: records such as a search leaves, without training anything."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dse.candidate import Candidate
from dse.config import (
    DataConfig,
    NetworkConfig,
    Objective,
    ProxyConfig,
    SearchConfig,
    SpaceConfig,
    Study,
    TrainingConfig,
)
from dse.search.records import (
    BaselineRecord,
    FinalRecord,
    RunRecords,
    TrialRecord,
    TrialState,
)

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
    objectives: tuple[Objective, ...] = ("accuracy", "peak_bytes"),
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


def make_records(  # noqa: C901  # one long list of what a run may hold
    *,
    trials: int = 40,
    seed: int = 0,
    study: Study | None = None,
    groups: Groups = GROUPS,
    peak: Peak | None = None,
    baselines: bool = True,
    finals: int = 5,
    seeds: int = 3,
) -> RunRecords:
    """Make a run in which pruning costs accuracy, the more the more is pruned.

    Trials over the largest budget are infeasible, every eleventh is a duplicate, every
    seventeenth failed.
    """
    rng = np.random.default_rng(seed)
    study = study or make_study()
    peak = peak or simple_peak(groups)
    full = np.array([channels for _, channels in groups])
    whole = peak(full.tolist())
    limit = max(study.search.budgets, default=whole)

    def accuracy(kept: Sequence[int], *, luck: float) -> float:
        share = float(np.mean(np.asarray(kept) / full)) if len(full) else 1.0
        return float(np.clip(0.98 - 0.5 * (1 - share) ** 3 - luck, 0.0, 1.0))

    def values(score: float, peak_bytes: int, kept: Sequence[int]) -> dict[str, float]:
        known = {
            "accuracy": score,
            "peak_bytes": float(peak_bytes),
            "inference_peak_bytes": peak_bytes / 8,
            "parameters": float(1000 + 37 * sum(kept)),
            "macs_forward": float(10_000 + 991 * sum(kept)),
        }
        return {name: known[name] for name in study.search.objectives}

    found: list[TrialRecord] = []
    kept_by_trial: list[list[int]] = []
    for number in range(trials):
        centre = rng.uniform(0.05, 0.95)
        ratios = np.clip(rng.normal(centre, 0.15, len(full)), 0, 0.9)
        kept = np.maximum(1, np.floor(full * (1 - ratios))).astype(int).tolist()
        kept_by_trial.append(kept)
        peak_bytes = peak(kept)
        state: TrialState = "complete"
        if peak_bytes > limit:
            state = "infeasible"
        elif number % 11 == 10:
            state = "duplicate"
        elif number % 17 == 16:
            state = "failed"
        score = accuracy(kept, luck=float(rng.uniform(0, 0.06)))
        done = state == "complete"
        found.append(
            TrialRecord(
                number=number,
                state=state,
                params={
                    f"ratio:{name}": float(r) for (name, _), r in zip(groups, ratios, strict=True)
                },
                candidate=candidate_of(groups, kept),
                peak_bytes=peak_bytes,
                accuracy=score if done else None,
                values=values(score, peak_bytes, kept) if done else {},
                wall_seconds=3.5 if done else 0.01,
                seeds=(1000 + number,) if done else (),
                fidelity="short" if done else None,
                duplicate_of=0 if state == "duplicate" else None,
            )
        )

    scored: list[BaselineRecord] = []
    if baselines:
        for ratio in (0.0, *study.search.uniform_baselines):
            kept = np.maximum(1, np.floor(full * (1 - ratio))).astype(int).tolist()
            score = accuracy(kept, luck=0.05)
            scored.append(
                BaselineRecord(
                    label=f"uniform {ratio:.2f}" if ratio else "unpruned",
                    kind="uniform" if ratio else "unpruned",
                    ratio=ratio,
                    candidate=candidate_of(groups, kept),
                    peak_bytes=peak(kept),
                    accuracy=score,
                    values=values(score, peak(kept), kept),
                )
            )

    def final(
        label: str, trial: int | None, candidate: Candidate, size: int, score: float
    ) -> FinalRecord:
        better = min(score + 0.015, 0.99)
        return FinalRecord(
            label=label,
            trial=trial,
            candidate=candidate,
            peak_bytes=size,
            accuracies=tuple(float(np.clip(better + d, 0, 1)) for d in rng.normal(0, 0.004, seeds)),
            validation_accuracies=tuple(
                float(np.clip(better - 0.004 + d, 0, 1)) for d in rng.normal(0, 0.005, seeds)
            ),
            step_seconds=0.05 + size / (400 * MIB),
            seeds=tuple(range(seeds)),
        )

    complete = sorted((t for t in found if t.state == "complete"), key=lambda t: t.peak_bytes)
    best: list[TrialRecord] = []
    for trial in complete:
        if not best or (trial.accuracy or 0) > (best[-1].accuracy or 0):
            best.append(trial)
    step = max(1, len(best) // finals) if finals else 1
    ended = [
        final(f"trial {t.number}", t.number, t.candidate, t.peak_bytes, t.accuracy or 0.0)
        for t in best[::step][:finals]
    ]
    if finals and scored:
        ended.append(final("unpruned", None, scored[0].candidate, whole, scored[0].accuracy))
    return RunRecords(
        folder=Path("runs") / study.name,
        study=study,
        groups=groups,
        reference=values(0.2, whole, full.tolist()),
        trials=tuple(found),
        baselines=tuple(scored),
        finals=tuple(sorted(ended, key=lambda one: one.peak_bytes)),
        unpruned_peak_bytes=whole,
        smallest_peak_bytes=peak(np.maximum(1, full // 10).tolist()),
    )
