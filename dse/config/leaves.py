"""The settings of a dumped study, each with the keys that lead to it."""

from collections.abc import Mapping
from typing import Any

Keys = tuple[str, ...]


def leaves(table: Mapping[str, Any], above: Keys = ()) -> dict[Keys, Any]:
    """Return each value that is not itself a table of values, by its keys.

    Args:
        table: a dumped study, or a table of it.
        above: keys that lead to the table.
    """
    found: dict[Keys, Any] = {}
    for key, value in table.items():
        inner = leaves(value, (*above, key)) if isinstance(value, dict) else {}
        found.update(inner or {(*above, key): value})
    return found
