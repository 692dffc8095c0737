"""Reads TOML files and `--set` overrides, and reports errors in one line."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dse.config.base import KeyedError
from dse.errors import ConfigError
from dse.names import nearest
from dse.textfiles import read_text, too_deep

Table = dict[str, Any]
Location = tuple[int | str, ...]

_LONGEST_VALUE = 60
_LONGEST_REASON = 200
_DEEPEST = 16  # maximum nesting of tables and lists; a study needs five
_TOO_DEEP = f"nests tables or lists more than {_DEEPEST} deep: no key of a study does"
_KINDS = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "float_type": "must be a number",
    "is_instance_of": "must be a path, in quotes",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "path_type": "must be a path, in quotes",
    "string_type": "must be a text, in quotes",
    "tuple_type": "must be a list, in square brackets",
}


@dataclass(frozen=True, kw_only=True)
class Override:
    """One `--set KEY=VALUE`, or another flag that sets a key."""

    text: str
    keys: tuple[str, ...]
    value: Any
    flag: str = "--set"


def read_toml(path: Path) -> Table:
    """Read a TOML file.

    Raises:
        ConfigError: if the file is missing, unreadable or not valid TOML (with the line).
    """
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a UTF-8 text: save it as UTF-8") from error
    return parse_toml(text, source=path)


def parse_toml(text: str, *, source: Path) -> Table:
    """Parse a TOML document; `source` names it in errors.

    Raises:
        ConfigError: if it is not valid TOML, or nests deeper than any study.
    """
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # also raised for numbers with thousands of digits
        raise ConfigError(f"{source}: is not valid TOML: {_one_line(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: {_TOO_DEEP}") from error
    if too_deep(table, most=_DEEPEST):
        raise ConfigError(f"{source}: {_TOO_DEEP}")
    return table


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def parse_override(text: str) -> Override:
    """Parse one `KEY=VALUE`; the value is in TOML syntax, or a bare word or phrase.

    Raises:
        ConfigError: if the key or `=` is missing, or the value starts a list, table or string that
            is not valid TOML.
    """
    key, equals, raw = (part.strip() for part in text.partition("="))
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys) or len(text.splitlines()) > 1:
        raise ConfigError(
            f"--set {_shortened(text)!r}: must read KEY=VALUE with a dotted key, as in "
            "training.batch_size=16"
        )
    value = _override_value(text, raw)
    if len(keys) > _DEEPEST or too_deep(value, most=_DEEPEST - len(keys)):
        raise ConfigError(f"--set {_shortened(text)}: {_TOO_DEEP}")
    return Override(text=_shortened(text), keys=keys, value=value)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def _override_value(text: str, raw: str) -> object:
    try:
        read = tomllib.loads(f"value = {raw}\n")
    except RecursionError as error:
        raise ConfigError(f"--set {_shortened(text)}: {_TOO_DEEP}") from error
    except ValueError as error:
        if raw[:1] in ("[", "{", '"', "'"):
            raise ConfigError(
                f"--set {_shortened(text)}: the value is not valid TOML: {_one_line(error)}"
            ) from error
        return raw
    return read["value"] if len(read) == 1 else raw


def apply_overrides(table: Mapping[str, Any], overrides: Sequence[Override]) -> Table:
    """Return a copy of a table with the overrides applied in order.

    Raises:
        ConfigError: if a key leads through a value that is not a table.
    """
    result = dict(table)
    for override in overrides:
        place = result
        for key in override.keys[:-1]:
            inner = place.get(key, {})
            if not isinstance(inner, dict):
                flag = f"{override.flag} {override.text}"
                raise ConfigError(f"{flag}: {key} is not a table, so nothing below it can be set")
            place[key] = dict(inner)
            place = place[key]
        place[override.keys[-1]] = override.value
    return result


def explain(
    error: ValidationError,
    *,
    model: type[BaseModel],
    source: str,
    overrides: Sequence[Override] = (),
) -> ConfigError:
    """Convert pydantic's errors to one line: the first of them, and the number of others.

    Args:
        error: the validation error.
        model: the class that was validated.
        source: the file's name, with which the line starts.
        overrides: overrides that were applied; an error in one of their keys is reported with
            `--set` instead of the file.
    """
    # An unknown key is often a misspelt one and causes a missing one, so it comes first. Defaults
    # that depend on an invalid key are unset, which is no error of its own.
    found = [one for one in error.errors() if one["type"] != "default_factory_not_called"]
    errors = sorted(found, key=lambda one: one["type"] != "extra_forbidden")
    first = errors[0]
    place, reason = _reason(first, model)
    cause = next((one for one in overrides if _touches(one.keys, place)), None)
    origin = f"{cause.flag} {cause.text}" if cause else source
    key = _dotted(place)
    value = "" if first["type"] in ("missing", "extra_forbidden") else _shown(first, cause)
    if reason.startswith(repr(first["input"])):  # the reason contains the value
        value = ":"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ConfigError(" ".join(f"{origin}: {key}{value} {reason}{more}".splitlines()))


def _reason(error: ErrorDetails, model: type[BaseModel]) -> tuple[Location, str]:
    """Return the location and the reason of one error."""
    where: Location = error["loc"]
    kind, context = error["type"], error.get("ctx", {})
    # pydantic's text for bounds and patterns is "Input should be greater than 0".
    reason = error["msg"].replace("Input should", "must").replace("String should", "must")
    match kind:
        case "value_error":
            cause = context["error"]
            where = (*where, *cause.key.split(".")) if isinstance(cause, KeyedError) else where
            reason = str(cause)
        case "extra_forbidden":
            reason = _unknown_key(where, model)
        case "missing" if isinstance(index := where[-1], int):
            where, reason = where[:-1], f"needs at least {_entries(index + 1)}"
        case "missing":
            reason = "is missing: add it"
        case "literal_error":
            reason = _not_one_of(error)
        case "too_long":
            reason = f"must have at most {_entries(context['max_length'])}"
        case "too_short":
            reason = f"must have at least {_entries(context['min_length'])}"
    return where, _KINDS.get(kind, reason)


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _not_one_of(error: ErrorDetails) -> str:
    expected = error["ctx"]["expected"].replace("'", '"')
    known = [word.strip('"') for word in expected.replace(" or ", ", ").split(", ")]
    near = nearest(str(error["input"]), known)
    hint = f'; did you mean "{near}"?' if near else ""
    return f"is not known: write {expected}{hint}"


def _unknown_key(loc: Location, model: type[BaseModel]) -> str:
    """Return a hint with the most similar key, in the same table or elsewhere."""
    siblings = list(_known_keys(_model_at(model, loc[:-1]), depth=1))
    wrong = str(loc[-1])
    if near := nearest(wrong, siblings):
        return f"is an unknown key: did you mean {near}?"
    leaves = {key.rpartition(".")[2]: key for key in _known_keys(model, depth=3)}
    if near := nearest(wrong, leaves, cutoff=0.8):
        return f"is an unknown key: did you mean {leaves[near]}?"
    return f"is an unknown key: the keys known here are {', '.join(siblings)}"


def _known_keys(model: type[BaseModel], *, depth: int) -> Iterator[str]:
    """Yield dotted keys of a configuration class and of nested ones down to a depth."""
    for name, field in model.model_fields.items():
        yield name
        inner = _inner_model(field.annotation)
        if inner is not None and depth > 1:
            for key in _known_keys(inner, depth=depth - 1):
                yield f"{name}.{key}"


def _model_at(model: type[BaseModel], loc: Location) -> type[BaseModel]:
    for key in loc:
        if isinstance(key, str):
            model = _inner_model(model.model_fields[key].annotation) or model
    return model


def _inner_model(annotation: object) -> type[BaseModel] | None:
    """Return the configuration class in an annotation such as `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_inner_model, get_args(annotation))), None)


def _touches(keys: tuple[str, ...], place: Location) -> bool:
    """Return whether an override set this location or a part of it."""
    shared = min(len(keys), len(place))
    return keys[:shared] == tuple(map(str, place[:shared]))


def _shown(error: ErrorDetails, cause: Override | None) -> str:
    """Return the invalid value as text; empty for whole tables and if `--set` shows it."""
    value = error["input"]
    if cause is not None or isinstance(value, dict | BaseModel):
        return ""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > _LONGEST_VALUE:
        text = f"{text[:_LONGEST_VALUE]}..."
    return f" = {text}"


def _dotted(place: Location) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")
