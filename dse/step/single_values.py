"""Give a clear error where batch normalisation gets a single value per channel."""

from collections.abc import Iterator
from contextlib import contextmanager

from dse.errors import DseError, NetworkError

_TORCH_MESSAGE = "Expected more than 1 value per channel"


@contextmanager
def single_values_explained(error: type[DseError], *, fix: str) -> Iterator[None]:
    """Raise one of the package's errors if a batch is too small for batch normalisation.

    Args:
        error: Class of the error to raise.
        fix: What the user should change, for the message.

    Raises:
        DseError: An ``error``, if batch normalisation gets a single value per channel.
    """
    try:
        yield
    except (ValueError, NetworkError) as raised:
        # A guard around the network's code may have made it a NetworkError already.
        found = raised.__cause__ if isinstance(raised, NetworkError) else raised
        if not isinstance(found, ValueError) or _TORCH_MESSAGE not in str(found):
            raise
        raise error(
            f"batch normalisation gets a single value per channel: {fix} ({found})"
        ) from raised
