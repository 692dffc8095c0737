"""Splits a data set label by label, reproducibly."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dse.data.summary import counted
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
    """Split a share of each label's images off.

    A label's split depends only on its own images, name, share, seed and purpose, so choosing
    additional labels doesn't move images between parts.

    Args:
        targets: label numbers, (n,); negative for images that are left out.
        labels: names of the labels.
        share: share of each label's images, between 0 and 1; at least one image, never all.
        seed: seed of the shuffle.
        purpose: purpose of the split; splits for different purposes are independent.
        keys: identifies each image. With keys, the side of an image depends on its own key, except
            at the boundary, so that removing one image moves at most one other.

    Returns:
        Positions of the remaining and of the split-off images, ascending and disjoint.

    Raises:
        DataError: if a label has fewer than two images.
    """
    stays, taken = [], []
    for number, label in enumerate(labels):
        found = np.flatnonzero(targets == number)
        if len(found) < 2:  # noqa: PLR2004 -- one for each side
            raise DataError(
                f"label {label!r} has {counted(len(found), 'image')}, too few to split off a "
                f"{purpose} part: "
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
