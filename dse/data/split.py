"""Splitting a data set, label by label, the same way every time."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dse.errors import DataError

Positions = npt.NDArray[np.int64]


def stratified(
    targets: Positions,
    labels: Sequence[str],
    *,
    share: float,
    seed: int,
    purpose: str,
    keys: Sequence[str] = (),
) -> tuple[Positions, Positions]:
    """Take a share of each label's images away.

    A label's split depends on nothing but its own images, name, share, seed and purpose, so that
    choosing other labels beside it doesn't move an image from one part to another.

    Args:
        targets: (n,) positions among `labels`; negative for images that are left out.
        labels: Their names.
        share: Of each label's images, between 0 and 1; at least one image, never all.
        seed: Of the shuffle.
        purpose: What the share is for; splits for other purposes are independent.
        keys: What identifies each image. With keys an image's side depends on its own key, but for
            those at the boundary, so that taking one image out moves at most one other.

    Returns:
        Positions of what stays and of what is taken, each ascending and disjoint.

    Raises:
        DataError: A label has fewer than two images.
    """
    stays, taken = [], []
    for number, label in enumerate(labels):
        found = np.flatnonzero(targets == number)
        if len(found) < 2:  # noqa: PLR2004 -- one for each side
            raise DataError(
                f"label {label!r} has {len(found)} images, too few to split off a {purpose} part: "
                "give it at least 3, or list the labels to use in data.labels"
            )
        count = min(max(1, round(share * len(found))), len(found) - 1)
        digest = hashlib.sha256(f"{seed}:{purpose}:{label}".encode()).digest()
        if keys:
            ranked = sorted(found.tolist(), key=lambda one: _rank(digest, keys[one]))  # called here
            shuffled = np.array(ranked, dtype=np.int64)
        else:
            shuffled = np.random.default_rng(int.from_bytes(digest[:8], "big")).permutation(found)
        taken.append(shuffled[:count])
        stays.append(shuffled[count:])
    return np.sort(np.concatenate(stays)), np.sort(np.concatenate(taken))


def _rank(digest: bytes, key: str) -> bytes:
    return hashlib.sha256(digest + os.fsencode(key)).digest()
