"""Where the code of a user's network runs: whatever it raises becomes one line.

A constructor, a forward or backward pass, a hook or a copy may raise anything. The calls are
guarded, not the exception types: only Ctrl-C passes through.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dse.errors import DseError, NetworkError

USER_ERRORS = (Exception, SystemExit)
"""What a user's code may raise; KeyboardInterrupt is the user's own."""

_LONGEST = 300  # characters of another's message

_SHORTAGES = (
    "allocate memory",  # PyTorch's CPU allocator on Linux and macOS
    "not enough memory",  # the same on Windows
    "out of memory",  # CUDA, MPS
    "STATUS_ALLOC_FAILED",  # cuDNN, cuBLAS
    "bad_alloc",  # C++ beneath PyTorch, such as oneDNN's own buffers
)


@contextmanager
def guarded(
    network: nn.Module,
    action: str,
    *,
    error: type[DseError] = NetworkError,
    fix: str = "change the network's code",
) -> Iterator[None]:
    """Turn whatever a network's own code raises inside into one line.

    Errors of ours pass as they are, and so does a lack of memory, which isn't the network's fault.

    Args:
        network: whose code runs.
        action: what failed, as in ``can't run on an image of shape (1, 3, 32, 32)``.
        error: what is raised.
        fix: what the user can do.

    Raises:
        DseError: of type ``error``; its message has the network, the action, the module that
            failed, the exception's type and text, and the fix.
    """
    try:
        yield
    except DseError:
        raise
    except USER_ERRORS as raised:
        if is_out_of_memory(raised):
            raise
        module = failed_module(network, raised)
        place = f"at {module!r}: " if module else ""
        raise error(
            f"{type(network).__name__} {action}: {place}{described(raised)}; {fix}"
        ) from raised


def described(error: BaseException) -> str:
    """The type of an exception and the first line of its text."""
    if isinstance(error, SystemExit):
        return f"it ends the process (SystemExit: {error.code})"
    text = str(error).strip().partition("\n")[0].strip()
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def failed_module(network: nn.Module, error: BaseException) -> str | None:
    """Name of the innermost module of a network whose method the exception came through."""
    names = {id(module): name for name, module in network.named_modules()}
    found = None
    trace = error.__traceback__
    while trace is not None:
        found = names.get(id(trace.tb_frame.f_locals.get("self")), found)
        trace = trace.tb_next
    return found or None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that caused it, means that memory ran out."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(cause, RuntimeError) and any(one in str(cause) for one in _SHORTAGES):
            return True
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return True
        cause = cause.__cause__
    return False
