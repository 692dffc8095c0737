"""The sessions of a run: when, how long and on which machine `dse run` worked on it."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dse.errors import RunError


class SessionRecord(BaseModel):
    """One call of `dse run`. It holds no name of a host or a user.

    Attributes:
        started: Date and time in UTC, ISO 8601, to the second.
        ended: Likewise. None while the session goes on, and if it was killed.
        wall_seconds: From start to end. None likewise.
        processor: Model of the CPU; with a GPU, its model after it.
        cores: Logical CPU cores that the process may use.
        threads: CPU threads that training uses.
        device: Where training runs, as in the study: "cpu" or "cuda".
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    started: str
    ended: str | None = None
    wall_seconds: float | None = Field(default=None, ge=0)
    processor: str
    cores: int
    threads: int
    device: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str) -> Self:
        """Build a record from the JSON object in the storage.

        Args:
            data: The JSON object.
            source: Where it was stored, for the error.

        Raises:
            RunError: If a field is missing or of the wrong type.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or cls.__name__
            raise RunError(f"{source}: {place}: {first['msg']}; the storage is damaged") from error
