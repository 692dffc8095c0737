"""Scores of earlier runs of the same network, stored in a run that learns from them."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import optuna

from dse.errors import ConfigError
from dse.results.records import RunRecords
from dse.sampling.search_space import SearchSpace
from dse.sampling.warm_start import Row

EARLIER = "earlier:"
MOST_KEPT = 500
"""Candidates that are kept of one run: as many as one draw learns from."""


def check_earlier(run: RunRecords, space: SearchSpace, *, sampler: str) -> None:
    """Check that a run can warm a search of this space.

    Raises:
        ConfigError: if the sampler doesn't learn from earlier runs, or the run is of a network with
            other channel groups or has scored nothing.
    """
    place = f"--warm-start {run.folder}"
    if sampler != "front":
        raise ConfigError(
            f"{place}: search.sampler = {sampler!r} doesn't learn from earlier runs; take 'front'"
        )
    ours = [(choice.name, choice.channels) for choice in space.choices]
    if list(run.groups) != ours:
        raise ConfigError(
            f"{place}: its network has other channel groups ({_groups(run.groups)}) than this "
            f"study's ({_groups(ours)}); give a run of the same network"
        )
    if not run.baselines or not run.complete:
        raise ConfigError(f"{place}: it has no scored baselines and trials yet; finish it first")


def store_earlier(
    archive: optuna.Study, runs: Sequence[RunRecords], *, unpruned_peak_bytes: int
) -> None:
    """Keep what earlier runs scored at `short`, with peaks on the present run's scale.

    Peaks are multiplied by the ratio of the unpruned networks' peaks: they only tell which
    candidates are about as large, and exact ones would need a memory model for each recipe.

    Args:
        archive: the present run's study.
        runs: the earlier runs.
        unpruned_peak_bytes: peak of the unpruned network in the present run.
    """
    known = archive.user_attrs.keys()  # read once: each reading copies all of them
    for run in runs:
        scale = unpruned_peak_bytes / run.unpruned_peak_bytes
        scored = [(one.candidate, one.peak_bytes, one.accuracy) for one in run.baselines]
        scored += [
            (one.candidate, one.peak_bytes, one.accuracy)
            for one in run.complete[-MOST_KEPT:]
            if one.accuracy is not None and one.baseline is None
        ]
        for candidate, peak_bytes, accuracy in scored:
            key = f"{EARLIER}{_name(run)}:{candidate.digest}"
            if key not in known:
                row = [candidate.canonical_json(), round(scale * peak_bytes), accuracy]
                archive.set_user_attr(key, row)


def earlier_rows(written: dict[str, Any]) -> dict[str, list[Row]]:
    """Return what each earlier run scored, by its name, from a study's user attributes."""
    found: dict[str, list[Row]] = defaultdict(list)
    for key, value in sorted(written.items()):
        if key.startswith(EARLIER):
            name = key.removeprefix(EARLIER).rpartition(":")[0]
            text, peak_bytes, accuracy = value
            found[name].append((text, peak_bytes, accuracy))
    return dict(found)


def _name(run: RunRecords) -> str:
    """Return a name that tells runs of equally named folders apart."""
    return f"{run.folder.resolve().name} {run.study.meaning_digest[:8]}"


def _groups(groups: Sequence[tuple[str, int]]) -> str:
    first = "".join(f", the first {name} of {channels} channels" for name, channels in groups[:1])
    return f"{len(groups)}{first}"
