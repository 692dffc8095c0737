"""What all configuration classes share."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base: frozen, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class KeyedError(ValueError):
    """A check over several keys failed; `key` names the one to change, below the checked class."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
