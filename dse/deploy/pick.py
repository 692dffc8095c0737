"""Choosing for a device: the best candidate that fits its RAM and loses little.

Candidates are only compared at the same fidelity. Those fine-tuned in full come first. They are
ranked on the selection part; their loss must be within the limit both there and on the validation
part, whose figures are shown. Of those that the seeds can't tell from the most accurate, the
smallest is chosen. If none qualifies, the short fidelity decides.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from dse.candidate import Candidate
from dse.deploy import DEFAULT_MAX_DROP
from dse.deploy.choice import HELD, Pick
from dse.deploy.contenders import Contender, Pool, pools, short_pool
from dse.deploy.limits import Limit, device_notes
from dse.deploy.measure import Measure, measure_of, speed_of
from dse.deploy.planned_records import (
    PLANNED_NOTE,
    planned_measure,
    planned_sizes,
    resized_records,
)
from dse.deploy.pte.records import ARENA_NOTE, arena_measure_of, arena_records
from dse.deploy.remedies import (
    LeastDrop,
    least_drop,
    smallest_of_all,
    smallest_within,
    suggested_flags,
)
from dse.deploy.selection import Found, Terms, at_knee, most_accurate
from dse.errors import ConfigError, MemoryModelError
from dse.footprint.speed import Speed
from dse.memory.measure import Measurement
from dse.metrics import recalls
from dse.results.balance import imbalance_warning, missed_warning
from dse.results.records import RunRecords
from dse.units import format_size


def pick(
    records: RunRecords,
    *,
    ram_bytes: int | None,
    measure: Measure,
    reserve_bytes: int = 0,
    max_drop: float = DEFAULT_MAX_DROP,
    knee: bool = False,
    runtime: str = "pytorch",
) -> Pick:
    """Choose the smallest of the most accurate candidates that fit, or the knee of the front.

    Args:
        records: records of a run.
        ram_bytes: RAM of the device; None if everything fits.
        measure: runs a candidate's training step. It is called for the choice, for the most
            accurate candidate, for candidates that are passed over because they held more than
            predicted, and for the smallest candidate if nothing fits.
        reserve_bytes: part of the RAM that is reserved for everything but the step's tensors.
        max_drop: maximum loss of accuracy relative to the unpruned network, in points.
        knee: choose the knee of the front; if it has none, as without.
        runtime: what the sizes are of: a key of `HELD`.

    Raises:
        ConfigError: if a size or the loss is out of range.
        RunError: if the run hasn't scored the unpruned network yet.
    """
    _check(ram_bytes, reserve_bytes, max_drop)
    measure = cache(measure)
    terms = Terms(
        budget_bytes=sys.maxsize if ram_bytes is None else ram_bytes - reserve_bytes,
        max_drop=max_drop,
        measure=measure,
        held=HELD[runtime],
    )
    pooled = tuple(pools(records))
    found = _found(records, pooled, terms, knee=knee)
    least = smallest_within(pooled, max_drop=max_drop)
    cheaper: LeastDrop | None = None
    smallest = least.peak_bytes
    chosen, unpruned = None, pooled[0].unpruned
    if found is not None:
        if found.chosen.fidelity == "short":
            terms.notes.append(_KNEE_SHORT_NOTE if found.rule == "knee" else _SHORT_NOTE)
        if least.label == found.chosen.label:
            smallest = max(smallest, found.measured.peak_bytes)
        chosen, unpruned = _with_seconds(found.chosen, found.unpruned, found.measured, measure)
    else:
        smallest = max(smallest, measure(least.candidate).peak_bytes)
        cheaper = least_drop(pooled, budget_bytes=terms.budget_bytes, measure=measure)
    return Pick(
        chosen=chosen,
        unpruned=unpruned,
        ram_bytes=ram_bytes,
        reserve_bytes=reserve_bytes,
        max_drop=max_drop,
        measured_peak_bytes=found.measured.peak_bytes if found else None,
        smallest_peak_bytes=smallest,
        smallest_predicted_bytes=least.peak_bytes,
        notes=(*terms.notes, *_hidden(records, chosen)),
        metric=records.metric,
        measure=records.measure,
        class_images=records.class_images,
        least=cheaper,
        smallest=smallest_of_all(pooled),
        convention=records.convention,
        rule=found.rule if found else "accuracy",
        leader=found.leader if found else None,
        tied=found.tied if found else None,
        runtime=runtime,
    )


def _found(
    records: RunRecords, pooled: Sequence[Pool], terms: Terms, *, knee: bool
) -> Found | None:
    if knee:
        full = pooled[0] if len(pooled) > 1 else None
        found = at_knee(records, short_pool(records), full, terms)
        if found is not None:
            return found
    choices = (most_accurate(pool, terms) for pool in pooled)
    return next((found for found in choices if found is not None), None)


def _hidden(records: RunRecords, chosen: Contender | None) -> Iterator[str]:
    """Yield warnings about what the figures hide: small classes, and classes never right."""
    images = records.class_images
    if (line := imbalance_warning(images, metric=records.metric)) is not None:
        yield line
    if images is None or chosen is None or not chosen.correct:
        return
    found = recalls(chosen.correct, images.of(chosen.part))
    if (line := missed_warning(chosen.label, found, images, part=chosen.part)) is not None:
        yield line


_SHORT_NOTE = (
    "scores are of the short fine-tuning, on the selection part: none of the candidates "
    "fine-tuned in full qualifies (if these are missing, continue the run with dse run)"
)


_KNEE_SHORT_NOTE = (
    "scores are of the short fine-tuning, on the selection part: the knee was not fine-tuned "
    "in full"
)


def pick_for(
    records: RunRecords,
    limit: Limit | None,
    *,
    max_drop: float,
    knee: bool = False,
    runtime: str = "pytorch",
) -> Pick:
    """Choose like `pick`, measuring on this machine in the study's memory format.

    Args:
        records: records of a run.
        limit: the RAM to choose for; None if everything fits.
        max_drop: maximum loss of accuracy in points.
        knee: choose the knee of the front.
        runtime: what trains on the device; see `dse.names.RUNTIMES`.

    Raises:
        RunError: as for `pick`; or if the run isn't trusted to build its network.
        DseError: as for `pick`; or if the network can't be built or measured here.
    """
    (found,) = picks_for(records, [limit], max_drop=max_drop, knee=knee, runtime=runtime)
    return found


def picks_for(
    records: RunRecords,
    limits: Sequence[Limit | None],
    *,
    max_drop: float,
    knee: bool = False,
    runtime: str = "pytorch",
) -> tuple[Pick, ...]:
    """Choose like `pick_for` for several sizes; no candidate is measured twice.

    For a device without PyTorch, sizes are those of a static planner's arena.
    """
    views = _Views(records)

    def choose(limit: Limit | None) -> Pick:
        device = None if limit is None else limit.device
        planned = device is not None and device.runtime == "microcontroller"
        own = "microcontroller" if planned and runtime == "pytorch" else runtime
        sized, measure, notes = views.of(own)
        found = _for_limit(sized, limit, measure=measure, max_drop=max_drop, knee=knee, runtime=own)
        return replace(found, notes=(*notes, *found.notes))

    return tuple(map(choose, limits))


_View = tuple[RunRecords, Measure, tuple[str, ...]]


class _Views:
    """A run's records with the sizes that each runtime needs; each view is made once."""

    def __init__(self, records: RunRecords) -> None:
        self._records = records
        self._known: dict[str, _View] = {}

    def of(self, runtime: str) -> _View:
        """Return records, a measure and notes with the sizes of a runtime."""
        if runtime not in self._known:
            self._known[runtime] = self._made(runtime)
        return self._known[runtime]

    def _made(self, runtime: str) -> _View:
        records = self._records
        if runtime == "executorch":
            return arena_records(records), cache(arena_measure_of(records)), (ARENA_NOTE,)
        if runtime == "microcontroller":
            _, measure, _ = self.of("pytorch")  # times are PyTorch's
            size = planned_sizes(records)
            return resized_records(records, size), planned_measure(measure, size), (PLANNED_NOTE,)
        return records, cache(measure_of(records)), ()


