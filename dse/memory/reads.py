"""Refuse to hand the values of placeholders to Python, since they have none.

Methods of ``torch.Tensor`` belong to all threads of the process. They are replaced while any thread
refuses, and what one refuses concerns no other.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dse.memory.placeholders import Placeholders

_READS = (
    *("numpy", "tolist", "item", "__array__", "__dlpack__", "__bool__", "__int__"),
    *("__float__", "__complex__", "__index__"),
)
"""Methods of a tensor that hand its values to Python."""


class _Refused(threading.local):
    """The placeholders that this thread must not read."""

    placeholders: Placeholders | None = None


_REFUSED = _Refused()
_LOCK = threading.Lock()
_refusing = 0  # threads and nested contexts that refuse
_own: dict[str, Any] = {}  # methods that torch.Tensor itself has, while they are replaced


@contextmanager
def without_reads(placeholders: Placeholders) -> Iterator[None]:
    """Let this thread fail where it reads a placeholder, within this context."""
    previous, _REFUSED.placeholders = _REFUSED.placeholders, placeholders
    _count(1)
    try:
        yield
    finally:
        _count(-1)
        _REFUSED.placeholders = previous


def _count(change: int) -> None:
    """Replace the methods when the first context begins, and restore them when the last ends."""
    global _refusing  # noqa: PLW0603  # the methods are the process's, too
    with _LOCK:
        _refusing += change
        if change > 0 and _refusing == 1:
            _own.update({name: vars(torch.Tensor).get(name) for name in _READS})
            for name in _READS:
                setattr(torch.Tensor, name, _refusing_read(name))
        elif not _refusing:
            for name, method in _own.items():
                if method is None:
                    delattr(torch.Tensor, name)
                else:
                    setattr(torch.Tensor, name, method)
            _own.clear()


def _refusing_read(name: str) -> Callable[..., Any]:
    original = getattr(torch.Tensor, name)

    def read(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        refused = _REFUSED.placeholders
        if refused is not None and refused.address_of(tensor) is not None:
            raise RuntimeError(f"a tensor without values was read (Tensor.{name})")
        return original(tensor, *args, **kwargs)

    return read
