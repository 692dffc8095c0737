"""A run's records with sizes of a static planner's arena, for devices without PyTorch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TypeVar

from dse.candidate import Candidate, with_recipe
from dse.deploy.measure import Measure
from dse.memory.arena import ArenaLayout, arena_layout, arena_placement
from dse.memory.measure import Measurement
from dse.memory.model import MemoryModel
from dse.results.candidate_records import BaselineRecord, FinalRecord, TrialRecord
from dse.results.records import RunRecords
from dse.search.run_models import run_models

PLANNED_NOTE = (
    "sizes are of the arena that a static planner needs for a step in float32 (convention arena): "
    "no step ran on such a device. Times are PyTorch's"
)

_Record = TypeVar("_Record", TrialRecord, BaselineRecord, FinalRecord)
Sizes = Callable[[Candidate], int]


def planned_sizes(records: RunRecords) -> Sizes:
    """Return a function that gives the arena of a candidate's step in bytes.

    Raises:
        MemoryModelError: raised by the returned function if the run has no memory model of the
            candidate's recipe.
    """
    models = run_models(records.folder)

    @cache
    def layout(model: MemoryModel) -> ArenaLayout:
        return arena_layout(model.tape)

    @cache
    def size(candidate: Candidate) -> int:
        model = models(candidate)
        units = model.units(candidate.kept(model.groups))
        images = with_recipe(records.study, candidate).training.batch_size
        return arena_placement(layout(model), units, batch_size=images).arena_bytes

    return size


def resized_records(
    records: RunRecords, size: Sizes, *, keeps: Callable[[Candidate], bool] = lambda _one: True
) -> RunRecords:
    """Return a run's records with other sizes.

    Args:
        records: the records; trials that aren't complete are left out.
        size: gives the size of a candidate in bytes.
        keeps: whether a candidate is kept at all.
    """

    def sized(found: Sequence[_Record]) -> tuple[_Record, ...]:
        return tuple(
            replace(one, peak_bytes=size(one.candidate)) for one in found if keeps(one.candidate)
        )

    return replace(
        records,
        trials=sized(records.complete),
        baselines=sized(records.baselines),
        finals=sized(records.finals),
        unpruned_peak_bytes=size(Candidate()),
    )


def planned_measure(measure: Measure, size: Sizes) -> Measure:
    """Return a measure whose bytes are a planner's; seconds are those of a real step here."""

    def planned(candidate: Candidate) -> Measurement:
        return replace(measure(candidate), peak_bytes=size(candidate))

    return planned
