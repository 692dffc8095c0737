"""Give a clear error where batch normalisation gets a single value per channel."""

from collections.abc import Iterator
from contextlib import contextmanager

from dse.errors import DseError

_TORCHS_WORDS = "Expected more than 1 value per channel"


@contextmanager
def single_values_named(error: type[DseError], *, mend: str) -> Iterator[None]:
    """Raise one of the package's errors if a batch is too small for batch normalisation.

    Args:
        error: Class of the error to raise.
        mend: What the user should change, for the message.

    Raises:
        DseError: An ``error``, if batch normalisation gets a single value per channel.
    """
    try:
        yield
    except ValueError as found:
        if _TORCHS_WORDS not in str(found):
            raise
        raise error(
            f"batch normalisation gets a single value per channel: {mend} ({found})"
        ) from found
