"""CPU tensors with a layout and no memory, so that PyTorch treats them as it treats real ones.

PyTorch's C++ code asks of a tensor whether it is on meta or a subclass, and whether a dispatch mode
is active. If so, it takes other formulas, and adds gradients out of place. To see what really runs,
a traced step needs plain CPU tensors. A placeholder is one: it wraps an address at which it owns
nothing. Large placeholders share read-only pages of zeros, small ones have memory of their own. So
C++ code that reads a value past the dispatcher, as some loss functions do, finds a zero, and can
write to a small tensor that it has just made.

No kernel may run on placeholders: see ``cpu_dispatch``.
"""

import mmap
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

import numpy as np
import torch

_OWN_BYTES = {False: 2**12, True: 2**26}
"""Largest placeholder with memory, by whether code past the dispatcher may write to it."""

_READABLE_BYTES = tuple(2**power for power in (42, 38, 34, 30))  # the first that can be reserved
_SPACING = 64
_ADDRESSES = 2**20  # placeholders that can be alive at once

_NUMPY_TYPES = {
    torch.bool: "|b1",
    torch.uint8: "|u1",
    torch.int8: "|i1",
    torch.int16: "<i2",
    torch.int32: "<i4",
    torch.int64: "<i8",
    torch.float16: "<f2",
    torch.float32: "<f4",
    torch.float64: "<f8",
    torch.complex64: "<c8",
    torch.complex128: "<c16",
}
_SAME_SIZE = {1: "|u1", 2: "<i2", 4: "<i4", 8: "<i8", 16: "<c16"}  # for types unknown to numpy


class _Region:
    """The address range of one storage. It ends when PyTorch releases the storage."""

    __slots__ = ("__array_interface__", "_addresses", "_ended", "address", "memory")

    def __init__(
        self,
        shape: Sequence[int],
        strides: Sequence[int],
        *,
        type_name: str,
        own_bytes: int,
        addresses: list[int],
        ended: Callable[[int], None],
    ) -> None:
        self.memory = np.zeros(own_bytes, dtype=np.uint8) if own_bytes else None
        self._addresses = addresses
        self.address = addresses.pop() if self.memory is None else self.memory.ctypes.data
        self._ended = ended
        self.__array_interface__ = {
            "data": (self.address, False),
            "shape": tuple(shape),
            "strides": tuple(strides),
            "typestr": type_name,
            "version": 3,
        }

    def __del__(self) -> None:
        if self.memory is None:
            self._addresses.append(self.address)
        self._ended(self.address)


class Placeholders:
    """Makes placeholders, and knows which storages are theirs."""

    def __init__(self) -> None:
        with _RESERVING:
            self._addresses = _addresses()
        self._sizes: dict[int, int] = {}  # address of a living storage -> bytes
        self._on_death: dict[int, Callable[[], None]] = {}

    def make(
        self,
        shape: Sequence[int],
        stride: Sequence[int],
        dtype: torch.dtype,
        *,
        written: bool = False,
    ) -> torch.Tensor:
        """Return a placeholder with a storage of its own.

        Args:
            shape: Shape.
            stride: Strides, in elements.
            dtype: Type of the elements.
            written: Whether code past the dispatcher may write to it, if it is small enough.
        """
        size = dtype.itemsize
        reach = sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1
        held = 0 if 0 in shape else reach * size
        region = _Region(
            shape,
            [step * size for step in stride],
            type_name=_NUMPY_TYPES.get(dtype) or _SAME_SIZE[size],
            # Even an empty tensor needs an address.
            own_bytes=max(held, 1) if held <= _OWN_BYTES[written] else 0,
            addresses=self._addresses,
            ended=self._ended,
        )
        self._sizes[region.address] = held
        with torch._C._AutoDispatchBelowADInplaceOrView():  # noqa: SLF001  # no public name
            tensor = torch.from_numpy(np.asarray(region))
            return tensor if tensor.dtype == dtype else tensor.view(dtype)

    def address_of(self, tensor: torch.Tensor) -> int | None:
        """Return the address of a tensor's storage. None if it isn't a placeholder."""
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return None
        address = int(tensor.data_ptr() - tensor.storage_offset() * tensor.element_size())
        return address if address in self._sizes else None

    def bytes_at(self, address: int) -> int:
        """Return the size of a storage."""
        return self._sizes[address]

    def when_dead(self, address: int, call: Callable[[], None]) -> None:
        """Call a function when PyTorch releases a storage."""
        self._on_death[address] = call

    def _ended(self, address: int) -> None:
        del self._sizes[address]
        call = self._on_death.pop(address, None)
        if call is not None:
            call()


_RESERVING = threading.Lock()  # all threads take from the same addresses


@cache
def _zeros() -> mmap.mmap:
    """Reserve pages that read as zero. They take no memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    for size in _READABLE_BYTES:
        with suppress(OSError, ValueError):
            return mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ)
    return mmap.mmap(-1, _ADDRESSES * _SPACING, flags=flags, prot=mmap.PROT_READ)


@cache
def _addresses() -> list[int]:
    """Return the unused addresses of large placeholders, for all threads."""
    first = np.frombuffer(_zeros(), dtype=np.uint8).ctypes.data
    return [first + number * _SPACING for number in reversed(range(_ADDRESSES))]
