"""Splits a data set label by label, reproducibly."""

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dse.data.summary import counted
from dse.digests import derived_bytes, derived_seed, raw_digest
from dse.errors import DataError

Positions = npt.NDArray[np.int64]
_FEWEST = 4  # images that can be split: two on each side, as some metrics need


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
        if keys:
            start = derived_bytes(seed, purpose, label)
            ranked = sorted(found.tolist(), key=lambda one: _rank(start, keys[one]))  # called here
            shuffled = np.array(ranked, dtype=np.int64)
        else:
            chance = np.random.default_rng(derived_seed(seed, purpose, label, bits=64))
            shuffled = chance.permutation(found)
        taken.append(shuffled[:count])
        stays.append(shuffled[count:])
    return np.sort(np.concatenate(stays)), np.sort(np.concatenate(taken))


def plainly_split(
    positions: Positions,
    *,
    share: float,
    seed: int,
    purpose: str,
    count: int,
    strata: Positions | None = None,
    keys: Sequence[str] = (),
) -> tuple[Positions, Positions]:
    """Split a share of some images off, stratum by stratum if there are strata.

    Args:
        positions: positions of the images, (n,).
        share: share of the images, between 0 and 1; at least two images, and two are left.
        seed: seed of the shuffle.
        purpose: purpose of the split; splits for different purposes are independent.
        count: number of all images.
        strata: stratum of each of all images; None for one stratum.
        keys: identifies each of all images, see `stratified`.

    Returns:
        Positions of the remaining and of the split-off images, ascending and disjoint.

    Raises:
        DataError: if there are fewer than four images.
    """
    if len(positions) < _FEWEST:
        raise DataError(
            f"{counted(len(positions), 'image')} are too few to split off a {purpose} part: give "
            f"at least {2 * _FEWEST}"
        )
    groups = np.zeros(count, dtype=np.int64) if strata is None else strata
    start = derived_bytes(seed, purpose)
    names = keys or [str(one) for one in range(count)]
    ranked = sorted(positions.tolist(), key=lambda one: _rank(start, names[one]))
    # Each stratum's images get evenly spaced places, so that every stretch has its share of each.
    place: dict[int, float] = {}
    for stratum in np.unique(groups[positions]).tolist():
        own = [one for one in ranked if groups[one] == stratum]
        place |= {one: (turn + 0.5) / len(own) for turn, one in enumerate(own)}
    wanted = min(max(2, round(share * len(positions))), len(positions) - 2)
    order = sorted(ranked, key=place.__getitem__)
    return (
        np.sort(np.array(order[wanted:], dtype=np.int64)),
        np.sort(np.array(order[:wanted], dtype=np.int64)),
    )


def _rank(start: bytes, key: str) -> bytes:
    return raw_digest(start + os.fsencode(key))
