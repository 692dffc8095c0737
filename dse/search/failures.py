"""Trainings that fail: out of memory, or an exception in the network's or data set's code."""

from dse.errors import DseError, TrainingError
from dse.units import format_size
from dse.user_code import is_out_of_memory

_LONGEST_REASON = 300


def training_failure(error: BaseException, *, predicted_bytes: int) -> TrainingError:
    """Convert the exception that ended a training into an error with a one-line reason.

    An out-of-memory exception is not kept as the cause, because its traceback would keep the
    tensors of the training alive.

    Args:
        error: the exception that was raised.
        predicted_bytes: predicted peak of one training step.
    """
    if is_out_of_memory(error):
        failure = TrainingError(
            "out of memory: one training step was predicted to hold "
            f"{format_size(predicted_bytes)}, beside the data and the unpruned network"
        )
        failure.kind = "memory"
        return failure
    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    if isinstance(error, SystemExit):
        reason = f"the code of the network or data set tried to end the process ({reason})"
    elif not isinstance(error, DseError):
        reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    failure = TrainingError(reason)
    failure.kind = "error"
    failure.__cause__ = error
    return failure
