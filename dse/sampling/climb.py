"""Climb: after part of its short fine-tuning, a candidate goes on only if it can still matter.

Optuna gives up no trial of a study with several objectives, so this is a rule of our own. Memory is
exact, so a candidate matters if it can become the most accurate of those that need no more than it.
How much accuracy the rest of the training may add is learned from the candidates that went on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 6
"""So many candidates have to have gone on before any is given up."""


@dataclass(frozen=True)
class Climbed:
    """A candidate that went on to the end.

    Attributes:
        peak_bytes: of its step.
        rung: accuracy at the rung.
        accuracy: at the end.
    """

    peak_bytes: int
    rung: float
    accuracy: float


def can_matter(rung: float, peak_bytes: int, climbed: Sequence[Climbed]) -> bool:
    """Say whether a candidate may yet beat all that need no more memory.

    It is given up if even the largest gain that any candidate ever made after its rung would leave
    it behind the most accurate one of equal or smaller memory.

    Args:
        rung: its accuracy at the rung.
        peak_bytes: of its step.
        climbed: those that went on before it.
    """
    rivals = [one.accuracy for one in climbed if one.peak_bytes <= peak_bytes]
    if len(climbed) < FEWEST or not rivals:
        return True
    return rung + max(one.accuracy - one.rung for one in climbed) >= max(rivals)


def expected(rung: float, climbed: Iterable[Climbed]) -> float:
    """Return what a candidate that was given up would probably have reached, from 0 to 1."""
    gains = [one.accuracy - one.rung for one in climbed]
    return float(np.clip(rung + np.median(gains), 0.0, 1.0))
