"""Which settings of a study run code, download or connect, and what a run's seal covers."""

import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from dse.config import Study
from dse.errors import RunError
from dse.names import library_of
from dse.trust.builders import TORCHVISION, objection_to_network

_HARMLESS_DATA = ("digits", "folder", "hf")
_HARMLESS_WEIGHTS = ("none", "pretrain")
_INSTALLED = "installed"


def objection_to_step(study: Study) -> str | None:
    """Return why a training step of a study may not be built if its file is untrusted.

    Returns:
        The reason in one line; None if its network is a classifier of a known library, and neither
        its loss nor its metric is the user's own code.
    """
    objection = objection_to_network(study.network.name, study.network.options)
    if objection is not None:
        return objection
    for key, factory in study.task.factories:
        return f"{key} = {factory!r} runs code"
    return None


def objection_to_study(study: Study) -> str | None:
    """Return why a study may not be trained if its file is untrusted.

    Returns:
        The reason in one line; None if its network is a classifier of a known library, its data
        are the digits, image folders or a saved data set, and nothing is downloaded or unpickled.
    """
    objection = objection_to_step(study)
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


def untrusted(folder: Path, objection: str) -> RunError:
    """Return the error for an untrusted run that names code to execute."""
    return RunError(
        f"{folder} was not made on this machine, and {objection}: give --trust if you trust "
        "whoever made it"
    )


def sealed_content(study: Study, *, identity: str, storage: str | None) -> dict[str, Any]:
    """Return what a run's seal covers: everything that names code, files or a host.

    The location of each named module is included, so that another module of the same name isn't
    accepted.

    Args:
        study: the run's study.
        identity: identity of the run folder.
        storage: URL of the trials; None for the folder's own file.
    """
    recovery = study.recovery
    return {
        "identity": identity,
        "storage": storage,
        "network": study.network.model_dump(mode="json"),
        "data": [study.data.name, _text(study.data.root)],
        **({"task": dict(study.task.factories)} if study.task.factories else {}),
        **({} if study.data.table is None else {"table": _text(study.data.table)}),
        **({} if study.data.tokenizer is None else {"tokenizer": _text(study.data.tokenizer)}),
        "recovery": None if recovery is None else [recovery.data, _text(recovery.root)],
        "modules": {
            name: _place(name, folders, inside_cwd=inside_cwd)
            for name, folders, inside_cwd in _modules(study)
        },
    }


def modules_inside(folder: Path, study: Study) -> bool:
    """Return whether a module that a study names would be imported from inside a folder."""
    inside = folder.resolve()
    places = sealed_content(study, identity="", storage=None)["modules"].values()
    return any(place is not None and Path(place).is_relative_to(inside) for place in places)


def _modules(study: Study) -> Iterator[tuple[str, Path | None, bool]]:
    """Yield the modules that a study names, the folder searched first, and whether cwd is too."""
    named: list[tuple[str | None, Path | None, bool]] = [
        (study.network.name, study.source_dir, True),
        (study.data.name, study.data.root, False),
    ]
    named += [(name, study.source_dir, True) for _, name in study.task.factories]
    if study.recovery is not None:
        named.append((study.recovery.data, study.recovery.root, False))
    for name, folder, inside_cwd in named:
        if name and ":" in name and library_of(name) is None:
            yield name.partition(":")[0], folder, inside_cwd


def _place(module: str, folder: Path | None, *, inside_cwd: bool) -> str | None:
    """Return the file that importing a module would run first, without importing anything."""
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
    """Return the folders of installed packages, which count as one location on any Python."""
    named = [*site.getsitepackages(), site.getusersitepackages()]
    named += [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [Path(name).resolve() for name in named]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
