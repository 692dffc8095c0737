"""Choosing for a device: the most accurate candidate that fits its RAM and loses little.

Candidates are only compared at the same fidelity. Those fine-tuned in full come first. They are
ranked on the selection part; their loss must be within the limit both there and on the validation
part, whose figures are shown. If none of them qualifies, the short fidelity decides.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from dse.candidate import Candidate, with_recipe
from dse.deploy.contenders import Contender, Pool, is_within, pools
from dse.deploy.remedies import (
    LeastDrop,
    Measure,
    MeasuredStep,
    least_drop,
    size_above,
    smallest_of_all,
    smallest_within,
    suggested_flags,
)
from dse.errors import ConfigError
from dse.footprint.measure import measure_candidate
from dse.metrics import TITLES, recalls
from dse.names import Metric, SearchConvention
from dse.results.balance import ClassImages, PartName, imbalance_warning, missed_warning
from dse.results.records import RunRecords, untrusted
from dse.results.seeds import difference_interval
from dse.step.settings import StepSettings
from dse.trust.builders import objection_to_network
from dse.units import format_size

SCHEMA_VERSION = 1
DEFAULT_MAX_DROP = 3.0
WORKSPACE = (
    ", for convention 'tensors' leaves out the workspace of kernels (dse memory --convention "
    'allocator counts it, and a search with search.convention = "allocator")'
)
"""Explains why a real step held more than was predicted."""

_HARDLY_ANY = 0.01  # smaller differences, relative to the prediction, are not explained


@dataclass(frozen=True, kw_only=True)
class WorstRecall:
    """The class with the lowest recall of a network.

    Attributes:
        label: label of the class.
        recall: mean recall over the seeds, 0 to 1.
        images: number of the class's images in the part.
        part: part of the data.
    """

    label: str
    recall: float
    images: int
    part: PartName


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The choice for a device, or the finding that nothing fits.

    Attributes:
        chosen: the chosen candidate; None if nothing fits.
        unpruned: the unpruned network at the same fidelity.
        ram_bytes: RAM of the device.
        reserve_bytes: part of it that is reserved for runtime, code and system.
        max_drop: maximum loss of accuracy in points.
        measured_peak_bytes: peak of a real step of the chosen candidate; None if nothing fits.
        smallest_peak_bytes: peak of the smallest candidate within the allowed loss, as measured if
            that exceeds the prediction.
        smallest_predicted_bytes: its predicted peak.
        notes: candidates that were passed over with reasons, and what the figures hide.
        metric: the metric of the accuracies.
        class_images: labels, and the number of images of each in each part; None if unknown.
        least: the smallest loss with which something would fit; None if nothing would, or
            something is chosen.
        smallest: the smallest candidate of all, regardless of its loss.
        convention: convention of the run's predictions.
    """

    chosen: Contender | None
    unpruned: Contender
    ram_bytes: int
    reserve_bytes: int
    max_drop: float
    measured_peak_bytes: int | None
    smallest_peak_bytes: int
    smallest_predicted_bytes: int
    notes: tuple[str, ...]
    metric: Metric
    class_images: ClassImages | None
    least: LeastDrop | None
    smallest: Contender
    convention: SearchConvention = "tensors"

    @property
    def budget_bytes(self) -> int:
        """Bytes that a training step may hold."""
        return self.ram_bytes - self.reserve_bytes

    @property
    def smallest_ram_bytes(self) -> int:
        """RAM that the smallest candidate within the allowed loss needs, reserve included."""
        return self.smallest_peak_bytes + self.reserve_bytes

    @property
    def refusal(self) -> str:
        """One line that says that nothing fits, and what would."""
        lost = f"with at most {self.max_drop:g} points of {TITLES[self.metric]} lost (--max-drop)"
        size = f"the smallest feasible size is --ram {size_above(self.smallest_ram_bytes)}"
        said = f"nothing fits {format_size(self.budget_bytes)} {lost}; "
        above = self.smallest_peak_bytes - self.smallest_predicted_bytes
        if above > self.smallest_predicted_bytes * _HARDLY_ANY:
            said += (
                f"the smallest is predicted to hold {format_size(self.smallest_predicted_bytes)}, "
                f"but a real step held {format_size(self.smallest_peak_bytes)}"
                f"{WORKSPACE if self.convention == 'tensors' else ''}; "
            )
        return said + size + self._other_way

    @property
    def _other_way(self) -> str:
        """What a larger loss would allow, as a continuation of `refusal`."""
        if self.least is not None:
            return (
                f"; --max-drop {self.least.max_drop:g} would give {self.least.label} at this size"
            )
        smallest = self.smallest
        if smallest.peak_bytes >= self.smallest_predicted_bytes:
            return ""
        return (
            f"; the smallest of all, whatever it loses, is {smallest.label} with "
            f"{format_size(smallest.peak_bytes)}"
        )

    @property
    def drop(self) -> float | None:
        """Loss of the shown accuracy in points; None if nothing fits."""
        if self.chosen is None:
            return None
        return 100 * (self.unpruned.accuracy - self.chosen.accuracy)

    @property
    def drop_interval(self) -> tuple[float, float] | None:
        """Welch's 95 % interval of the loss in points, over the seeds.

        None if nothing fits, the unpruned network is chosen, or there are too few seeds.
        """
        if self.chosen is None or self.chosen.label == self.unpruned.label:
            return None
        ends = difference_interval(self.unpruned.figures, self.chosen.figures)
        return None if ends is None else (100 * ends[0], 100 * ends[1])

    @property
    def worst(self) -> WorstRecall | None:
        """The chosen candidate's class with the lowest recall; None if recalls are unknown."""
        if self.chosen is None or self.class_images is None or not self.chosen.correct:
            return None
        part = self.chosen.part
        images = self.class_images.of(part)
        known = [
            (recall, images[number], self.class_images.labels[number])
            for number, recall in enumerate(recalls(self.chosen.correct, images))
            if recall is not None
        ]
        recall, count, label = min(known)
        return WorstRecall(label=label, recall=recall, images=count, part=part)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `dse pick --json` prints (docs/schemas/pick-1.json)."""
        chosen = self.chosen
        shown = chosen or self.unpruned
        return {
            "version": SCHEMA_VERSION,
            "feasible": chosen is not None,
            "trial": chosen and chosen.trial,
            "label": chosen and chosen.label,
            "candidate": chosen and json.loads(chosen.candidate.canonical_json()),
            "accuracy": chosen and chosen.accuracy,
            "selection_accuracy": chosen and chosen.selection_accuracy,
            "metric": self.metric,
            "seeds": len(shown.figures),
            "drop": self.drop,
            "drop_interval": self.drop_interval and list(self.drop_interval),
            "worst_recall": self.worst and asdict(self.worst),
            "least_max_drop": self.least and self.least.max_drop,
            "fidelity": shown.fidelity,
            "accuracy_part": shown.part,
            "peak_bytes": chosen and chosen.peak_bytes,
            "measured_peak_bytes": self.measured_peak_bytes,
            "ram_bytes": self.ram_bytes,
            "reserve_bytes": self.reserve_bytes,
            "budget_bytes": self.budget_bytes,
            "margin_bytes": chosen and self.budget_bytes - chosen.peak_bytes,
            "max_drop": self.max_drop,
            "step_seconds": chosen and chosen.step_seconds,
            "unpruned": {
                "accuracy": self.unpruned.accuracy,
                "selection_accuracy": self.unpruned.selection_accuracy,
                "peak_bytes": self.unpruned.peak_bytes,
                "step_seconds": self.unpruned.step_seconds,
            },
            "smallest_peak_bytes": self.smallest_peak_bytes,
            "smallest_ram_bytes": self.smallest_ram_bytes,
            "notes": list(self.notes),
        }


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
    measured: MeasuredStep | None = None
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
    "fine-tuned in full qualifies (where these are missing, let dse run go on)"
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


def measure_of(records: RunRecords) -> Measure:
    """Return a function that measures a candidate's training step on this machine.

    Raises:
        RunError: if the run isn't trusted to build its network.
    """
    study = records.study
    if not records.trusted:
        objection = objection_to_network(study.network.name, study.network.options)
        if objection is not None:
            raise untrusted(records.folder, objection)

    def measure(candidate: Candidate) -> MeasuredStep:
        own = with_recipe(study, candidate)
        training = own.training
        return measure_candidate(
            study.network.name,
            candidate,
            classes=records.classes,
            image_size=own.data.image_size,
            batch_size=training.batch_size,
            settings=StepSettings.of(training),
            options=study.network.options,
            search_path=study.source_dir,
            device=training.device,
            threads=training.threads,
        )

    return measure


def _check(ram_bytes: int, reserve_bytes: int, max_drop: float) -> None:
    if ram_bytes <= 0:
        raise ConfigError(f"--ram is {ram_bytes} bytes: it must be above 0, as in 64MiB")
    if not 0 <= reserve_bytes < ram_bytes:
        raise ConfigError(
            f"--reserve {format_size(reserve_bytes)} leaves nothing of --ram "
            f"{format_size(ram_bytes)}: lower it"
        )
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise ConfigError(f"--max-drop is {max_drop}: it must be a number of points from 0 on")


def _first_that_fits(
    pool: Pool, budget_bytes: int, max_drop: float, measure: Measure, notes: list[str]
) -> tuple[Contender | None, MeasuredStep | None]:
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
    chosen: Contender, unpruned: Contender, measured: MeasuredStep, measure: Measure
) -> tuple[Contender, Contender]:
    """Return both with a time per step that was measured in the same way."""
    if chosen.step_seconds is not None and unpruned.step_seconds is not None:
        return chosen, unpruned
    whole = measured if chosen.label == unpruned.label else measure(unpruned.candidate)
    return (
        replace(chosen, step_seconds=measured.step_seconds),
        replace(unpruned, step_seconds=whole.step_seconds),
    )
