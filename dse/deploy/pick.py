"""Choosing for a device: the most accurate candidate that fits its RAM and loses little.

Candidates are only compared at the same fidelity. Those fine-tuned in full come first. They are
ranked on the selection part; their loss must be within the limit both there and on the validation
part, whose figures are shown. If none of them qualifies, the short fidelity decides.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from dse.deploy import DEFAULT_MAX_DROP
from dse.deploy.choice import Pick
from dse.deploy.contenders import Contender, Pool, is_within, pools
from dse.deploy.measure import Measure, measure_of
from dse.deploy.remedies import (
    LeastDrop,
    least_drop,
    smallest_of_all,
    smallest_within,
    suggested_flags,
)
from dse.errors import ConfigError
from dse.memory.measure import Measurement
from dse.metrics import recalls
from dse.results.balance import imbalance_warning, missed_warning
from dse.results.records import RunRecords
from dse.units import format_size


def pick(
    records: RunRecords,
    *,
    ram_bytes: int,
    measure: Measure,
    reserve_bytes: int = 0,
    max_drop: float = DEFAULT_MAX_DROP,
) -> Pick:
    """Choose the most accurate candidate that fits.

    Args:
        records: records of a run.
        ram_bytes: RAM of the device.
        measure: runs a candidate's training step. It is called for the choice, for candidates that
            are passed over because they held more than predicted, and for the smallest candidate if
            nothing fits.
        reserve_bytes: part of the RAM that is reserved for everything but the step's tensors.
        max_drop: maximum loss of accuracy relative to the unpruned network, in points.

    Raises:
        ConfigError: if a size or the loss is out of range.
        RunError: if the run hasn't scored the unpruned network yet.
    """
    _check(ram_bytes, reserve_bytes, max_drop)
    measure = cache(measure)
    budget_bytes = ram_bytes - reserve_bytes
    notes: list[str] = []
    found = tuple(pools(records))
    unpruned = found[0].unpruned
    chosen: Contender | None = None
    measured: Measurement | None = None
    for pool in found:
        chosen, measured = _first_that_fits(pool, budget_bytes, max_drop, measure, notes)
        if chosen is not None:
            unpruned = pool.unpruned
            break
    least = smallest_within(found, max_drop=max_drop)
    cheaper: LeastDrop | None = None
    smallest = least.peak_bytes
    if chosen is not None and measured is not None:
        if chosen.fidelity == "short":
            notes.append(_SHORT_NOTE)
        if least is chosen:
            smallest = max(smallest, measured.peak_bytes)
        chosen, unpruned = _with_seconds(chosen, unpruned, measured, measure)
    else:
        smallest = max(smallest, measure(least.candidate).peak_bytes)
        cheaper = least_drop(found, budget_bytes=budget_bytes, measure=measure)
    return Pick(
        chosen=chosen,
        unpruned=unpruned,
        ram_bytes=ram_bytes,
        reserve_bytes=reserve_bytes,
        max_drop=max_drop,
        measured_peak_bytes=measured.peak_bytes if measured else None,
        smallest_peak_bytes=smallest,
        smallest_predicted_bytes=least.peak_bytes,
        notes=(*notes, *_hidden(records, chosen)),
        metric=records.metric,
        class_images=records.class_images,
        least=cheaper,
        smallest=smallest_of_all(found),
        convention=records.convention,
    )


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
    "accuracies are of the short fine-tuning, on the selection part: none of the candidates "
    "fine-tuned in full qualifies (if these are missing, continue the run with dse run)"
)


def pick_for(
    records: RunRecords, *, ram_bytes: int, reserve_bytes: int = 0, max_drop: float
) -> Pick:
    """Choose like `pick`, measuring on this machine in the study's memory format.

    Args:
        records: records of a run.
        ram_bytes: RAM of the device.
        reserve_bytes: part of the RAM that is reserved for everything but the step's tensors.
        max_drop: maximum loss of accuracy in points.

    Raises:
        RunError: as for `pick`; or if the run isn't trusted to build its network.
        DseError: as for `pick`; or if the network can't be built or measured here.
    """
    return pick(
        records,
        ram_bytes=ram_bytes,
        measure=measure_of(records),
        reserve_bytes=reserve_bytes,
        max_drop=max_drop,
    )


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


def _check(ram_bytes: int, reserve_bytes: int, max_drop: float) -> None:
    if ram_bytes <= 0:
        raise ConfigError(f"--ram is {ram_bytes} bytes: it must be above 0, as in 64MiB")
    if not 0 <= reserve_bytes < ram_bytes:
        raise ConfigError(
            f"--reserve {format_size(reserve_bytes)} leaves nothing of --ram "
            f"{format_size(ram_bytes)}: lower it"
        )
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise ConfigError(f"--max-drop is {max_drop}: it must be a number of points, 0 or more")


def _first_that_fits(
    pool: Pool, budget_bytes: int, max_drop: float, measure: Measure, notes: list[str]
) -> tuple[Contender | None, Measurement | None]:
    """Try contenders in order of accuracy until the real step of one stays within the budget."""
    for one in sorted(pool.contenders, key=lambda one: (-one.selection_accuracy, one.peak_bytes)):
        drop = pool.selection_drop(one)
        if one.peak_bytes > budget_bytes or not is_within(drop, max_drop):
            continue
        if not pool.qualifies(one, max_drop=max_drop):
            notes.append(
                f"{one.label} passed over: it loses {drop:.1f} points on the "
                f"selection part, but {pool.shown_drop(one):.1f} on the validation part"
            )
            continue
        measured = measure(one.candidate)
        if measured.peak_bytes <= budget_bytes:
            return one, measured
        notes.append(
            f"{one.label} passed over: predicted {format_size(one.peak_bytes)}, but a real step "
            f"held {measured.peak_bytes - budget_bytes:,} bytes more than the budget"
        )
    return None, None


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
