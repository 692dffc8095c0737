"""Base of all configuration classes."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base model: frozen, without unknown keys or implicit type conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class KeyedError(ValueError):
    """A check over several keys failed; `key` is the one to change, relative to the class."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
