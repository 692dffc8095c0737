"""Count what runs: bytes that live, the most that lived at once, and an estimate of the time."""

import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dse.memory.cpu_layout import run_as_on_cpu
from dse.memory.macs import operator_macs

# A rough processor. Only ratios matter: what an operator computes, what it moves, and that it runs.
MACS_PER_SECOND = 2.5e10
BYTES_PER_SECOND = 1.0e10
SECONDS_PER_OPERATOR = 8e-6


Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
Known = dict[Any, tuple[list[Layout | None] | Layout | None, float]]
"""Layouts of an operator's results, and its time, by its arguments' layouts."""


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base is untyped
    """Dispatch mode that counts the storages that operators make, until they die.

    Operators without values take PyTorch long, and blocks repeat them. So an operator runs once for
    every layout of its arguments; afterwards its results are made from their known layouts.

    Attributes:
        bytes: Bytes alive now.
        peak_bytes: The most bytes alive at once since ``reset``.
        seconds: Estimated time of all operators since ``reset``.
    """

    def __init__(self, known: Known) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.peak_bytes = 0
        self.seconds = 0.0
        self._alive: set[int] = set()
        self._known = known

    def reset(self) -> None:
        """Begin a new peak and a new time."""
        self.peak_bytes = self.bytes
        self.seconds = 0.0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kind = _kind(func)
        if kind == "view" or func.namespace == "profiler":
            return func(*args, **(kwargs or {}))
        key = (func, _layouts(args), _layouts(kwargs or {}))
        found = self._known.get(key)
        if found is not None and kind == "makes":
            layouts, seconds = found
            result = _made(layouts)
        elif found is not None:
            seconds = found[1]
            result = next(iter((kwargs or {}).values())) if kind == "out" else args[0]
        else:
            operator = func.name().partition(".")[0]
            result = run_as_on_cpu(func, args, kwargs or {})
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            seconds = seconds_of(operator, args, result, tensors)
            if all(tensor.is_meta for tensor in tensors):
                self._known[key] = (_result_layouts(result), seconds)
        self.seconds += seconds
        if kind == "makes":
            self._count(result)
        return result

    def alive(self, tensor: Tensor) -> int:
        """Return the key of a tensor's storage, for ``lives``."""
        return int(tensor.untyped_storage()._cdata)  # noqa: SLF001  # no public name

    def lives(self, key: int) -> bool:
        """Whether a storage is alive."""
        return key in self._alive

    def _count(self, result: Any) -> None:
        if isinstance(result, (tuple, list)):
            for each in result:
                self._count(each)
        if not isinstance(result, Tensor):
            return
        storage = result.untyped_storage()
        key = int(storage._cdata)  # noqa: SLF001
        if key in self._alive:
            return
        size = storage.nbytes()
        self._alive.add(key)
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        weakref.finalize(storage, self._died, key, size)

    def _died(self, key: int, size: int) -> None:
        if key in self._alive:
            self._alive.remove(key)
            self.bytes -= size


def seconds_of(operator: str, args: Sequence[Any], result: Any, tensors: Sequence[Tensor]) -> float:
    """Estimate the time of one operator from its multiply-adds and the bytes that it touches."""
    moved = sum(each.numel() * each.element_size() for each in tensors)
    return (
        _macs(operator, args, result) / MACS_PER_SECOND
        + moved / BYTES_PER_SECOND
        + SECONDS_PER_OPERATOR
    )


def _macs(operator: str, args: Sequence[Any], result: Any) -> float:
    if operator == "aten::convolution_backward":
        grad, weight, mask = args[0], args[2], args[10]
        return float(grad.numel() * prod(weight.shape[1:]) * (bool(mask[0]) + bool(mask[1])))
    return float(sum(prod(dims) for dims in operator_macs(operator, args, result)))


@cache
def _kind(func: Any) -> str:
    """Tell operators that return a view, their first argument, their target, or new tensors."""
    if func is torch.ops.aten.as_strided_.default:
        return "view"  # it changes strides alone, and has to
    schema = func._schema  # noqa: SLF001  # no public name
    aliases = [each.alias_info for each in schema.returns]
    if not aliases or any(alias is None for alias in aliases):
        return "makes"
    if not all(alias.is_write for alias in aliases):
        return "view"
    return "out" if any(each.is_out for each in schema.arguments) else "first"


_PLAIN = (int, bool, float, type(None))


def _layouts(value: Any) -> Any:
    """Return arguments with layouts in place of tensors, so that they can be looked up."""
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype, value.device.type)
    if isinstance(value, (tuple, list)):  # most entries are plain; a call for each takes longest
        return tuple([each if type(each) in _PLAIN else _layouts(each) for each in value])
    if isinstance(value, dict):  # a plain one; looking for any mapping takes longer than the rest
        return tuple((name, _layouts(each)) for name, each in value.items())
    return value


def _result_layouts(result: Any) -> Any:
    if isinstance(result, Tensor):
        return (tuple(result.shape), result.stride(), result.dtype)
    if isinstance(result, (tuple, list)):
        return [_result_layouts(each) for each in result]
    return None


def _made(layouts: Any) -> Any:
    if isinstance(layouts, tuple):
        shape, stride, dtype = layouts
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
    if isinstance(layouts, list):
        return tuple(_made(each) for each in layouts)
    return None
