"""Objectives of a search: what is known of a candidate before it is trained, and its accuracy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dse.candidate import Candidate
from dse.memory.model import MemoryModel
from dse.names import OBJECTIVES as SUMMARIES
from dse.names import Mode
from dse.registry import Registry

# Networks are trained in float32.
_BYTES_PER_PARAMETER = 4


class Priced(Protocol):
    """The part of `dse.search.costs.Costs` that objectives use."""

    def model(self, candidate: Candidate, mode: Mode = "training") -> MemoryModel:
        """Return the memory model of a candidate's recipe."""

    def kept(self, candidate: Candidate) -> tuple[int, ...]:
        """Return the channels that a candidate keeps of each group."""

    def images(self, candidate: Candidate) -> int:
        """Return the batch size of a candidate's training step."""

    def peak_bytes(self, candidate: Candidate) -> int:
        """Return the predicted peak of a candidate's training step in bytes."""


@dataclass(frozen=True)
class ObjectiveKind:
    """One objective.

    Attributes:
        cost: computes it, from the memory models alone; it is minimised. None for `accuracy`, which
            a training measures and which is maximised.
        uses_inference: whether it needs the memory model of inference.
    """

    cost: Callable[[Priced, Candidate], int] | None
    uses_inference: bool = False


def _inference_peak_bytes(costs: Priced, candidate: Candidate) -> int:
    model = costs.model(candidate, "inference")
    return int(model.peaks(costs.kept(candidate), batch_size=costs.images(candidate)))


def _parameters(costs: Priced, candidate: Candidate) -> int:
    held = costs.model(candidate).parameter_bytes(costs.kept(candidate))
    return int(held) // _BYTES_PER_PARAMETER


def _macs_forward(costs: Priced, candidate: Candidate) -> int:
    return int(costs.model(candidate).macs_forward(costs.kept(candidate)))


OBJECTIVES: Registry[ObjectiveKind] = Registry("objective", SUMMARIES)
OBJECTIVES.register("accuracy", ObjectiveKind(cost=None))
OBJECTIVES.register(
    "peak_bytes", ObjectiveKind(cost=lambda costs, candidate: costs.peak_bytes(candidate))
)
OBJECTIVES.register(
    "inference_peak_bytes", ObjectiveKind(cost=_inference_peak_bytes, uses_inference=True)
)
OBJECTIVES.register("parameters", ObjectiveKind(cost=_parameters))
OBJECTIVES.register("macs_forward", ObjectiveKind(cost=_macs_forward))
