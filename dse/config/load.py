"""Loads a study from its file or shipped name as a validated `Study`, and writes it as TOML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from dse.config.files import (
    Override,
    Table,
    apply_overrides,
    explain,
    parse_override,
    parse_toml,
    read_toml,
)
from dse.config.space import SpaceConfig
from dse.config.study import Study
from dse.errors import ConfigError
from dse.image_settings import image_settings
from dse.names import nearest
from dse.shipped import Kind, shipped
from dse.textfiles import exists
from dse.weight_files import is_weights_file

_HUGGING_FACE = "hf:"
_IMAGE_SETTINGS = ("image_size", "mean", "std", "interpolation", "crop")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json")
_MISSPELT = 0.85  # similarity of a misspelt name: "mobilnet_v2" for "mobilenet_v2"

# Paths in a study. Each is relative to the file that holds it, or to the cwd for `--set`.
_PATHS = (
    ("data", "root"),
    ("data", "table"),
    ("data", "tokenizer"),
    ("network", "name"),
    ("network", "weights"),
    ("recovery", "root"),
    ("space", "name"),
    ("source_dir",),
)


def load_study(
    name_or_path: str | Path,
    *,
    overrides: Sequence[str] = (),
    text: str | None = None,
    joint: bool = True,
) -> Study:
    """Load a study.

    Args:
        name_or_path: a TOML file, or the name of a shipped study.
        overrides: texts such as "training.batch_size=16", applied to the file in order.
        text: content of the file, if it isn't written yet.
        joint: what `space.joint` is where neither file nor overrides give it.

    Returns:
        The study with all defaults filled in, its search space loaded and its paths absolute.

    Raises:
        ConfigError: if anything is invalid; one line names file (or `--set`), key, value and fix.
    """
    path = Path(name_or_path) if text is not None else _find(name_or_path, kind="studies")
    read = read_toml(path) if text is None else parse_toml(text, source=path)
    parsed = [_with_absolute_path(parse_override(text)) for text in overrides]
    written = {"source_dir": str(path.parent.resolve()), **read}
    table = apply_overrides(_absolute(written, path.parent, source=str(path)), parsed)
    other_weights = any(one.keys == ("network", "weights") for one in parsed)
    network = table.get("network")
    if other_weights and isinstance(network, dict) and network.get("weights") != "pretrain":
        # The file's [network.pretrain] belongs to the file's weights.
        network.pop("pretrain", None)
    table = _with_tokenizer(_with_image_settings(_with_factory_root(table)))
    space = _space_table(table.get("space", {}), source=str(path), overrides=parsed)
    table["space"] = {"joint": joint, **space} if isinstance(space, dict) else space
    try:
        return Study.model_validate(table)
    except ValidationError as error:
        raise explain(error, model=Study, source=str(path), overrides=parsed) from error


def with_flags(
    study: Study, *, trials: int | None, timeout: float | None, seed: int | None
) -> Study:
    """Return a study with values from the command line in place of its own.

    Raises:
        ConfigError: if one of them is out of range; the message names its flag.
    """
    given = (
        ("--trials", ("search", "trials"), trials),
        ("--timeout", ("search", "timeout"), timeout),
        ("--seed", ("seed",), seed),
    )
    flags = [
        Override(
            text=f"{value:g}" if isinstance(value, float) else str(value),
            keys=keys,
            value=value,
            flag=flag,
        )
        for flag, keys, value in given
        if value is not None
    ]
    table = apply_overrides(study.model_dump(), flags)
    try:
        return Study.model_validate(table)
    except ValidationError as error:
        raise explain(error, model=Study, source=study.name, overrides=flags) from error


def load_space(name_or_path: str | Path) -> SpaceConfig:
    """Load a search space from a TOML file, or by the name of a shipped one.

    Raises:
        ConfigError: if anything is invalid.
    """
    path = _find(name_or_path, kind="search_spaces")
    try:
        return SpaceConfig.model_validate({"name": path.stem, **read_toml(path)})
    except ValidationError as error:
        raise explain(error, model=SpaceConfig, source=str(path)) from error


def study_toml(study: Study) -> str:
    """Return a study as TOML, defaults included; `load_study` reads an equal study from it."""
    table = dict(_dumped(study))
    table["space"] = {"joint": False, **table["space"]}  # which the dump leaves out
    return tomli_w.dumps(table)


def _dumped(model: BaseModel) -> Mapping[str, Any]:
    return model.model_dump(mode="json", exclude_none=True)


def _find(name_or_path: str | Path, *, kind: Kind) -> Path:
    """Find a file by its path, or by its shipped name if it doesn't look like a path."""
    path = _expanded(name_or_path, place=repr(str(name_or_path)))
    if (exists(path) and path.is_file()) or path.suffix == ".toml" or len(path.parts) > 1:
        return path
    known = shipped(kind)
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    word = kind.replace("_", " ")
    near = nearest(str(name_or_path), known)
    hint = f"did you mean {near}?" if near else f"the shipped {word} are {', '.join(known)}"
    raise ConfigError(
        f"{str(name_or_path)!r}: is neither a file nor one of the shipped {word}: {hint}"
    )


