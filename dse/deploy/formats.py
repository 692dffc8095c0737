"""Export formats: the files that a bundle has beside its weights and its recipe."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dse import names
from dse.config import Study
from dse.data import transforms
from dse.deploy.definition import definition
from dse.deploy.lean_files import LEAN_FILE, STEPS_FILE, lean_files
from dse.deploy.onnx_file import ONNX_FILE, write_onnx
from dse.deploy.pte.file import PTE_FILE, check_study, check_trace, write_pte
from dse.deploy.readme import README_FILE, readme
from dse.deploy.recipe import Recipe
from dse.engines.plan import LeanPlan
from dse.errors import ConfigError, NetworkError
from dse.registry import Registry

NETWORK_FILE = "network.py"
_COPIED = ("finetune.py", "training.py")
_TASKS = "tasks.py"  # for tasks other than plain classification
_TRANSFORMS = "transforms.py"  # where the recipe names some
_FILES = Path(__file__).parent / "bundle_files"


@dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """What is exported.

    Attributes:
        network: the network on the CPU, in evaluation mode.
        recipe: its recipe, with scores.
        images: some images of the network's size, (2, channels, height, width) float32.
        plan: the plan of its lean step; None for stock PyTorch.
    """

    network: nn.Module
    recipe: Recipe
    images: Tensor
    plan: LeanPlan | None = None


@dataclass(frozen=True, kw_only=True)
class FormatKind:
    """Registry entry of an export format.

    Attributes:
        files: names of the files that it may write; plain names, without folders.
        write: writes its files into a folder, and returns a line about each check it made. Also
            gets the result of `prepare`.
        prepare: called before the training with a network of the same shapes, two images and the
            plan of its lean step, if any, so that what can't be exported is known early; raises
            ExportError.
        check_study: raises ConfigError if a candidate can't be exported so; called with its study,
            in which the candidate's recipe has been filled in.
        modules: Python modules that it needs beside those of dse.
        extra: the extra of dse that installs them.
    """

    files: tuple[str, ...]
    write: Callable[[Exported, Any, Path], tuple[str, ...]]
    prepare: Callable[[nn.Module, Tensor, LeanPlan | None], Any] = lambda *_: None
    check_study: Callable[[Study], None] = lambda _study: None
    modules: tuple[str, ...] = ()
    extra: str | None = None


FORMATS: Registry[FormatKind] = Registry("export format", names.EXPORTS)


def check_format(word: str) -> None:
    """Check that an export format is known and its packages are installed.

    Raises:
        ConfigError: if the word is unknown, or a package that the format needs is missing.
    """
    kind = FORMATS[word]
    missing = [name for name in kind.modules if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the export format {word!r} needs {', '.join(missing)}: "
            f"pip install 'dse[{kind.extra}]'"
        )


def check_formats(words: Iterable[str]) -> None:
    """Check several export formats; see `check_format`."""
    for word in words:
        check_format(word)


def _definition(network: nn.Module, images: Tensor, _plan: LeanPlan | None) -> str:
    title = (
        "The pruned network's definition. build() returns it; weights.safetensors has its weights."
    )
    return definition(network, images, title=title)


def _write_pytorch(exported: Exported, source: str, folder: Path) -> tuple[str, ...]:
    (folder / NETWORK_FILE).write_text(source, encoding="utf-8")
    copied = _COPIED if exported.recipe.task is None else (*_COPIED, _TASKS)
    for name in copied:
        (folder / name).write_bytes((_FILES / name).read_bytes())
    if exported.recipe.transforms:
        (folder / _TRANSFORMS).write_bytes(Path(transforms.__file__).read_bytes())
    lean, line = _lean(exported)
    for name, text in lean.items():
        (folder / name).write_text(text, encoding="utf-8")
    text = readme(exported.recipe, lean=bool(lean))
    (folder / README_FILE).write_text(text, encoding="utf-8")
    return line


def _lean(exported: Exported) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the files of a lean step by name, and a line about them; nothing without a plan."""
    if exported.plan is None:
        return {}, ()
    try:
        files = lean_files(exported.network, exported.recipe, exported.plan)
    except NetworkError as error:
        left = f"{LEAN_FILE} and {STEPS_FILE} are left out, so that finetune.py can't train it lean"
        return {}, (f"{left}: {error}",)
    line = f"{LEAN_FILE}: finetune.py trains the network lean, with PyTorch alone"
    return {LEAN_FILE: files.source, STEPS_FILE: files.steps}, (line,)


FORMATS.register(
    "pytorch",
    FormatKind(
        files=(NETWORK_FILE, *_COPIED, _TASKS, _TRANSFORMS, README_FILE, LEAN_FILE, STEPS_FILE),
        write=_write_pytorch,
        prepare=_definition,
    ),
)


def _write_onnx(exported: Exported, _prepared: None, folder: Path) -> tuple[str, ...]:
    difference = write_onnx(exported.network, exported.images, folder / ONNX_FILE)
    return (
        (
            f"{ONNX_FILE}: ONNX Runtime gives the network's logits, within {difference:.1g} of the "
            "largest, for batches of 1, 2 and 5"
        ),
    )


FORMATS.register(
    "onnx",
    FormatKind(
        files=(ONNX_FILE,),
        write=_write_onnx,
        modules=("onnx", "onnxruntime", "onnxscript"),
        extra="onnx",
    ),
)


def _write_executorch(exported: Exported, _prepared: None, folder: Path) -> tuple[str, ...]:
    path = folder / PTE_FILE
    return (write_pte(exported.network, exported.recipe, path, plan=exported.plan),)


FORMATS.register(
    "executorch",
    FormatKind(
        files=(PTE_FILE,),
        write=_write_executorch,
        prepare=check_trace,
        check_study=check_study,
        modules=("executorch",),
        extra="executorch",
    ),
)
