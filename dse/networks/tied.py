"""Tied tensors: a parameter or buffer that several modules share has several names."""

from torch import nn


def first_names(network: nn.Module) -> dict[str, str]:
    """Map every name of a parameter or buffer to the first name of the same tensor.

    The first names are those that ``named_parameters()`` and ``named_buffers()`` give.
    """
    first: dict[int, str] = {}
    names = {}
    for kind in (network.named_parameters, network.named_buffers):
        for name, tensor in kind(remove_duplicate=False):
            names[name] = first.setdefault(id(tensor), name)
    return names
