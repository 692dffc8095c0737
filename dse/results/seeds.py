"""Means over several seeds, and comparisons of two: Student's and Welch's intervals, Welch's test.

They reflect the variance between trainings or searches only, not that between samples of images.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, t

LEVEL = 0.05
FEWEST = 2
"""Minimum number of seeds per side: one training gives no estimate of the variance."""


def difference_interval(
    first: Sequence[float], second: Sequence[float], *, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return Welch's confidence interval of the first mean minus the second.

    Variances may differ between the sides, and seeds are not paired.

    Args:
        first: One value per seed.
        second: One value per seed.
        level: The interval covers the difference with probability 1 - level.

    Returns:
        Both ends, in the unit of the values. None if no interval exists: a side has a single seed,
        or neither side varies.
    """
    ours, theirs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if min(len(ours), len(theirs)) < FEWEST or np.ptp(ours) == 0 == np.ptp(theirs):
        return None
    # Welch-Satterthwaite degrees of freedom, from the squared standard errors of both means.
    shares = np.array([one.var(ddof=1) / len(one) for one in (ours, theirs)])
    freedom = shares.sum() ** 2 / (shares**2 / [len(ours) - 1, len(theirs) - 1]).sum()
    reach = float(t.ppf(1 - level / 2, freedom) * shares.sum() ** 0.5)
    middle = float(ours.mean() - theirs.mean())
    return middle - reach, middle + reach


def mean_interval(values: Sequence[float], *, level: float = LEVEL) -> tuple[float, float] | None:
    """Return Student's confidence interval of the mean.

    Args:
        values: One value per seed.
        level: The interval covers the mean with probability 1 - level.

    Returns:
        Both ends, in the unit of the values. None if no interval exists: for fewer than two values,
        or if all are equal.
    """
    known = np.asarray(values, dtype=np.float64)
    if len(known) < FEWEST or np.ptp(known) == 0:
        return None
    reach = float(t.ppf(1 - level / 2, len(known) - 1) * known.std(ddof=1) / len(known) ** 0.5)
    return float(known.mean()) - reach, float(known.mean()) + reach


def ratio_interval(
    first: Sequence[float], second: Sequence[float], *, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return Welch's confidence interval of the first mean over the second, on the logarithm.

    Args:
        first: One positive value per seed.
        second: One positive value per seed.
        level: The interval covers the ratio with probability 1 - level.

    Returns:
        Both ends. None if no interval exists: a side has a single seed or a mean of zero, or
        neither side varies.
    """
    ours, theirs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if min(len(ours), len(theirs)) < FEWEST or np.ptp(ours) == 0 == np.ptp(theirs):
        return None
    if min(ours.mean(), theirs.mean()) <= 0:
        return None
    # The standard error of a mean's logarithm is that of the mean, divided by the mean.
    shares = np.array([one.var(ddof=1) / len(one) / one.mean() ** 2 for one in (ours, theirs)])
    freedom = shares.sum() ** 2 / (shares**2 / [len(ours) - 1, len(theirs) - 1]).sum()
    reach = float(t.ppf(1 - level / 2, freedom) * shares.sum() ** 0.5)
    middle = float(np.log(ours.mean() / theirs.mean()))
    return float(np.exp(middle - reach)), float(np.exp(middle + reach))


def prediction_interval(
    values: Sequence[float], *, level: float = LEVEL
) -> tuple[float, float] | None:
    """Return the interval that one more value falls into, by Student's t.

    It is wider than the confidence interval of the mean, since a single value varies, too.

    Args:
        values: one value per seed.
        level: The interval covers the next value with probability 1 - level.

    Returns:
        Both ends, in the unit of the values. None for fewer than two values.
    """
    known = np.asarray(values, dtype=np.float64)
    if len(known) < FEWEST:
        return None
    spread = float(known.std(ddof=1)) * (1 + 1 / len(known)) ** 0.5
    reach = float(t.ppf(1 - level / 2, len(known) - 1)) * spread
    return float(known.mean()) - reach, float(known.mean()) + reach


def share_interval(right: int, total: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's interval of a share, such as the accuracy on so many images.

    Args:
        right: number of successes.
        total: number of trials, 1 or more.
        level: The interval covers the share with probability 1 - level.
    """
    z = float(norm.ppf(1 - level / 2))
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total**2)) ** 0.5
    return max(0.0, middle - reach), min(1.0, middle + reach)


def differ(first: Sequence[float], second: Sequence[float], *, level: float = LEVEL) -> bool | None:
    """Whether two means differ, by Welch's two-sided test.

    Args:
        first: One value per seed.
        second: One value per seed.
        level: Significance level.

    Returns:
        None if no test is possible: a side has a single seed, or neither side varies although the
        values differ. False if all values are equal.
    """
    if min(len(first), len(second)) >= FEWEST and len({*first, *second}) == 1:
        return False
    ends = difference_interval(first, second, level=level)
    return None if ends is None else not ends[0] <= 0 <= ends[1]