def _space_table(table: object, *, source: str, overrides: Sequence[Override]) -> object:
    """Load the search space that `[space]` names, and override it with the table's other keys.

    A table with its own `ratio` is a complete space, and its name is free.
    """
    if not isinstance(table, dict):
        return table  # validation reports the wrong type
    name = table.get("name", None if "ratio" in table else "auto")
    if not isinstance(name, str):
        return table
    spaces = shipped("search_spaces")
    known = name.endswith(".toml") or name in spaces
    if "ratio" in table and not known:
        if near := nearest(name, spaces, cutoff=_MISSPELT):
            raise ConfigError(
                f"{source}: space.name = {name!r} is near the shipped search space {near!r}: "
                "write that, or give your own ratios a name of their own"
            )
        return table
    try:
        named = _dumped(load_space(name))
    except ConfigError as error:
        flags = [f"--set {one.text}" for one in overrides if one.keys == ("space", "name")]
        raise ConfigError(f"{[source, *flags][-1]}: space.name: {error}") from error
    return {**named, **table, "name": named["name"]}


def _with_factory_root(table: Table) -> Table:
    """Set the study's folder as the root of a data factory, if no other root is given."""
    data = table.get("data")
    if not isinstance(data, dict) or "root" in data:
        return table
    name = str(data.get("name", ""))
    factory = ":" in name and not name.startswith("torchvision:")
    return {**table, "data": {**data, "root": table["source_dir"]}} if factory else table


def _with_image_settings(table: Table) -> Table:
    """Add what the network's library says about its images, where the study doesn't say it."""
    network, data = table.get("network"), table.get("data")
    if not isinstance(network, dict) or not isinstance(data, dict):
        return table
    name, options = network.get("name"), network.get("options")
    # The digits are small scans with a mean of their own.
    if not isinstance(name, str) or data.get("name") == "digits" or "input" in data:
        return table
    if data.keys() >= set(_IMAGE_SETTINGS):
        return table
    found = image_settings(
        name,
        folder=Path(str(table["source_dir"])),
        options=options if isinstance(options, dict) else None,
    )
    return table if found is None else {**table, "data": {**found.table(), **data}}


def _with_tokenizer(table: Table) -> Table:
    """Add the network's own tokenizer for text, where the study names none."""
    network, data = table.get("network"), table.get("data")
    if not isinstance(network, dict) or not isinstance(data, dict) or data.get("name") != "hf":
        return table
    if "tokenizer" in data or (found := network_tokenizer(network.get("name"))) is None:
        return table
    return {**table, "data": {**data, "tokenizer": str(found)}}


def network_tokenizer(name: object, start: Path = Path()) -> Path | None:
    """Return the folder of a network `hf:FOLDER` if it holds a tokenizer; else None.

    Args:
        name: name of the network.
        start: folder that a relative path starts at.
    """
    folder = start / str(name).removeprefix(_HUGGING_FACE)
    known = str(name).startswith(_HUGGING_FACE)
    return folder if known and any(exists(folder / file) for file in _TOKENIZERS) else None


def _with_absolute_path(override: Override) -> Override:
    table: Table = apply_overrides({}, [override])
    value: Any = _absolute(table, Path.cwd(), source=f"{override.flag} {override.text}")
    for key in override.keys:
        value = value[key]
    return Override(text=override.text, keys=override.keys, value=value)


def _absolute(table: Table, folder: Path, *, source: str) -> Table:
    """Return a copy of a study's table with absolute paths; `source` names it in errors."""
    for *parents, key in _PATHS:
        inner: Any = table
        for parent in parents:
            inner = inner.get(parent) if isinstance(inner, dict) else None
        value = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(value, str) and _is_path((*parents, key), value):
            place = f"{source}: {'.'.join((*parents, key))} = {value!r}"
            if (parents, key) == (["network"], "name"):
                full = _network_folder(value, folder, place=place)
            else:
                full = str((folder.resolve() / _expanded(value, place=place)).resolve())
            override = Override(text="", keys=(*parents, key), value=full)
            table = apply_overrides(table, [override])
    return table


def _network_folder(name: str, folder: Path, *, place: str) -> str:
    """Return `hf:FOLDER` with the full path if there is such a folder; other names as they are."""
    path = folder.resolve() / _expanded(name.removeprefix(_HUGGING_FACE), place=place)
    return f"{_HUGGING_FACE}{path.resolve()}" if exists(path) and path.is_dir() else name


def _expanded(path: str | Path, *, place: str) -> Path:
    """Return a path with `~` replaced by the home folder.

    Raises:
        ConfigError: if there is no such user, or no file system can hold the path.
    """
    if "\0" in str(path):
        raise ConfigError(f"{place} is not a path: remove the zero byte")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{place}: {path} names no home folder: write ~/ or a full path"
        ) from error


def _is_path(place: tuple[str, ...], value: str) -> bool:
    """Return whether a value is a path, for the keys that may hold a word instead."""
    if place == ("network", "name"):
        return value.startswith(_HUGGING_FACE)
    if place == ("network", "weights"):
        return is_weights_file(value)
    if place == ("space", "name"):
        return value.endswith(".toml")
    return bool(value)
