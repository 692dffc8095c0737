"""A bundle: a folder with a network's weights and the recipe that rebuilds it.

`recipe.json` describes the network and how it was made, and `weights.safetensors` holds its tensors
(`model.safetensors` in bundles of version 1). Neither file can contain code, nothing is unpickled,
and the Python files beside them are never imported here. A user's own network factory runs only if
the caller trusts the bundle; otherwise only known libraries' classifiers are built.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from dse.candidate import Candidate
from dse.deploy.formats import FORMATS
from dse.deploy.recipe import Recipe
from dse.digests import bytes_digest
from dse.engines.network import run_by
from dse.engines.plan import LeanPlan
from dse.engines.plan_json import plan_from_json
from dse.errors import DseError, ExportError
from dse.footprint.rebuild import rebuild
from dse.metrics import recalls
from dse.names import runs_code
from dse.networks.build import load_tensors
from dse.results.seeds import share_interval
from dse.step.schemes import apply_scheme
from dse.tasks.task import Figures
from dse.trust.builders import objection_to_network
from dse.trust.files import regular_digest

RECIPE_FILE = "recipe.json"
WEIGHTS_FILE = "weights.safetensors"
_OLDER_FILES = ("model.safetensors",)
_PARTIAL = ".partial-"
_MOST_HEADER_BYTES = 16 * 2**20  # of the weights file, with names and shapes of its tensors
_LONGEST_REASON = 400


def load(
    folder: str | os.PathLike[str],
    *,
    search_path: Path | None = None,
    trust: bool = False,
    lean: bool = False,
) -> nn.Module:
    """Rebuild the network of a bundle, in eval mode on the CPU.

    Args:
        folder: a folder written by `dse export`.
        search_path: folder in which the network's own `package.module:factory` is searched, in
            addition to the import path; only used with `trust`.
        trust: run the code that the recipe names. Without it, only torchvision's classifiers with
            plain options are built, so that bundles of unknown origin can be loaded safely.
        lean: return the network lean, with the recipe's plan and scheme, ready to be trained. It
            has the same state-dict keys; ``dse.unlean`` gives the stock network.

    Raises:
        ExportError: if a file is missing, damaged, of a newer version, or doesn't match the other;
            if the network isn't torchvision's and the bundle isn't trusted; or if a weight is not
            finite.
    """
    path = Path(folder)
    recipe = Recipe.read(path / RECIPE_FILE)
    plan = plan_of(path, recipe) if lean else None
    if lean and plan is None:
        raise ExportError(
            f"{path} was made for the engine {recipe.engine!r} and has no lean plan: load it with "
            "lean=False, and call dse.lean(network, images, scheme) on it"
        )
    network = load_with(path, recipe, search_path=search_path, trust=trust)
    if plan is None:
        return network
    example = recipe.input_spec.example(2)
    apply_scheme(network, example, recipe.scheme)
    return run_by(network, example, plan).eval()


def plan_of(path: Path, recipe: Recipe) -> LeanPlan | None:
    """Return the plan of a bundle's lean step; None for stock PyTorch.

    Raises:
        ExportError: if the plan is damaged.
    """
    if recipe.plan is None:
        return None
    try:
        return plan_from_json(json.dumps(recipe.plan))
    except ValueError as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ExportError(f"{path / RECIPE_FILE} is damaged: plan: {reason}") from error


def load_with(
    path: Path, recipe: Recipe, *, search_path: Path | None = None, trust: bool = False
) -> nn.Module:
    """Rebuild the network of a bundle whose recipe was read already; see `load`."""
    if not trust and (objection := objection_to_network(recipe.network, recipe.options)):
        raise ExportError(
            f"{path}: {objection}; load it with trust=True, or give --trust, if you trust whoever "
            "made it"
        )
    network = _rebuilt(path, recipe, search_path)
    weights = path / recipe.weights_file
    own_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    try:
        digest = regular_digest(weights, most_bytes=own_bytes + _MOST_HEADER_BYTES)
    except OSError as error:
        raise ExportError(f"{weights} can't be read: {error.strerror}") from error
    expected = recipe.digests.get(recipe.weights_file)
    if digest != expected:
        raise ExportError(
            f"{weights} is damaged or belongs to another recipe: its SHA-256 begins with "
            f"{digest[:12]}, the recipe's with {str(expected)[:12]}; export again"
        )
    try:
        _check_tensors(network, weights)
        load_tensors(network, weights)
    except ExportError:
        raise
    except DseError as error:
        raise ExportError(f"{path} can't be rebuilt: {error}") from error
    network.eval()
    return network


def _rebuilt(path: Path, recipe: Recipe, search_path: Path | None) -> nn.Module:
    """Build the network that a recipe describes, turning any exception into an ExportError."""
    try:
        return rebuild(
            recipe.network,
            classes=recipe.classes,
            inputs=recipe.input_spec,
            candidate=Candidate(channels=recipe.channels, scheme=recipe.scheme, drop=recipe.drop),
            options=recipe.options,
            search_path=search_path,
            outputs=recipe.outputs,
        )
    except (Exception, SystemExit) as error:
        own = search_path is None and runs_code(recipe.network)
        fix = "; give load() the folder of its module or file as search_path=" if own else ""
        kind = "" if isinstance(error, DseError) else f"{type(error).__name__}: "
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ExportError(f"{path} can't be rebuilt: {kind}{reason}{fix}") from error


def _check_tensors(network: nn.Module, weights: Path) -> None:
    """Check that tensors have the network's dtypes, and that weights are finite.

    Buffers may hold infinity, for example in a mask, but not NaN.

    Raises:
        ExportError: if the file is damaged, or a tensor fails a check; names the first such tensor.
    """
    try:
        tensors = safetensors.torch.load_file(weights)
    except (SafetensorError, KeyError, ValueError, OSError) as error:  # KeyError: unknown dtype
        raise ExportError(f"{weights} is not a readable safetensors file: {error}") from error
    own = network.state_dict()
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    for name, tensor in tensors.items():
        if name in own and tensor.dtype != own[name].dtype:
            raise ExportError(
                f"{weights}: tensor {name!r} is of type {tensor.dtype}, not {own[name].dtype}"
            )
        if not tensor.is_floating_point():
            continue
        sound = tensor.isfinite() if name in parameters else ~tensor.isnan()
        if not sound.all():
            raise ExportError(f"{weights}: tensor {name!r} holds NaN or infinity")


def check_target(folder: Path) -> None:
    """Check that a bundle can be written to a folder, before anything is trained for it.

    Raises:
        ExportError: if it is a file, or a folder that holds anything but an older bundle.
    """
    try:
        present = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
        nearest = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        TemporaryDirectory(prefix=_PARTIAL, dir=nearest).cleanup()  # raises if not writable
    except OSError as error:
        raise ExportError(
            f"{folder} can't hold a bundle: {error.strerror}; give --out another folder"
        ) from error
    bundled = RECIPE_FILE in present
    ours = known_files() if bundled else {WEIGHTS_FILE, *_OLDER_FILES}
    for name in present:
        if name not in ours and not name.startswith(_PARTIAL):
            raise ExportError(
                f"{folder} holds {name!r}, which no bundle does: give --out a new or empty folder"
            )


def write(
    folder: Path,
    *,
    network: nn.Module,
    recipe: Recipe,
    score: Callable[[nn.Module], Figures],
    search_path: Path | None = None,
    add: Callable[[Path, Recipe], None] = lambda _folder, _recipe: None,
) -> Recipe:
    """Write a bundle; an existing one is replaced only after the new one was read back.

    Args:
        folder: the folder; created if missing.
        network: network whose tensors are written.
        recipe: recipe; its digest of the weights and its scores are filled in.
        score: returns a network's metrics; called with the network that was read back.
        search_path: see `load`; the caller has built the network, so its code is trusted.
        add: writes further files into the folder that it is given; called with the scored recipe.

    Returns:
        The recipe as written.

    Raises:
        ExportError: if the folder can't be used, or the bundle can't be read back.
    """
    check_target(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left)
        with TemporaryDirectory(prefix=_PARTIAL, dir=folder) as name:
            staging = Path(name)
            # Tied parameters share memory, which the format can't express, so each is copied.
            tensors = {
                key: tensor.detach().cpu().contiguous().clone()
                for key, tensor in network.state_dict().items()
            }
            # save_file would create a file that only its owner can read.
            content = safetensors.torch.save(tensors)
            (staging / WEIGHTS_FILE).write_bytes(content)
            digests = {**recipe.digests, WEIGHTS_FILE: bytes_digest(content)}
            recipe = recipe.model_copy(update={"digests": digests})
            _write_recipe(staging, recipe)
            found = score(load(staging, search_path=search_path, trust=True))
            recipe = recipe.model_copy(update=_scored(recipe, found))
            add(staging, recipe)
            names = sorted({file.name for file in staging.iterdir()} - {RECIPE_FILE})
            most = sys.maxsize
            own = {name: regular_digest(staging / name, most_bytes=most) for name in names}
            recipe = recipe.model_copy(update={"digests": {**recipe.digests, **own}})
            _write_recipe(staging, recipe)
            # If the process dies in between, the digests reveal that the files don't match.
            for file in (*names, RECIPE_FILE):
                (staging / file).replace(folder / file)
            for file in known_files() - {*names, RECIPE_FILE}:
                (folder / file).unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"{folder} can't be written: {error.strerror}") from error
    return recipe


def _scored(recipe: Recipe, found: Figures) -> dict[str, Any]:
    """Return a recipe's fields about the metrics of the network that was read back."""
    own = recipe.measure.score(found.values[recipe.metric])
    fields: dict[str, Any] = {"accuracy": own, "scores": dict(found.values)}
    if (confusion := found.confusion) is not None:
        right, images = sum(confusion.correct), sum(confusion.images)
        fields |= {
            "accuracy": confusion.score("accuracy"),
            "recalls": recalls([confusion.correct], confusion.images),
            "accuracy_interval": share_interval(right, images),
        }
    return fields


def known_files() -> set[str]:
    """Return the names of the files that a bundle may consist of."""
    added = {name for kind in FORMATS.values() for name in kind.files}
    return {RECIPE_FILE, WEIGHTS_FILE, *_OLDER_FILES, *added}


def _write_recipe(folder: Path, recipe: Recipe) -> None:
    (folder / RECIPE_FILE).write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")
