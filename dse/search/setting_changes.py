"""Finds the first setting in which two studies differ."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from dse.config import Study
from dse.config.digest import meaning_digest
from dse.config.leaves import leaves

_MISSING = "(not set)"


def first_difference(before: Study, after: Study) -> tuple[str, str, str]:
    """Find the first setting that differs and changes results; return its key and both values."""
    old, new = (study.model_dump(mode="json", exclude_none=True) for study in (before, after))
    found = {**leaves(old), **leaves(new)}
    for keys in map(partial(_common, old, new), found):
        value, other = _at(old, keys), _at(new, keys)
        if value == other:
            continue
        # Only settings that change the digest change results.
        if meaning_digest(_with(old, keys, other)) != meaning_digest(old):
            return ".".join(keys), _shown(value), _shown(other)
    raise ValueError("the studies mean the same")


def _common(
    old: Mapping[str, Any], new: Mapping[str, Any], keys: tuple[str, ...]
) -> tuple[str, ...]:
    """Shorten a key to the first table on its path that one of the two studies lacks entirely."""
    for depth in range(1, len(keys)):
        if _MISSING in (_at(old, keys[:depth]), _at(new, keys[:depth])):
            return keys[:depth]
    return keys


def _at(table: Mapping[str, Any], keys: tuple[str, ...]) -> object:
    value: Any = table
    for key in keys:
        value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
    return value


def _with(table: Mapping[str, Any], keys: tuple[str, ...], value: object) -> dict[str, Any]:
    first, *rest = keys
    copy = dict(table)
    if rest:
        inner = copy.get(first)
        copy[first] = _with(inner if isinstance(inner, dict) else {}, tuple(rest), value)
    elif value is _MISSING:
        copy.pop(first, None)
    else:
        copy[first] = value
    return copy


def _shown(value: object) -> str:
    return _MISSING if value is _MISSING else json.dumps(value)
