"""Dominance by its definition."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def dominates(first: ArrayLike, second: ArrayLike, *, maximise: Sequence[bool]) -> bool:
    """Whether the first point is at least as good in every objective and better in one."""
    signs = np.where(maximise, -1, 1)
    a, b = np.asarray(first) * signs, np.asarray(second) * signs
    return bool(np.all(a <= b) and np.any(a < b))
