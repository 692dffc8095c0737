"""Replace a network's output layer by one with another number of outputs."""

from torch import Tensor, nn

from dse.errors import NetworkError
from dse.networks.classifier import classifier_parameters
from dse.networks.fixed import unfix


def replace_head(network: nn.Module, example: Tensor, *, classes: int) -> None:
    """Replace the output layer by a newly initialised one.

    Args:
        network: Network to change in place.
        example: Example input of the network.
        classes: Number of outputs of the new layer.

    Raises:
        NetworkError: If the network has several output layers, or its output layer is neither an
            ungrouped 2-D convolution nor a linear layer.
    """
    parameters = classifier_parameters(network, example)
    heads = list(dict.fromkeys(name.rpartition(".")[0] for name in parameters))
    if len(heads) != 1:
        raise NetworkError(
            f"{type(network).__name__} has {len(heads)} output layers ({', '.join(heads)}); "
            "only one can be replaced"
        )
    _put_head(network, heads[0], classes)


def _put_head(network: nn.Module, head: str, classes: int) -> None:
    """Replace a layer by a newly initialised one of the same type with ``classes`` outputs."""
    old = network.get_submodule(head)
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    elif isinstance(old, nn.Conv2d) and old.groups == 1:
        new = nn.Conv2d(
            old.in_channels,
            classes,
            old.kernel_size,  # type: ignore[arg-type]
            stride=old.stride,  # type: ignore[arg-type]
            padding=old.padding,  # type: ignore[arg-type]
            dilation=old.dilation,  # type: ignore[arg-type]
            bias=old.bias is not None,
            padding_mode=old.padding_mode,
        )
    else:
        raise NetworkError(
            f"{head or type(network).__name__}: an output layer of type {type(old).__name__} can't "
            "be replaced by one with another number of outputs"
        )
    new.to(device=old.weight.device, dtype=old.weight.dtype).train(old.training)
    unfix(network, [f"{head}.weight", f"{head}.bias"])
    parent, _, attribute = head.rpartition(".")
    setattr(network.get_submodule(parent), attribute, new)
