"""What earlier runs of the same network found, on the scale of accuracies of the present one."""

from collections.abc import Mapping, Sequence

import numpy as np

Row = tuple[str, int, float]
"""Candidate (JSON), its peak bytes in the present run, accuracy."""

_FEWEST = 3  # shared candidates for a slope; two would follow their noise exactly
_STEEPEST = 4.0  # a slope is kept between 0 and this


def calibrated(earlier: Sequence[Row], known: Mapping[str, float]) -> list[Row]:
    """Bring accuracies of an earlier run to the scale of the present one.

    Candidates that both have scored, as their baselines are, give a straight line between the two
    scales by least squares. Fewer than three, or equal accuracies, give an offset alone.

    Args:
        earlier: what one earlier run scored.
        known: accuracies of the present run by candidate (JSON).

    Returns:
        The candidates that the present run hasn't scored; none if the two share no candidate, since
        nothing then says what an accuracy there means here.
    """
    shared = [(accuracy, known[text]) for text, _, accuracy in earlier if text in known]
    if not shared:
        return []
    theirs, ours = np.array(shared).T
    slope = 1.0
    if len(shared) >= _FEWEST and (spread := float(theirs.var())) > 0:
        covariance = float(np.mean((theirs - theirs.mean()) * (ours - ours.mean())))
        slope = float(np.clip(covariance / spread, 0.0, _STEEPEST))
    offset = float(ours.mean() - slope * theirs.mean())
    return [
        (text, peak_bytes, float(np.clip(offset + slope * accuracy, 0.0, 1.0)))
        for text, peak_bytes, accuracy in earlier
        if text not in known
    ]
