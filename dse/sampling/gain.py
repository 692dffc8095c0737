"""What a candidate is expected to add to a front whose memory is known and accuracy is not."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]


def expected_gain(
    means: Floats,
    deviations: Floats,
    peaks: Floats,
    *,
    accuracies: Floats,
    known_peaks: Floats,
    chance: float,
    largest: float,
) -> Floats:
    """Return the expected gain of hypervolume by each candidate.

    Memory is exact, so that only the height of what a candidate adds is uncertain: over each size
    from its own peak on, the expected improvement of a normal variable over the best accuracy known
    within that size (Mockus; Jones, Schonlau and Welch 1998), summed over sizes.

    Args:
        means: (n,) predicted accuracies.
        deviations: (n,) their standard deviations, above 0.
        peaks: (n,) the candidates' peaks.
        accuracies: (m,) of what was trained.
        known_peaks: (m,) of what was trained.
        chance: accuracy of the reference point.
        largest: peak of the reference point, in the same unit as all peaks.

    Returns:
        (n,) in the product of the units, 0 beyond the reference.
    """
    order = np.argsort(known_peaks, kind="stable")
    edges = np.concatenate([[-np.inf], known_peaks[order], [np.inf]])
    best = np.maximum.accumulate(np.concatenate([[chance], accuracies[order]]))
    # The best accuracy within each size is a staircase: merge its steps of one height.
    rises = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)
    heights = best[rises]
    starts = edges[rises]
    ends = np.append(starts[1:], np.inf)
    widths = np.minimum(ends, largest)[None] - np.maximum(starts[None], peaks[:, None])
    over = (means[:, None] - heights[None]) / deviations[:, None]
    improvement = deviations[:, None] * (over * norm.cdf(over) + norm.pdf(over))
    gains: Floats = np.sum(np.maximum(widths, 0.0) * improvement, axis=1)
    return gains
