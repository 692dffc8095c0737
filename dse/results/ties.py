"""Which finalists can't be told apart by the seeds they were trained with."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import ttest_ind_from_stats

from dse.results.records import FinalRecord

LEVEL = 0.05


def tied(first: FinalRecord, second: FinalRecord) -> bool:
    """Say whether two finalists' validation accuracies may have one mean.

    Welch's t-test at the 5 % level, two-sided: unequal variances, seeds not paired. With a single
    seed on either side nothing can be told apart.
    """
    ours, theirs = (np.array(one.validation_accuracies) for one in (first, second))
    if min(len(ours), len(theirs)) == 1:
        return True
    if np.ptp(ours) == 0 == np.ptp(theirs):  # no spread to test by
        return bool(ours[0] == theirs[0])
    # From means and deviations: given the seeds, SciPy warns where one side has no spread.
    test = ttest_ind_from_stats(
        ours.mean(),
        ours.std(ddof=1),
        len(ours),
        theirs.mean(),
        theirs.std(ddof=1),
        len(theirs),
        equal_var=False,
    )
    return float(test.pvalue) > LEVEL


def ties_of(final: FinalRecord, finals: Sequence[FinalRecord]) -> tuple[str, ...]:
    """Return the labels of the other finalists that one is tied with."""
    return tuple(other.label for other in finals if other is not final and tied(final, other))
