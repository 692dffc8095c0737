"""CPU tensors without memory of their own."""

import pytest
import torch

from dse.memory.placeholders import Placeholders

TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64]


@pytest.mark.parametrize("dtype", TYPES)
def test_a_placeholder_has_the_layout_that_was_wanted(dtype: torch.dtype) -> None:
    made = Placeholders()
    for shape, stride in (((2, 3), (3, 1)), ((2, 3), (1, 2)), ((4, 5), (0, 1)), ((0, 3), (3, 1))):
        tensor = made.make(shape, stride, dtype)
        assert (tuple(tensor.shape), tensor.stride(), tensor.dtype) == (shape, stride, dtype)
    scalar = made.make((), (), dtype)
    assert made.bytes_at(made.address_of(scalar) or 0) == dtype.itemsize


def test_petabytes_take_no_memory_and_views_share_an_address() -> None:
    made = Placeholders()
    tensor = made.make((2**20, 2**20, 1024), (2**30, 1024, 1), torch.float32)
    address = made.address_of(tensor)
    assert address is not None
    assert made.bytes_at(address) == 2**52
    assert made.address_of(tensor[5:, :, 7]) == address
    assert tensor[0, 0, 0] == 0
    assert made.address_of(torch.zeros(3)) is None


def test_the_end_of_the_last_view_is_the_end_of_a_storage() -> None:
    made, ended = Placeholders(), []
    tensor = made.make((1024, 1024), (1024, 1), torch.float32)
    view = tensor[3]
    made.when_dead(made.address_of(tensor) or 0, lambda: ended.append("end"))
    del tensor
    assert not ended
    del view
    assert ended == ["end"]
