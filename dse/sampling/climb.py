"""Climb: stop a candidate after part of its short fine-tuning if it can no longer be useful.

Optuna does not prune trials of multi-objective studies, so this rule is the package's own. Peak
memory is exact, so a candidate is useful if it can become the most accurate of those with equal or
less memory. The accuracy that the rest of the training may add is estimated from the candidates
that finished.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 6
"""Number of candidates that must have finished before any candidate is stopped."""


@dataclass(frozen=True)
class Climbed:
    """A candidate that was trained to the end.

    Attributes:
        peak_bytes: Peak memory of its training step.
        rung: Accuracy at the rung, from 0 to 1.
        accuracy: Accuracy at the end, from 0 to 1.
    """

    peak_bytes: int
    rung: float
    accuracy: float


def can_matter(rung: float, peak_bytes: int, climbed: Sequence[Climbed]) -> bool:
    """Whether a candidate may still beat every candidate with equal or less memory.

    It cannot if even the largest gain that any candidate made after its rung would leave it behind
    the most accurate candidate of equal or less memory.

    Args:
        rung: The candidate's accuracy at the rung, from 0 to 1.
        peak_bytes: Peak memory of the candidate's training step.
        climbed: The candidates that finished before it.
    """
    rivals = [one.accuracy for one in climbed if one.peak_bytes <= peak_bytes]
    if len(climbed) < FEWEST or not rivals:
        return True
    return rung + max(one.accuracy - one.rung for one in climbed) >= max(rivals)


def expected(rung: float, climbed: Iterable[Climbed]) -> float:
    """Estimate a stopped candidate's final accuracy (0 to 1): its rung plus the median gain."""
    gains = [one.accuracy - one.rung for one in climbed]
    return float(np.clip(rung + np.median(gains), 0.0, 1.0))
