"""The choice for a device: its figures, their uncertainty, and why nothing fits if nothing does."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from dse.deploy.contenders import Contender
from dse.deploy.devices import Device
from dse.deploy.remedies import LeastDrop, size_above
from dse.deploy.selection import Rule
from dse.footprint.speed import Speed
from dse.measures import Measure
from dse.metrics import recalls
from dse.names import SearchConvention
from dse.results.balance import ClassImages, PartName
from dse.results.seeds import difference_interval
from dse.units import format_size

SCHEMA_VERSION = 1
WORKSPACE = (
    ", for convention 'tensors' leaves out the workspace of kernels (dse memory --convention "
    'allocator counts it, and a search with search.convention = "allocator")'
)
"""Explains why a real step held more than was predicted."""

HELD = {
    "pytorch": "a real step held",
    "executorch": "its own exported step needs",
    "microcontroller": "a static planner needs",
}
"""What the measured bytes are, by what trains on the device."""

HARDLY_ANY = 0.01  # smaller differences, relative to the prediction, are not explained


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
        ram_bytes: RAM of the device; None if everything fits.
        reserve_bytes: part of it that is reserved for runtime, code and system.
        max_drop: maximum loss of accuracy in points, each a hundredth of the metric's range.
        measured_peak_bytes: peak of a real step of the chosen candidate, or what else `HELD` says;
            None if nothing fits.
        smallest_peak_bytes: peak of the smallest candidate within the allowed loss, as measured if
            that exceeds the prediction.
        smallest_predicted_bytes: its predicted peak.
        notes: candidates that were passed over with reasons, and what the figures hide.
        metric: the metric of the accuracies.
        measure: how they are written in its own unit.
        class_images: labels, and the number of images of each in each part; None if unknown.
        least: the smallest loss with which something would fit; None if nothing would, or
            something is chosen.
        smallest: the smallest candidate of all, regardless of its loss.
        convention: convention of the run's predictions.
        rule: how the candidate was chosen: by accuracy, or as the knee of the front.
        leader: the most accurate candidate that fits; another than the chosen one only if both are
            tied. None if nothing fits.
        tied: other candidates that fit and that the seeds can't tell from the leader, smallest
            first; None if no test is possible or the knee is chosen.
        device: the device that RAM and reserve are of; None for a size.
        runtime: what the sizes are of: a key of `HELD`.
        speed: the chosen candidate's speed beside the unpruned network's, on this machine; None if
            it wasn't compared.
    """

    chosen: Contender | None
    unpruned: Contender
    ram_bytes: int | None
    reserve_bytes: int
    max_drop: float
    measured_peak_bytes: int | None
    smallest_peak_bytes: int
    smallest_predicted_bytes: int
    notes: tuple[str, ...]
    metric: str
    measure: Measure
    class_images: ClassImages | None
    least: LeastDrop | None
    smallest: Contender
    convention: SearchConvention = "tensors"
    rule: Rule = "accuracy"
    leader: Contender | None = None
    tied: tuple[Contender, ...] | None = None
    device: Device | None = None
    runtime: str = "pytorch"
    speed: Speed | None = None

    @property
    def budget_bytes(self) -> int | None:
        """Bytes that a training step may hold; None if everything fits."""
        return None if self.ram_bytes is None else self.ram_bytes - self.reserve_bytes

    @property
    def budget_text(self) -> str:
        """The budget as text: "64.0 MiB", or "esp32-s3 (256.0 KiB of its RAM is free)"."""
        size = "any size" if self.budget_bytes is None else format_size(self.budget_bytes)
        return size if self.device is None else f"{self.device.name} ({size} of its RAM is free)"

    @property
    def smallest_ram_bytes(self) -> int:
        """RAM that the smallest candidate within the allowed loss needs, reserve included."""
        return self.smallest_peak_bytes + self.reserve_bytes

    @property
    def refusal(self) -> str:
        """One line that says that nothing fits, and what would."""
        lost = f"with at most {self.max_drop:g} points of {self.measure.title} lost (--max-drop)"
        # A device's reserve is not that of a size.
        need = self.smallest_ram_bytes if self.device is None else self.smallest_peak_bytes
        flag = "" if self.runtime == "microcontroller" else "--ram "  # which is of PyTorch's steps
        size = f"the smallest feasible size is {flag}{size_above(need)}"
        text = f"nothing fits {self.budget_text} {lost}; "
        above = self.smallest_peak_bytes - self.smallest_predicted_bytes
        if above > self.smallest_predicted_bytes * HARDLY_ANY:
            text += (
                f"the smallest is predicted to hold {format_size(self.smallest_predicted_bytes)}, "
                f"but {HELD[self.runtime]} {format_size(self.smallest_peak_bytes)}"
                f"{self.workspace_text}; "
            )
        return text + size + self._other_way

    @property
    def workspace_text(self) -> str:
        """Why a real step of PyTorch holds more than predicted, as a continuation."""
        explained = self.convention == "tensors" and self.runtime == "pytorch"
        return WORKSPACE if explained else ""

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
    def margin_bytes(self) -> int | None:
        """Bytes of the budget that the prediction leaves; None if nothing or everything fits."""
        if self.chosen is None or self.budget_bytes is None:
            return None
        return self.budget_bytes - self.chosen.peak_bytes

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
            "metric_range": [self.measure.worthless, self.measure.ideal],
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
            "margin_bytes": self.margin_bytes,
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
            "rule": self.rule,
            "tied": None if self.tied is None else [_tied_json(one) for one in self.tied],
            "runtime": self.runtime,
            "device": None if self.device is None else self.device.name,
            "speed": None if self.speed is None else asdict(self.speed),
        }


def _tied_json(one: Contender) -> dict[str, Any]:
    return {
        "label": one.label,
        "trial": one.trial,
        "peak_bytes": one.peak_bytes,
        "accuracy": one.accuracy,
        "selection_accuracy": one.selection_accuracy,
    }
