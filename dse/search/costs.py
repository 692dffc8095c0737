"""What a candidate costs, known exactly and before any training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.candidate import Candidate
from dse.config import Objective
from dse.memory.model import MemoryModel

# Networks are trained in single precision.
_BYTES_PER_PARAMETER = 4


@dataclass(frozen=True)
class Costs:
    """The objectives that need no training.

    Attributes:
        training: memory model of the training step.
        inference: memory model of inference; needed for `inference_peak_bytes` alone.
        batch_size: the study's, where a candidate names none.
        objectives: the study's, accuracy included.
    """

    training: MemoryModel
    inference: MemoryModel | None
    batch_size: int
    objectives: Sequence[Objective]

    def of(self, candidate: Candidate) -> dict[str, int]:
        """Return each objective but accuracy, by name, in the study's order."""
        return {
            objective: self._one(objective, candidate)
            for objective in self.objectives
            if objective != "accuracy"
        }

    def peak_bytes(self, candidate: Candidate) -> int:
        """Return the predicted peak of one training step."""
        return self._peak(self.training, candidate)

    def peaks(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the predicted peaks of one training step, (n, groups) channels to (n,)."""
        return self.training.peaks(kept, batch_size=self.batch_size)

    def held_bytes(self, kept: Sequence[int]) -> NDArray[np.float64]:
        """Return what each group holds at the peak of one training step, (groups,) bytes.

        The peak's derivative by a group's channels, times the channels: shares of it that belong to
        two groups, such as weights, count in both.
        """
        _, slopes = self.training.peak_and_gradient(kept, batch_size=self.batch_size)
        held: NDArray[np.float64] = slopes * np.asarray(kept)
        return held

    def _one(self, objective: Objective, candidate: Candidate) -> int:
        channels = candidate.kept(self.training.groups)
        match objective:
            case "inference_peak_bytes" if self.inference is not None:
                return self._peak(self.inference, candidate)
            case "parameters":
                return int(self.training.parameter_bytes(channels)) // _BYTES_PER_PARAMETER
            case "macs_forward":
                return int(self.training.macs_forward(channels))
            case "peak_bytes":
                return self._peak(self.training, candidate)
        raise ValueError(f"{objective} is not known before training")

    def _peak(self, model: MemoryModel, candidate: Candidate) -> int:
        batch_size = candidate.batch_size or self.batch_size
        return int(model.peaks(candidate.kept(model.groups), batch_size=batch_size))
