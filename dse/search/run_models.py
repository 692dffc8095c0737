"""The memory models that a run has compiled."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from dse.candidate import Candidate
from dse.memory.model import MemoryModel
from dse.search.costs import memory_recipe
from dse.search.run_folder import RunFolder


def run_models(folder: Path) -> Callable[[Candidate], MemoryModel]:
    """Return what reads a candidate's model of the training step from a run folder.

    Raises:
        MemoryModelError: (the returned function) its file is missing or damaged.
    """

    @cache
    def load(recipe: Candidate) -> MemoryModel:
        return MemoryModel.load(RunFolder(folder).memory_model_of(recipe))

    return lambda candidate: load(memory_recipe(candidate))
