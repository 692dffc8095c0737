"""What of a study runs code, downloads or connects, and what a run's seal vouches for."""

import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from dse.config import Study
from dse.trust.builders import TORCHVISION, objection_to_network

_HARMLESS_DATA = ("digits", "folder")
_HARMLESS_WEIGHTS = ("none", "pretrain")
_INSTALLED = "installed"


def objection_to_study(study: Study) -> str | None:
    """Say why a study may not be trained on the word of an untrusted file.

    Returns:
        The reason, in one line; None if its network is a classifier of torchvision's, its data are
        the digits or folders of images, and nothing of it is downloaded or unpickled.
    """
    objection = objection_to_network(study.network.name, study.network.options)
    if objection is not None:
        return objection
    weights = study.network.weights
    if weights not in _HARMLESS_WEIGHTS and Path(weights).suffix != ".safetensors":
        return f"network.weights = {weights!r} may be downloaded or unpickled"
    recovery = study.recovery.data if study.recovery else None
    for key, name in (("data.name", study.data.name), ("recovery.data", recovery)):
        if name is None or name in _HARMLESS_DATA:
            continue
        what = "may be downloaded or unpickled" if name.startswith(TORCHVISION) else "runs code"
        return f"{key} = {name!r} {what}"
    return None


def sealed_content(study: Study, *, identity: str, storage: str | None) -> dict[str, Any]:
    """Collect what a run's seal vouches for: all that names code, files or a host.

    The place that each named module is found in belongs to it, so that no other module of that name
    passes for it.

    Args:
        study: of the run.
        identity: of the run folder.
        storage: URL of the trials; None for the folder's own file.
    """
    recovery = study.recovery
    return {
        "identity": identity,
        "storage": storage,
        "network": study.network.model_dump(mode="json"),
        "data": [study.data.name, _text(study.data.root)],
        "recovery": None if recovery is None else [recovery.data, _text(recovery.root)],
        "modules": {
            name: _place(name, folders, inside_cwd=inside_cwd)
            for name, folders, inside_cwd in _modules(study)
        },
    }


def modules_inside(folder: Path, study: Study) -> bool:
    """Say whether a module that a study names would be imported from inside a folder."""
    inside = folder.resolve()
    places = sealed_content(study, identity="", storage=None)["modules"].values()
    return any(place is not None and Path(place).is_relative_to(inside) for place in places)


def _modules(study: Study) -> Iterator[tuple[str, Path | None, bool]]:
    """The modules that a study names: where each is looked for first, and whether here, too."""
    named: list[tuple[str | None, Path | None, bool]] = [
        (study.network.name, study.source_dir, True),
        (study.data.name, study.data.root, False),
    ]
    if study.recovery is not None:
        named.append((study.recovery.data, study.recovery.root, False))
    for name, folder, inside_cwd in named:
        if name and ":" in name and not name.startswith(TORCHVISION):
            yield name.partition(":")[0], folder, inside_cwd


def _place(module: str, folder: Path | None, *, inside_cwd: bool) -> str | None:
    """Find the file that a module's import would run first, without importing anything."""
    path = [] if folder is None else [str(folder)]
    path += [str(Path.cwd())] if inside_cwd else []
    spec = PathFinder.find_spec(module.partition(".")[0], [*path, *sys.path])
    if spec is None:
        return None
    origin = spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    if origin is None or spec.origin in ("built-in", "frozen"):
        return _INSTALLED
    found = Path(origin).resolve()
    return _INSTALLED if any(map(found.is_relative_to, _installed_folders())) else str(found)


def _installed_folders() -> list[Path]:
    """Folders that installed packages are in: another Python's are as good as this one's."""
    named = [*site.getsitepackages(), site.getusersitepackages()]
    named += [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [Path(name).resolve() for name in named]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