def with_speed(records: RunRecords, picks: Sequence[Pick]) -> tuple[Pick, ...]:
    """Return choices with their speed beside the unpruned network's, measured on this machine.

    Where it can't be measured, a note gives the reason.

    Args:
        records: records of the run.
        picks: choices of `picks_for`; each chosen candidate is timed once.
    """
    compare = cache(speed_of(records))
    return tuple(_timed(one, compare) for one in picks)


def _timed(choice: Pick, compare: Callable[[Candidate], Speed]) -> Pick:
    if choice.chosen is None or choice.chosen.label == choice.unpruned.label:
        return choice
    try:
        return replace(choice, speed=compare(choice.chosen.candidate))
    except MemoryModelError as error:  # the unpruned network may need more than there is
        return replace(choice, notes=(*choice.notes, f"speed was not compared: {error}"))


def _for_limit(records: RunRecords, limit: Limit | None, **given: Any) -> Pick:
    if limit is None:
        return pick(records, ram_bytes=None, **given)
    found = pick(
        records,
        ram_bytes=limit.ram_bytes(unpruned_peak_bytes=records.unpruned_peak_bytes),
        reserve_bytes=limit.reserve_bytes,
        **given,
    )
    if limit.device is None:
        return found
    notes = (*device_notes(limit.device, records, runtime=found.runtime), *found.notes)
    return replace(found, device=limit.device, notes=notes)


def suggestion(records: RunRecords) -> str:
    """Return flags of a `dse pick` that succeeds for a run.

    Raises:
        DseError: see `pick_for`.
    """
    return suggested_flags(
        tuple(pools(records)),
        budgets=records.study.search.budget_bytes,
        max_drop=DEFAULT_MAX_DROP,
        measure=cache(measure_of(records)),
    )


def _check(ram_bytes: int | None, reserve_bytes: int, max_drop: float) -> None:
    if ram_bytes is not None and ram_bytes <= 0:
        raise ConfigError(f"--ram is {ram_bytes} bytes: it must be above 0, as in 64MiB")
    if ram_bytes is not None and not 0 <= reserve_bytes < ram_bytes:
        raise ConfigError(
            f"--reserve {format_size(reserve_bytes)} leaves nothing of --ram "
            f"{format_size(ram_bytes)}: lower it"
        )
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise ConfigError(f"--max-drop is {max_drop}: it must be a number of points, 0 or more")


def _with_seconds(
    chosen: Contender, unpruned: Contender, measured: Measurement, measure: Measure
) -> tuple[Contender, Contender]:
    """Return both with a time per step that was measured in the same way."""
    if chosen.step_seconds is not None and unpruned.step_seconds is not None:
        return chosen, unpruned
    whole = measured if chosen.label == unpruned.label else measure(unpruned.candidate)
    return (
        replace(chosen, step_seconds=measured.step_seconds),
        replace(unpruned, step_seconds=whole.step_seconds),
    )
