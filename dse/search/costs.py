"""The costs of a candidate, which are known exactly before any training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dse.candidate import Candidate
from dse.memory.model import MemoryModel
from dse.methods.workbench import memory_recipe
from dse.names import Mode
from dse.search.objectives import OBJECTIVES

_OWN = Candidate()  # stands for the study's own recipe


@dataclass(frozen=True)
class Costs:
    """The objectives that need no training.

    Attributes:
        training: memory model of the training step.
        inference: memory model of inference; only some objectives need it.
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
    objectives: Sequence[str]
    variant: Callable[[Candidate, Mode], MemoryModel] | None = None
    beyond_tensors_bytes: int = 0
    on_device: Callable[[Candidate], int] | None = None

    def of(self, candidate: Candidate) -> dict[str, int]:
        """Return each objective but accuracy by name, in the study's order."""
        kinds = {word: OBJECTIVES[word].cost for word in self.objectives}
        return {word: cost(self, candidate) for word, cost in kinds.items() if cost is not None}

    def peak_bytes(self, candidate: Candidate) -> int:
        """Return the predicted peak of one training step in bytes."""
        if self.on_device is not None:
            return self.on_device(candidate)
        return int(self.peaks(self.kept(candidate), recipe=candidate))

    def peaks(self, kept: ArrayLike, *, recipe: Candidate = _OWN) -> NDArray[np.int64]:
        """Return the predicted peaks of one training step in bytes, (n,) int64.

        Args:
            kept: channels of each group, (n, groups).
            recipe: a candidate whose recipe applies to all rows; its channels are ignored.
        """
        predicted = self.model(recipe).peaks(kept, batch_size=self.images(recipe))
        return predicted + self.beyond_tensors_bytes

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

    def kept(self, candidate: Candidate) -> tuple[int, ...]:
        """Return the channels that a candidate keeps of each group."""
        return candidate.kept(self.training.groups)

    def images(self, candidate: Candidate) -> int:
        """Return the batch size of a candidate's training step."""
        return candidate.batch_size or self.batch_size
