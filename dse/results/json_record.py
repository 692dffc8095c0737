"""The base of everything that a run stores as JSON."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dse.errors import RunError


class JsonRecord:
    """JSON round trip for frozen dataclasses: `from_json(record.to_json()) == record`."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        kind: type = type(self)  # mypy does not know that classes are hashable
        dumped: dict[str, Any] = _adapter(kind).dump_python(self, mode="json")
        return dumped

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str = "record") -> Self:
        """Build a record from the JSON object that `to_json` returns.

        Args:
            data: The JSON object.
            source: Where the object came from, for error messages.

        Raises:
            RunError: If a field is missing, unknown or of the wrong type. Names the first one.
        """
        kind: type = cls
        try:
            # Validate JSON text and not Python objects: only from JSON do strict classes accept a
            # list for a tuple, or a string for a path.
            record: Self = _adapter(kind).validate_json(json.dumps(dict(data)))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or cls.__name__
            raise RunError(f"{source}: {place}: {first['msg']}") from error
        return record


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
