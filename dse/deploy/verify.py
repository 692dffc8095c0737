"""Checks a bundle: its files against the recipe, and its training step against the prediction."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from dse.deploy.bundle import RECIPE_FILE, known_files, load_with
from dse.deploy.recipe import Recipe
from dse.deploy.step_process import StepRequest, run_steps
from dse.errors import ConfigError, ExportError
from dse.memory.cap import can_cap
from dse.trust.files import regular_digest

SCHEMA_VERSION = 1
TOLERANCE = 1.01  # of the cap without --ram, above what was measured
_MOST_FILE_BYTES = 2**36
_MOST_BATCH_BYTES = 2**32
_NUMBER_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found. The bundle is undamaged, otherwise there is no result.

    Attributes:
        recipe: the bundle's recipe.
        files: names of the files that were compared with their digests.
        measured_peak_bytes: what a real training step held at its peak here.
        ram_bytes: bytes at which the steps were capped; None if this platform has no cap.
        completed: whether the bundle's steps completed under the cap; None without one.
        unpruned_completed: the same of the unpruned network's; None without a cap.
    """

    recipe: Recipe
    files: tuple[str, ...]
    measured_peak_bytes: int
    ram_bytes: int | None
    completed: bool | None
    unpruned_completed: bool | None

    @property
    def fits(self) -> bool:
        """Whether the steps completed; where there is no cap, whether they held little enough."""
        if self.completed is not None:
            return self.completed
        return self.ram_bytes is None or self.measured_peak_bytes <= self.ram_bytes


def verify(
    folder: Path, *, ram_bytes: int | None, trust: bool = False, search_path: Path | None = None
) -> Verified:
    """Check a bundle's files, and run real training steps on noise with and without a cap.

    No Python file of the bundle is imported.

    Args:
        folder: the bundle.
        ram_bytes: bytes that a step may hold; None takes the recipe's, or 1 % above what a step
            holds here.
        trust: whether code that the recipe names may run.
        search_path: folder in which that code is searched, too; ignored if it is the bundle.

    Raises:
        ConfigError: if the size is not above 0.
        ExportError: if the bundle is damaged, was changed, is of a newer version or isn't trusted.
    """
    if ram_bytes is not None and ram_bytes <= 0:
        raise ConfigError(f"--ram is {ram_bytes} bytes: it must be above 0, as in 64MiB")
    folder = folder.absolute()
    recipe = Recipe.read(folder / RECIPE_FILE)
    batch_bytes = recipe.batch_size * prod(recipe.input_spec.shape) * _NUMBER_BYTES
    if not 0 < batch_bytes <= _MOST_BATCH_BYTES:
        raise ExportError(
            f"{folder / RECIPE_FILE} is damaged: a batch of {recipe.batch_size} samples of "
            f"{recipe.input_spec.text} can't be run"
        )
    files = check_files(folder, recipe)
    if search_path is not None and search_path.resolve().is_relative_to(folder.resolve()):
        search_path = None
    load_with(folder, recipe, search_path=search_path, trust=trust)

    def request(*, unpruned: bool = False, ram: int | None = None) -> StepRequest:
        return StepRequest(
            bundle=str(folder),
            unpruned=unpruned,
            ram_bytes=ram,
            trust=trust,
            search_path=None if search_path is None else str(search_path),
        )

    measured = run_steps(request()).peak_bytes or 0
    if ram_bytes is None:
        ram_bytes = recipe.ram_bytes or round(TOLERANCE * measured)
    capped = can_cap()
    return Verified(
        recipe=recipe,
        files=files,
        measured_peak_bytes=measured,
        ram_bytes=ram_bytes,
        completed=run_steps(request(ram=ram_bytes)).completed if capped else None,
        unpruned_completed=(
            run_steps(request(unpruned=True, ram=ram_bytes)).completed if capped else None
        ),
    )


def check_files(folder: Path, recipe: Recipe) -> tuple[str, ...]:
    """Compare every file that a bundle may have with its digest, and return their names.

    Only names that dse knows are opened, so a recipe can't lead out of the folder.

    Raises:
        ExportError: if a file is missing, has another digest, or has none.
    """
    found = []
    for name in sorted(known_files() - {RECIPE_FILE}):
        path, expected = folder / name, recipe.digests.get(name)
        there = path.is_symlink() or path.exists()
        if expected is None and not there:
            continue
        if expected is None:
            raise ExportError(f"{path} isn't in the recipe: it was added later; take it out")
        try:
            digest = regular_digest(path, most_bytes=_MOST_FILE_BYTES)
        except OSError as error:
            raise ExportError(f"{path} can't be read: {error.strerror}; export again") from error
        if digest != expected:
            raise ExportError(
                f"{path} was changed or is damaged: its SHA-256 begins with {digest[:12]}, the "
                f"recipe's with {expected[:12]}; export again"
            )
        found.append(name)
    return tuple(found)
