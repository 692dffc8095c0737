"""The memory models that a run has compiled and stored."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dse.candidate import Candidate
from dse.errors import MemoryModelError
from dse.memory.model import MemoryModel
from dse.methods.workbench import memory_recipe
from dse.names import Mode
from dse.search.run_folder import RunFolder
from dse.search.whole_files import unwritable

_LOG = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class StoredModels:
    """The memory models in a run folder, as a store of `dse.methods.workbench`.

    Attributes:
        folder: the run folder.
        valid: whether the stored models are of this network, these settings and this release.
    """

    folder: RunFolder
    valid: bool

    def load(self, recipe: Candidate, mode: Mode) -> MemoryModel | None:
        """Return a recipe's stored model; None if it is missing, damaged or not valid."""
        path = self.folder.memory_model_of(recipe, mode)
        if not self.valid or not path.is_file():
            return None
        try:
            return MemoryModel.load(path)
        except MemoryModelError as error:
            _LOG.warning("%s; it is compiled anew", error)
            return None

    def save(self, recipe: Candidate, mode: Mode, model: MemoryModel) -> None:
        """Store a recipe's model.

        Raises:
            RunError: if the file can't be written.
        """
        path = self.folder.memory_model_of(recipe, mode)
        try:
            path.parent.mkdir(exist_ok=True)
            model.save(path)
        except OSError as error:
            raise unwritable(path, error) from error

    def outdated(self, recipes: Sequence[Candidate]) -> list[Candidate]:
        """Return the recipes whose stored models must be compiled again, and delete other models.

        The returned recipes' files stay until they are overwritten, so that an interrupted start
        finds them again.

        Args:
            recipes: recipes of the search space.

        Returns:
            Recipes other than the study's own; none if the stored models are valid.
        """
        if self.valid:
            return []
        by_path = {self.folder.memory_model_of(one): one for one in map(memory_recipe, recipes)}
        paths = self.folder.variants()
        for path in paths:
            if path not in by_path:
                path.unlink()
        return [by_path[path] for path in paths if path in by_path]
