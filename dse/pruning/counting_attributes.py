"""Find the numbers of a module that count channels, such as ``num_heads``, which change with them.

A module's code gives sizes where it reshapes, expands or splits a tensor. A number of the module
that equals the size of such an axis is taken for its count. Like everything proposed, that is
verified by running the network with other counts. Where it fails, the number may have equalled the
size by chance, as an image size of 64 equals a width of 64.
"""

from collections.abc import Iterator
from math import prod

from torch import nn
from torch.nn.modules.conv import _ConvNd

from dse.pruning.dimension_flow import Flow
from dse.pruning.factors import Factor, factors_of, is_whole, occurrences, product_of

# Attributes of PyTorch's layers and of their subclasses, with the axis of the weight they count.
_LAYERS: tuple[tuple[type[nn.Module], dict[str, int]], ...] = (
    (nn.Linear, {"out_features": 0, "in_features": 1}),
    (_ConvNd, {"out_channels": 0, "in_channels": 1}),
    (nn.modules.batchnorm._NormBase, {"num_features": 0}),  # noqa: SLF001  # the public ones' base
    (nn.GroupNorm, {"num_channels": 0}),
    (nn.LayerNorm, {"normalized_shape": 0}),
    (nn.RMSNorm, {"normalized_shape": 0}),
)


def counting_attributes(
    network: nn.Module, name: str, flow: Flow
) -> Iterator[tuple[str, Factor, bool]]:
    """Yield each number of a module that counts an axis, with the axis, and whether that is known.

    It is known of the layers of PyTorch, and likely of others.

    Args:
        network: The network that was followed.
        name: Name of the module.
        flow: The factors of the network's axes.
    """
    module = network.get_submodule(name)
    known = dict(_of_layer(module, flow.parameters.get(f"{name}.weight", ())))
    yield from ((attribute, axis, True) for attribute, axis in known.items())
    own = [
        axis
        for tensor in (*module._parameters, *module._buffers)  # noqa: SLF001  # without children
        for axis in flow.parameters.get(f"{name}.{tensor}", ())
    ]
    axes = [axis for axis in (*flow.scopes[name].values(), *own) if not is_whole(axis)]
    for attribute, value in _numbers(module):
        if attribute in known:
            continue
        found = {_identity(axis): axis for axis in axes if axis.size == value}
        # The width of a whole axis can be read off a tensor, that of several factors can't.
        most = max((len(factors_of(axis)) for axis in found.values()), default=0)
        likely = [axis for axis in found.values() if len(factors_of(axis)) == most]
        if len(likely) == 1:
            yield attribute, likely[0], False


def _numbers(module: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield the whole numbers among a module's attributes, and those within tuples."""
    for attribute, value in vars(module).items():
        if isinstance(value, tuple):
            for place, each in enumerate(value):
                if isinstance(each, int) and not isinstance(each, bool):
                    yield f"{attribute}[{place}]", each
        elif isinstance(value, int) and not isinstance(value, bool):
            yield attribute, value


def _of_layer(module: nn.Module, weight: tuple[Factor, ...]) -> Iterator[tuple[str, Factor]]:
    """Yield what the attributes of a subclass of PyTorch's layers count."""
    for kind, attributes in _LAYERS:
        if not isinstance(module, kind) or not weight:
            continue
        blocks = module.groups if isinstance(module, _ConvNd) else 1
        if blocks == 1:
            swapped = isinstance(module, _ConvNd) and module.transposed
            for attribute, axis in attributes.items():
                if axis < len(weight):
                    yield attribute, weight[1 - axis if swapped else axis]
            continue
        yield "out_channels", weight[0]
        # Each input channel has filters of its own.
        leading: list[Factor] = []
        for factor in factors_of(weight[0]):
            if prod(each.size for each in leading) == blocks:
                break
            leading.append(factor)
        turns = product_of(leading)
        if turns.size == blocks:
            yield "groups", turns
            yield "in_channels", product_of([turns, weight[1]])


def _identity(axis: Factor) -> tuple[tuple[int, tuple[int, ...], int], ...]:
    """Tell axes apart by which of their positions belong to which factor."""
    return tuple(
        (id(each.leaf), each.starts, each.span) for each in occurrences(axis) if each.leaf.size > 1
    )
