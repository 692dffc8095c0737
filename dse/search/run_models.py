"""The memory models that a run has compiled and stored."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from dse.candidate import Candidate
from dse.memory.model import MemoryModel
from dse.search.costs import memory_recipe
from dse.search.run_folder import RunFolder


def run_models(folder: Path) -> Callable[[Candidate], MemoryModel]:
    """Return a function that loads a candidate's memory model of the training step.

    Args:
        folder: the run folder.

    Raises:
        MemoryModelError: raised by the returned function if the file is missing or damaged.
    """

    @cache
    def load(recipe: Candidate) -> MemoryModel:
        return MemoryModel.load(RunFolder(folder).memory_model_of(recipe))

    return lambda candidate: load(memory_recipe(candidate))
