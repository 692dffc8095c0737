"""Expected gain of hypervolume by a candidate of known memory and uncertain accuracy."""

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

    Memory is exact, so only the height of the added area is uncertain. The gain is the integral,
    over all memory sizes from the candidate's peak to the reference's, of the expected improvement
    of a normal variable over the best known accuracy within that size (Mockus; Jones, Schonlau and
    Welch 1998).

    Args:
        means: Predicted accuracies, shape (n,).
        deviations: Standard deviations of the predictions, shape (n,), above 0.
        peaks: Peaks of the candidates, shape (n,).
        accuracies: Accuracies of the trained candidates, shape (m,).
        known_peaks: Peaks of the trained candidates, shape (m,).
        chance: Accuracy of the reference point.
        largest: Peak of the reference point, in the same unit as all peaks.

    Returns:
        Expected gains, shape (n,), in units of accuracy times peak. A candidate whose peak lies
        beyond the reference gains 0.
    """
    order = np.argsort(known_peaks, kind="stable")
    edges = np.concatenate([[-np.inf], known_peaks[order], [np.inf]])
    best = np.maximum.accumulate(np.concatenate([[chance], accuracies[order]]))
    # The best accuracy within each size is a staircase. Merge adjacent steps of equal height.
    rises = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)
    heights = best[rises]
    starts = edges[rises]
    ends = np.append(starts[1:], np.inf)
    widths = np.minimum(ends, largest)[None] - np.maximum(starts[None], peaks[:, None])
    # Closed form of the expected improvement of a normal variable over each step's height.
    over = (means[:, None] - heights[None]) / deviations[:, None]
    improvement = deviations[:, None] * (over * norm.cdf(over) + norm.pdf(over))
    gains: Floats = np.sum(np.maximum(widths, 0.0) * improvement, axis=1)
    return gains
