"""Follow the channels of a network through a forward pass, to see which depend on each other."""

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn

from dse.errors import PruningError
from dse.networks.forward import observing, tensors_in
from dse.pruning.dimension_flow import Flow, followed_dimensions
from dse.pruning.dimension_rules import RULES, others
from dse.pruning.factor_division import unify
from dse.pruning.factors import Factor, factors_of, product_of
from dse.pruning.resize import resized
from dse.pruning.shape_kernels import ShapeKernels
from dse.user_code import USER_ERRORS, described


@dataclass(frozen=True)
class Followed:
    """A network whose channels were followed through a forward pass.

    Attributes:
        network: The network that ran.
        flow: The factors of the axes of its tensors.
        order: Names of the leaf modules in execution order.
        outputs: Names of the layers that compute the network's outputs.
        shapes: Shapes of the network's outputs.
    """

    network: nn.Module
    flow: Flow
    order: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[torch.Size, ...]


def followed(network: nn.Module, sample: Tensor) -> Followed:
    """Run a network and follow its channels.

    Args:
        network: Network in eval mode on the meta device, with all parameters requiring gradients.
        sample: One input, on the meta device.

    Raises:
        PruningError: If the network does not run on the meta device.
        NetworkError: If the output comes from no convolution or linear layer.
    """
    title = type(network).__name__
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(ShapeKernels())
        noted = stack.enter_context(observing(network))
        output = _run(network, sample)
    if not any(tensor.grad_fn is not None for tensor in tensors_in(output)):
        raise PruningError(
            f"{title}: it returns no tensor that comes from its layers, but a "
            f"{type(output).__name__}; use a network that returns its outputs"
        )
    # A copy, as the network may have stored tensors in the pass above.
    with ShapeKernels():
        flow = followed_dimensions(
            resized(network, (), ()), sample, run=_run, rules=RULES, others=others
        )
    return Followed(
        network=network,
        flow=flow,
        order=noted.order(),
        outputs=noted.output_layers(output),
        shapes=tuple(tensor.shape for tensor in tensors_in(output)),
    )


def _run(network: nn.Module, sample: Tensor) -> Any:
    try:
        return network(sample)
    except USER_ERRORS as error:
        raise PruningError(
            f"{type(network).__name__}: it doesn't run on meta tensors of shape "
            f"{tuple(sample.shape)} ({described(error)}); "
            "its control flow must not depend on values, tensors that it makes must be on its "
            "input's device, and the image must be large enough"
        ) from error


def tied_widths(flow: Flow, refused: Collection[Factor]) -> bool:
    """Tie the width that a layer reads to its heads, where neither could be pruned alone.

    Some code computes the width of a head as the layer's width divided by the number of heads. So
    the width must be reduced by whole heads, in all layers that it ties together.

    Args:
        flow: The factors of a network's axes. They are changed.
        refused: Factors whose groups were tried, and can't be removed.

    Returns:
        Whether any were tied.
    """
    pairs: list[tuple[Factor, Factor]] = []
    for axes in flow.parameters.values():
        for width, other in permutations([axis.resolved() for axis in axes], 2):
            parts = factors_of(other)
            if width not in refused or not any(part in refused for part in parts):
                continue
            for first in range(len(parts) - 1):
                heads = product_of(parts[first:])
                if heads.size == width.size and parts[first] in refused:
                    pairs.append((width, heads))
                    break
    for width, heads in pairs:
        unify(width, heads, otherwise="its width isn't divided evenly by its heads")
    return bool(pairs)
