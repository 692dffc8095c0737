"""Batch normalisation refuses a single value per channel; said in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

from dse.errors import DseError

_TORCHS_WORDS = "Expected more than 1 value per channel"


@contextmanager
def single_values_named(error: type[DseError], *, mend: str) -> Iterator[None]:
    """Raise an error of ours where a batch is too small for batch normalisation.

    Args:
        error: which.
        mend: what to change.
    """
    try:
        yield
    except ValueError as found:
        if _TORCHS_WORDS not in str(found):
            raise
        raise error(
            f"batch normalisation gets a single value per channel: {mend} ({found})"
        ) from found
