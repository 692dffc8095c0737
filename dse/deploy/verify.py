"""Checks a bundle: its files against the recipe, and its training step against the prediction."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from torch import nn

from dse.deploy.bundle import RECIPE_FILE, known_files, load_with, plan_of
from dse.deploy.lean_files import LEAN_FILE, STEPS_FILE, lean_files
from dse.deploy.pte.file import PTE_FILE
from dse.deploy.pte.process import PteRequest, PteSteps, is_installed, run_file
from dse.deploy.recipe import Recipe
from dse.deploy.step_process import StepRequest, run_steps
from dse.errors import ConfigError, ExportError, NetworkError
from dse.memory.cap import can_cap
from dse.trust.files import read_regular, regular_digest

SCHEMA_VERSION = 1
TOLERANCE = 1.01  # of the cap without --ram, above what was measured
GRADIENT_TOLERANCE = 1e-9  # of gradients in float64; those without chunks must have the same bits
_MOST_FILE_BYTES = 2**36
_MOST_BATCH_BYTES = 2**32
_MOST_LEAN_BYTES = 2**24
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
        unpruned_completed: the same of the unpruned network's, trained by the same recipe; None
            without a cap.
        beyond_bytes: bytes that the cap left the bundle beside its tensors; None without a cap.
        pruned: whether the bundle's network has fewer parameters than the unpruned one; None
            without a cap.
        lean_gradient_difference: by how much the gradients of lean.py differ from stock PyTorch's,
            as a share of these; None without a lean.py, or if it differs from what this release
            writes.
        lean_as_written: whether lean.py and lean.json are what this release of dse writes for the
            recipe's plan; None without a lean.py.
        pte: steps of network.pte in ExecuTorch's runtime; None without such a file, or where
            ExecuTorch isn't installed.
    """

    recipe: Recipe
    files: tuple[str, ...]
    measured_peak_bytes: int
    ram_bytes: int | None
    completed: bool | None
    unpruned_completed: bool | None
    beyond_bytes: int | None = None
    pruned: bool | None = None
    lean_gradient_difference: float | None = None
    lean_as_written: bool | None = None
    pte: PteSteps | None = None

    @property
    def same_gradients(self) -> bool:
        """Whether lean.py computes the gradients of stock PyTorch, as far as that was compared."""
        found = self.lean_gradient_difference
        return found is None or found <= GRADIENT_TOLERANCE

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
    network = load_with(folder, recipe, search_path=search_path, trust=trust)
    as_written = _lean_as_written(folder, network, recipe) if LEAN_FILE in files else None

    def request(
        *, unpruned: bool = False, ram: int | None = None, gradients: bool = False
    ) -> StepRequest:
        return StepRequest(
            bundle=str(folder),
            unpruned=unpruned,
            ram_bytes=ram,
            gradients=gradients,
            trust=trust,
            search_path=None if search_path is None else str(search_path),
        )

    measured = run_steps(request()).peak_bytes or 0
    if ram_bytes is None:
        ram_bytes = recipe.ram_bytes or round(TOLERANCE * measured)
    own = whole = None
    if can_cap():
        own = run_steps(request(ram=ram_bytes))
        whole = run_steps(request(unpruned=True, ram=ram_bytes))
    return Verified(
        recipe=recipe,
        files=files,
        measured_peak_bytes=measured,
        ram_bytes=ram_bytes,
        completed=None if own is None else own.completed,
        unpruned_completed=None if whole is None else whole.completed,
        beyond_bytes=None if own is None else own.beyond_bytes,
        pruned=None if own is None or whole is None else own.parameters != whole.parameters,
        lean_gradient_difference=(
            run_steps(request(gradients=True)).gradient_difference if as_written else None
        ),
        lean_as_written=as_written,
        pte=_pte(folder, trust=trust, search_path=search_path) if PTE_FILE in files else None,
    )


def _pte(folder: Path, *, trust: bool, search_path: Path | None) -> PteSteps | None:
    if not is_installed():
        return None
    path = None if search_path is None else str(search_path)
    return run_file(PteRequest(bundle=str(folder), trust=trust, search_path=path))


def _lean_as_written(folder: Path, network: nn.Module, recipe: Recipe) -> bool:
    """Return whether a bundle's lean files are those that its network and its plan give.

    Files that are may run here, since they are this package's own.
    """
    plan = plan_of(folder, recipe)
    if plan is None:
        return False
    try:
        expected = lean_files(network, recipe, plan)
    except NetworkError:
        return False
    found = [_text(folder / name) for name in (LEAN_FILE, STEPS_FILE)]
    return found == list(expected)


def _text(path: Path) -> str:
    """Read a text file of a bundle; an empty text if there is none."""
    try:
        return read_regular(path, most_bytes=_MOST_LEAN_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


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
