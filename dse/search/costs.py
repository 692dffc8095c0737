"""The costs of a candidate, which are known exactly before any training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.candidate import Candidate
from dse.memory.model import MemoryModel
from dse.methods.workbench import memory_recipe
from dse.names import Mode, Objective

# Networks are trained in float32.
_BYTES_PER_PARAMETER = 4

_OWN = Candidate()  # stands for the study's own recipe


@dataclass(frozen=True)
class Costs:
    """The objectives that need no training.

    Attributes:
        training: memory model of the training step.
        inference: memory model of inference; only `inference_peak_bytes` needs it.
        batch_size: the study's batch size, used where a candidate sets none.
        objectives: names of the study's objectives, accuracy included.
        beyond_tensors_bytes: approximate bytes that the device holds beyond tensors; added to
            `peaks`.
        on_device: predicts a candidate's peak on the device, exactly and in seconds; None if only
            tensors are counted.
        variant: returns the memory model of another recipe's step; None if there is one recipe.
    """

    training: MemoryModel
    inference: MemoryModel | None
    batch_size: int
    objectives: Sequence[Objective]
    variant: Callable[[Candidate, Mode], MemoryModel] | None = None
    beyond_tensors_bytes: int = 0
    on_device: Callable[[Candidate], int] | None = None

    def of(self, candidate: Candidate) -> dict[str, int]:
        """Return each objective but accuracy by name, in the study's order."""
        return {
            objective: self._one(objective, candidate)
            for objective in self.objectives
            if objective != "accuracy"
        }

    def peak_bytes(self, candidate: Candidate) -> int:
        """Return the predicted peak of one training step in bytes."""
        if self.on_device is not None:
            return self.on_device(candidate)
        return int(self.peaks(self._kept(candidate), recipe=candidate))

    def peaks(self, kept: ArrayLike, *, recipe: Candidate = _OWN) -> NDArray[np.int64]:
        """Return the predicted peaks of one training step in bytes, (n,) int64.

        Args:
            kept: channels of each group, (n, groups).
            recipe: a candidate whose recipe applies to all rows; its channels are ignored.
        """
        batch_size = recipe.batch_size or self.batch_size
        return self.model(recipe).peaks(kept, batch_size=batch_size) + self.beyond_tensors_bytes

    def held_bytes(self, kept: Sequence[int]) -> NDArray[np.float64]:
        """Return the bytes that each group holds at the peak of one training step, (groups,).

        This is the peak's derivative by the group's channels, times the channels. Bytes that belong
        to two groups, such as the weights between them, count in both.
        """
        _, slopes = self.training.peak_and_gradient(kept, batch_size=self.batch_size)
        held: NDArray[np.float64] = slopes * np.asarray(kept)
        return held

    def model(self, candidate: Candidate, mode: Mode = "training") -> MemoryModel:
        """Return the memory model of a candidate's recipe."""
        recipe = memory_recipe(candidate, mode)
        if recipe != _OWN:
            if self.variant is None:
                raise ValueError(f"no memory model is at hand for {recipe.canonical_json()}")
            return self.variant(recipe, mode)
        if mode == "training":
            return self.training
        if self.inference is None:
            raise ValueError("no memory model of inference is at hand")
        return self.inference

    def _one(self, objective: Objective, candidate: Candidate) -> int:
        kept = self._kept(candidate)
        match objective:
            case "inference_peak_bytes":
                batch_size = candidate.batch_size or self.batch_size
                return int(self.model(candidate, "inference").peaks(kept, batch_size=batch_size))
            case "parameters":
                return int(self.model(candidate).parameter_bytes(kept)) // _BYTES_PER_PARAMETER
            case "macs_forward":
                return int(self.model(candidate).macs_forward(kept))
            case "peak_bytes":
                return self.peak_bytes(candidate)
        raise ValueError(f"{objective} is not known before training")

    def _kept(self, candidate: Candidate) -> tuple[int, ...]:
        return candidate.kept(self.training.groups)
