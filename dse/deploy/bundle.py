"""A bundle: a folder with a fine-tuned network's weights and the recipe that rebuilds it.

`recipe.json` describes the network and how it was made, and `model.safetensors` holds its tensors.
Neither file can contain code, and nothing is unpickled. A user's own network factory runs only if
the caller trusts the bundle; otherwise only torchvision's classifiers are built.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, Self

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from torch import nn

from dse.candidate import Candidate
from dse.config.fields import Count, ImageSize, Scheme
from dse.errors import DseError, ExportError
from dse.footprint.rebuild import rebuild
from dse.metrics import TITLES, Confusion, recalls
from dse.names import Metric
from dse.networks.build import TORCHVISION, load_tensors
from dse.trust.builders import objection_to_network
from dse.trust.files import read_regular, regular_digest

RECIPE_VERSION = 1
RECIPE_FILE = "recipe.json"
WEIGHTS_FILE = "model.safetensors"
_PARTIAL = ".partial-"
_MOST_RECIPE_BYTES = 4 * 2**20
_MOST_HEADER_BYTES = 16 * 2**20  # of the weights file, with names and shapes of its tensors
_LARGEST = 2**31
_LONGEST_TEXT = 80  # maximum length of a recipe's text in an error message
_LONGEST_REASON = 400
Whole = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Triple = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]


class _Frozen(BaseModel):
    # Unknown fields are allowed, so that a bundle with fields of a later release can be read.
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Preprocessing(_Frozen):
    """What is done with an image before the network sees it.

    Attributes:
        mean: subtracted from each colour, on the scale from 0 to 1.
        std: each colour is then divided by it.
        pixel_values: how the study's stored values became bytes, whose 255 is the 1 of that scale,
            as text; for example the white of 12-bit greys. Empty in bundles of older releases.
    """

    mean: Triple
    std: tuple[Positive, Positive, Positive]
    pixel_values: str = ""


class Recipe(_Frozen):
    """How a network was made, and everything needed to rebuild it (docs/schemas/recipe-1.json).

    Attributes:
        channels: kept channels of every channel group, in execution order.
        weights: the weights it started from; for a file, its name.
        importance: the criterion by which channels were chosen.
        reconstruct: whether layers that read pruned channels were refitted by least squares.
        recovery: aim of the training before the transfer; None if there was none.
        labels: labels in the order of the outputs.
        accuracy: accuracy of the reloaded bundle on the validation part, 0 to 1.
        metric: the study's metric.
        scores: all metrics of the reloaded bundle on the validation part, by name.
        recalls: recall of each label on the validation part, in the order of the outputs; None for
            a label without images. Empty, like `scores`, in bundles of older releases.
        peak_bytes: predicted peak memory of one training step.
        digests: SHA-256 of the weights file, and digests of candidate, study and memory model.
        versions: versions of the packages it was made with.
    """

    version: Literal[1] = 1
    network: str
    options: dict[str, Any]
    classes: int = Field(ge=1, lt=_LARGEST)
    weights: str
    channels: dict[str, Annotated[Count, Field(lt=_LARGEST)]]
    trial: Whole | None
    scheme: Scheme
    optimizer: str
    learning_rate: float
    weight_decay: float
    nesterov: bool
    epochs: float
    batch_size: Whole
    image_size: ImageSize
    memory_format: str
    accumulate: Annotated[Count, Field(lt=_LARGEST)] = 1
    checkpointing: str = "none"
    precision: str = "float32"
    foreach: bool = False
    fused: bool = False
    importance: str = "l1"
    reconstruct: bool = False
    recovery: str | None = None
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    peak_bytes: Whole
    convention: str
    accuracy: float = Field(ge=0, le=1)
    metric: Metric = "accuracy"
    scores: dict[Metric, Share] = Field(default_factory=dict)
    recalls: tuple[Share | None, ...] = ()
    seed: Whole
    versions: dict[str, str]
    digests: dict[str, str]

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if len(self.labels) != self.classes:
            raise ValueError(f"{len(self.labels)} labels for {self.classes} outputs")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a recipe file.

        Raises:
            ExportError: if it is missing, a link, too large, damaged, or of a newer version.
        """
        try:
            text = read_regular(path, most_bytes=_MOST_RECIPE_BYTES).decode("utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ExportError(f"{path.parent} is no bundle: it has no {path.name}") from error
        except OSError as error:
            raise ExportError(f"{path} can't be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ExportError(f"{path} is damaged: it is no UTF-8 text") from error
        version = _version(text)
        if version is not None and version > RECIPE_VERSION:
            raise ExportError(
                f"{path} has version {version}, this release reads up to {RECIPE_VERSION}: "
                "update dse"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = _short(".".join(map(str, first["loc"])))
            reason = _short(first["msg"].removeprefix("Value error, "))
            where = f"{place}: " if place else ""
            raise ExportError(f"{path} is damaged: {where}{reason}") from error


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


class _Versioned(BaseModel):
    version: Whole


def _version(text: str) -> int | None:
    try:
        return _Versioned.model_validate_json(text).version
    except ValidationError:
        return None  # the full validation reports the error


def load(
    folder: str | os.PathLike[str], *, search_path: Path | None = None, trust: bool = False
) -> nn.Module:
    """Rebuild the network of a bundle, in eval mode on the CPU.

    Args:
        folder: a folder written by `dse export`.
        search_path: folder in which the network's own `package.module:factory` is searched, in
            addition to the import path; only used with `trust`.
        trust: run the code that the recipe names. Without it, only torchvision's classifiers with
            plain options are built, so that bundles of unknown origin can be loaded safely.

    Raises:
        ExportError: if a file is missing, damaged, of a newer version, or doesn't match the other;
            if the network isn't torchvision's and the bundle isn't trusted; or if a weight is not
            finite.
    """
    path = Path(folder)
    recipe = Recipe.read(path / RECIPE_FILE)
    if not trust and (objection := objection_to_network(recipe.network, recipe.options)):
        raise ExportError(
            f"{path}: {objection}; load it with trust=True if you trust whoever made it"
        )
    network = _rebuilt(path, recipe, search_path)
    weights = path / WEIGHTS_FILE
    own_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    try:
        digest = regular_digest(weights, most_bytes=own_bytes + _MOST_HEADER_BYTES)
    except OSError as error:
        raise ExportError(f"{weights} can't be read: {error.strerror}") from error
    expected = recipe.digests.get(WEIGHTS_FILE)
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
    return network.eval()


def _rebuilt(path: Path, recipe: Recipe, search_path: Path | None) -> nn.Module:
    """Build the network that a recipe describes, turning any exception into an ExportError."""
    try:
        return rebuild(
            recipe.network,
            classes=recipe.classes,
            image_size=recipe.image_size,
            candidate=Candidate(channels=recipe.channels, scheme=recipe.scheme),
            options=recipe.options,
            search_path=search_path,
        )
    except (Exception, SystemExit) as error:
        own = search_path is None and not recipe.network.startswith(TORCHVISION)
        mend = "; give load() the folder of its module as search_path=" if own else ""
        kind = "" if isinstance(error, DseError) else f"{type(error).__name__}: "
        said = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ExportError(f"{path} can't be rebuilt: {kind}{said}{mend}") from error


def _check_tensors(network: nn.Module, weights: Path) -> None:
    """Check that tensors have the network's dtypes, and that weights are finite.

    Buffers may hold infinity, for example in a mask, but not NaN.

    Raises:
        ExportError: if the file is damaged, or a tensor fails a check; names the first such tensor.
    """
    try:
        tensors = safetensors.torch.load_file(weights)
    except (SafetensorError, KeyError, ValueError, OSError) as error:  # KeyError: unknown dtype
        raise ExportError(f"{weights} is no readable safetensors file: {error}") from error
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
            raise ExportError(f"{weights}: tensor {name!r} holds values that are no finite numbers")


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
    ours = {RECIPE_FILE, WEIGHTS_FILE}
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
    score: Callable[[nn.Module], Confusion],
    search_path: Path | None = None,
) -> Recipe:
    """Write a bundle; an existing one is replaced only after the new one was read back.

    Args:
        folder: the folder; created if missing.
        network: network whose tensors are written.
        recipe: recipe; its digest of the weights and its scores are filled in.
        score: returns a network's confusion matrix; called with the network that was read back.
        search_path: see `load`; the caller has built the network, so its code is trusted.

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
            (staging / WEIGHTS_FILE).write_bytes(safetensors.torch.save(tensors))
            digests = {**recipe.digests, WEIGHTS_FILE: file_digest(staging / WEIGHTS_FILE)}
            recipe = recipe.model_copy(update={"digests": digests})
            _write_recipe(staging, recipe)
            found = score(load(staging, search_path=search_path, trust=True))
            recipe = recipe.model_copy(
                update={
                    "accuracy": found.score("accuracy"),
                    "scores": {metric: found.score(metric) for metric in TITLES},
                    "recalls": recalls([found.correct], found.images),
                }
            )
            _write_recipe(staging, recipe)
            # If the process dies between the two, the digest reveals that they don't match.
            for file in (WEIGHTS_FILE, RECIPE_FILE):
                (staging / file).replace(folder / file)
    except OSError as error:
        raise ExportError(f"{folder} can't be written: {error.strerror}") from error
    return recipe


def _write_recipe(folder: Path, recipe: Recipe) -> None:
    (folder / RECIPE_FILE).write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
