"""Describe which tensors and attributes of a module extend along its channel dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from dse.errors import PruningError
from dse.pruning.channel_group import Dimension

# Types whose output channels are their input channels: the attribute with their number, and the
# tensors with one entry per channel.
_JOINED: tuple[tuple[type[nn.Module], str, tuple[str, ...]], ...] = (
    (_NormBase, "num_features", ("weight", "bias", "running_mean", "running_var")),
    (nn.GroupNorm, "num_channels", ("weight", "bias")),
    (nn.LayerNorm, "normalized_shape", ("weight", "bias")),
    (nn.RMSNorm, "normalized_shape", ("weight",)),
    (nn.PReLU, "num_parameters", ("weight",)),
)


@dataclass(frozen=True)
class Axis:
    """One axis of one tensor that follows a channel dimension of its module.

    Attributes:
        tensor: Name of the parameter or buffer within the module. Empty for a bare parameter.
        axis: Index of the axis.
        blocks: Number of equal blocks into which the module divides the dimension along this axis.
            A grouped convolution's weight has only one block's input channels on its axis 1, and
            each of its blocks along axis 0 reads its own. 1 for all other tensors.
    """

    tensor: str
    axis: int
    blocks: int = 1


@dataclass(frozen=True)
class Channels:
    """A channel dimension of a module.

    Attributes:
        width: Current number of positions.
        axes: Tensor axes that follow the dimension.
        attributes: Integer attributes of the module that hold the width.
        multiple: The width must be a multiple of this number.
    """

    width: int
    axes: tuple[Axis, ...]
    attributes: tuple[str, ...]
    multiple: int = 1


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution has one filter per channel, so that outputs are tied to inputs."""
    return (
        isinstance(module, _ConvNd)
        and module.groups > 1
        and module.groups == module.in_channels == module.out_channels
    )


def channels_of(network: nn.Module, name: str, dimension: Dimension) -> Channels:
    """Describe one channel dimension of a module or bare parameter.

    Args:
        network: Network that holds the module. Its tensors may be on any device.
        name: Dotted name of the module, or of a bare parameter if ``dimension`` is an axis.
        dimension: As in :class:`~dse.pruning.channel_group.Member`.

    Raises:
        PruningError: If the module or parameter does not exist, its type has no such channel
            dimension, or it has tensors that are not known here.
    """
    if isinstance(dimension, int):
        return _parameter_channels(network, name, dimension)
    try:
        module = network.get_submodule(name)
    except AttributeError as error:
        raise PruningError(
            f"{name}: the network has no such module; the channel groups belong to another one"
        ) from error
    if dimension not in ("out", "in", "both"):
        return _attribute_channels(module, name, dimension)
    channels = _module_channels(module, dimension)
    if channels is None:
        raise PruningError(
            f"{name}: a {type(module).__name__} can't be resized along these channels"
        )
    known = {axis.tensor for axis in channels.axes} | {"weight", "bias", "num_batches_tracked"}
    own = {key for key, _ in chain(module.named_parameters(), module.named_buffers())}
    if parametrize.is_parametrized(module) or own - known:
        raise PruningError(
            f"{name}: this {type(module).__name__} has tensors of its own "
            f"({', '.join(sorted(own - known))}) that can't be resized; use the plain layer"
        )
    return channels


def _parameter_channels(network: nn.Module, name: str, axis: int) -> Channels:
    owner, _, tensor = name.rpartition(".")
    try:
        found = getattr(network.get_submodule(owner), tensor)
    except AttributeError as error:
        raise PruningError(
            f"{name}: the network has no such parameter; the channel groups belong to another one"
        ) from error
    return Channels(found.shape[axis], (Axis("", axis),), ())


def read_attribute(module: nn.Module, attribute: str) -> object:
    """Return a number of a module, or one within a tuple, as in ``bias_shape[2]``."""
    name, _, place = attribute.partition("[")
    value = getattr(module, name, None)
    if isinstance(value, tuple):
        return value[int(place.rstrip("]") or 0)]
    return value


def write_attribute(module: nn.Module, attribute: str, number: int) -> None:
    """Write a number of a module, or one within a tuple."""
    name, _, place = attribute.partition("[")
    value = getattr(module, name)
    if isinstance(value, tuple):
        index = int(place.rstrip("]") or 0)
        setattr(module, name, (*value[:index], number, *value[index + 1 :]))
    else:
        setattr(module, name, number)


def _attribute_channels(module: nn.Module, name: str, attribute: str) -> Channels:
    width = read_attribute(module, attribute)
    if not isinstance(width, int) or isinstance(width, bool):
        raise PruningError(
            f"{name}: this {type(module).__name__} has no number {attribute!r}; the channel groups "
            "belong to another network"
        )
    return Channels(width, (), (attribute,))


def _module_channels(module: nn.Module, dimension: Dimension) -> Channels | None:
    """Describe one dimension. None if the type is unknown or has no such dimension."""
    if isinstance(module, _ConvNd):
        return _convolution_channels(module, dimension)
    if isinstance(module, nn.Linear):
        return _linear_channels(module, dimension)
    return _joined_channels(module) if dimension == "both" else None


def _convolution_channels(module: _ConvNd, dimension: Dimension) -> Channels | None:
    if is_depthwise(module):
        attributes = ("in_channels", "out_channels", "groups")
        axes = _axes(module, ("weight", "bias"))
        return Channels(module.out_channels, axes, attributes) if dimension == "both" else None
    if module.transposed and module.groups > 1:
        return None
    out_axis, in_axis = (1, 0) if module.transposed else (0, 1)
    if dimension == "out":
        axes = (Axis("weight", out_axis), *_axes(module, ("bias",)))
        return Channels(module.out_channels, axes, ("out_channels",), module.groups)
    if dimension == "in":
        axes = (Axis("weight", in_axis, module.groups),)
        return Channels(module.in_channels, axes, ("in_channels",), module.groups)
    return None


def _linear_channels(module: nn.Linear, dimension: Dimension) -> Channels | None:
    if dimension == "out":
        return Channels(module.out_features, _axes(module, ("weight", "bias")), ("out_features",))
    if dimension == "in":
        return Channels(module.in_features, (Axis("weight", 1),), ("in_features",))
    return None


def _joined_channels(module: nn.Module) -> Channels | None:
    """Describe a layer whose output channels are its input channels. None for other types."""
    for kind, attribute, tensors in _JOINED:
        if isinstance(module, kind):
            width = getattr(module, attribute)
            if isinstance(width, tuple):  # LayerNorm's normalized_shape
                if len(width) != 1:
                    return None
                (width,) = width
            multiple = module.num_groups if isinstance(module, nn.GroupNorm) else 1
            return Channels(width, _axes(module, tensors), (attribute,), multiple)
    return None


def _axes(module: nn.Module, tensors: Sequence[str]) -> tuple[Axis, ...]:
    """Return axis 0 of each of these tensors that the module has."""
    return tuple(Axis(name, 0) for name in tensors if getattr(module, name, None) is not None)
