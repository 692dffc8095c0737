"""What several seeds say about two candidates: Welch's test and its interval.

Both speak of the scatter between trainings alone, not of that between samples of images.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t

LEVEL = 0.05
FEWEST = 2
"""Of each side: a single training says nothing about the scatter between trainings."""


def difference_interval(
    first: Sequence[float], second: Sequence[float], *, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return Welch's interval of the first mean less the second.

    Variances may differ, and seeds aren't paired.

    Args:
        first: one figure for each seed.
        second: likewise.
        level: the interval covers 1 - level.

    Returns:
        The two ends, in the unit of the figures; None where there is nothing to go by: a single
        seed on either side, or no scatter on both.
    """
    ours, theirs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if min(len(ours), len(theirs)) < FEWEST or np.ptp(ours) == 0 == np.ptp(theirs):
        return None
    shares = np.array([one.var(ddof=1) / len(one) for one in (ours, theirs)])
    freedom = shares.sum() ** 2 / (shares**2 / [len(ours) - 1, len(theirs) - 1]).sum()
    reach = float(t.ppf(1 - level / 2, freedom) * shares.sum() ** 0.5)
    middle = float(ours.mean() - theirs.mean())
    return middle - reach, middle + reach


def differ(first: Sequence[float], second: Sequence[float], *, level: float = LEVEL) -> bool | None:
    """Say whether two means differ by Welch's two-sided test.

    Args:
        first: one figure for each seed.
        second: likewise.
        level: of significance.

    Returns:
        None where no test is possible: a single seed on either side, or no scatter on both though
        the figures differ. Where all figures are equal, they don't differ.
    """
    if min(len(first), len(second)) >= FEWEST and len({*first, *second}) == 1:
        return False
    ends = difference_interval(first, second, level=level)
    return None if ends is None else not ends[0] <= 0 <= ends[1]
