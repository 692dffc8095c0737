"""Copies of a network."""

import copy
from collections.abc import Iterator, Mapping
from typing import TypeVar

from torch import Tensor, nn

from dse.user_code import guarded

Network = TypeVar("Network", bound=nn.Module)


def copied(network: Network, replacements: Mapping[int, object] | None = None) -> Network:
    """Copy a network, results of earlier forward passes that it keeps included.

    ``copy.deepcopy`` refuses a tensor that autograd computed, such as a feature map that a module
    keeps as an attribute. The copy gets its values alone.

    Args:
        network: The network. It is not changed.
        replacements: Replacement of each parameter or buffer, by its ``id``.

    Raises:
        NetworkError: If it holds something that can't be copied, such as an open file or a lock.
    """
    memo: dict[int, object] = dict(replacements or {})
    for module in network.modules():
        for tensor in _computed(vars(module), set()):
            memo.setdefault(id(tensor), tensor.detach().clone())
    with guarded(
        network,
        "can't be copied",
        fix="make what it holds copyable with copy.deepcopy, e.g. open files and make locks when "
        "they are needed",
    ):
        return copy.deepcopy(network, memo)


def _computed(value: object, seen: set[int]) -> Iterator[Tensor]:
    """Yield tensors with an autograd history in plain containers, however they are nested."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            yield value
    elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
        seen.add(id(value))
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _computed(each, seen)
