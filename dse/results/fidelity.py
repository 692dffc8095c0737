"""How well the short training orders candidates: against the full one, at similar memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import variance

import numpy as np
from scipy.stats import kendalltau

from dse.results.candidate_records import RepeatRecord
from dse.results.records import RunRecords

FEWEST_RANKED = 5
"""Fewest candidates for a rank correlation: of three, it can only be -1, -1/3, 1/3 or 1."""

_BAND = 2.0  # a band reaches from a peak to half of it


@dataclass(frozen=True, kw_only=True)
class BothFidelities:
    """A candidate that was trained at both fidelities.

    Attributes:
        label: Its label as a finalist.
        digest: Digest of the candidate.
        peak_bytes: Predicted peak memory.
        short: Accuracy on the selection part after the short training.
        full: Mean accuracy over the seeds on the selection part after the full training.
        band: Number of its band. Band 0 reaches from the largest peak to half of it.
    """

    label: str
    digest: str
    peak_bytes: int
    short: float
    full: float
    band: int


@dataclass(frozen=True, kw_only=True)
class Band:
    """Candidates of similar memory.

    Attributes:
        low_bytes: All peaks are above this.
        high_bytes: The largest possible peak.
        members: The candidates by peak memory.
        alike: Pairs that both fidelities order alike.
        unlike: Pairs that they order the other way round. Ties count as neither.
    """

    low_bytes: float
    high_bytes: float
    members: tuple[BothFidelities, ...]
    alike: int
    unlike: int

    @property
    def tau(self) -> float | None:
        """Kendall's rank correlation (tau-b). None for few candidates, or if one side is equal."""
        return rank_correlation(
            [one.short for one in self.members], [one.full for one in self.members]
        )


def trained_at_both(records: RunRecords) -> tuple[BothFidelities, ...]:
    """Return the candidates that were trained at both fidelities, by peak memory."""
    short = {trial.candidate.digest: trial.accuracy for trial in records.complete}
    short |= {baseline.candidate.digest: baseline.accuracy for baseline in records.baselines}
    finals = [final for final in records.finals if final.candidate.digest in short]
    largest = max((final.peak_bytes for final in finals), default=1)
    found = [
        BothFidelities(
            label=final.label,
            digest=final.candidate.digest,
            peak_bytes=final.peak_bytes,
            short=short[final.candidate.digest] or 0.0,
            full=final.accuracy,
            band=math.floor(math.log(largest / final.peak_bytes, _BAND)),
        )
        for final in finals
    ]
    return tuple(sorted(found, key=lambda one: (one.peak_bytes, one.label)))


def short_noise(repeats: Sequence[RepeatRecord]) -> float | None:
    """Return the standard deviation of `short` over seeds, pooled over candidates.

    Args:
        repeats: candidates scored with several seeds.

    Returns:
        In the unit of the accuracies; None if no candidate has two seeds.
    """
    several = [one.accuracies for one in repeats if len(one.accuracies) > 1]
    freedom = sum(len(one) - 1 for one in several)
    squares = sum((len(one) - 1) * variance(one) for one in several)
    return (squares / freedom) ** 0.5 if freedom else None


def bands(candidates: Sequence[BothFidelities]) -> tuple[Band, ...]:
    """Divide candidates into bands of similar memory, largest first; empty bands are left out.

    Along a front, larger candidates are more accurate, so that any figure that grows with memory
    ranks the whole of it well. Only within a band does a ranking show what the short training adds.
    """
    largest = max((one.peak_bytes for one in candidates), default=0)
    found = []
    for number in sorted({one.band for one in candidates}):
        members = tuple(one for one in candidates if one.band == number)
        signs = [
            np.sign(first.short - second.short) * np.sign(first.full - second.full)
            for first, second in combinations(members, 2)
        ]
        found.append(
            Band(
                low_bytes=largest / _BAND ** (number + 1),
                high_bytes=largest / _BAND**number,
                members=members,
                alike=sum(sign > 0 for sign in signs),
                unlike=sum(sign < 0 for sign in signs),
            )
        )
    return tuple(found)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's rank correlation; None for few values, or if all of a side are equal."""
    if len(first) < FEWEST_RANKED or len({*first}) == 1 or len({*second}) == 1:
        return None
    return float(kendalltau(first, second).statistic)
