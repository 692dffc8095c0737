"""Adapter for Torch-Pruning, which finds the channels of a network that depend on each other.

Torch-Pruning walks the autograd graph and guesses how channels pass through each operation. Its
results are only proposals, which :mod:`dse.pruning.consistency` verifies.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from dse.errors import DseError, PruningError
from dse.networks.forward import observing, tensors_in
from dse.pruning.blocks import Ints, Places, block_group, producers, uniform_blocks, uniquely_named
from dse.pruning.channel_group import ChannelGroup, Dimension
from dse.pruning.layout import Channels, channels_of, is_depthwise
from dse.pruning.lenient_graph import LenientGraph, lenient_graph
from dse.pruning.shape_kernels import ShapeKernels
from dse.pruning.walk import Reached, all_reached
from dse.user_code import USER_ERRORS, described

_STANDARD = (_ConvNd, nn.Linear, _NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)

# Limit of the index entries that following one layer's channels may take. All of densenet201, the
# most demanding convolutional network tried, needs 2.7 million. Attention over shifted windows
# grows without bound.
_MAX_INDEX_ENTRIES = 2_000_000

_INPUT = "its channels are added to, or concatenated with, the network's input, which stays whole"
_OUTPUT = "its channels are the network's outputs, which stay whole"


@dataclass(frozen=True)
class Followed:
    """One forward pass of a network, with Torch-Pruning's dependency graph of it.

    Attributes:
        network: The network that ran.
        graph: Torch-Pruning's dependency graph, and what in it can't be followed.
        fixed: Modules whose output channels can't be pruned, each with the reason.
        order: Names of the leaf modules in execution order.
        outputs: Names of the layers that compute the network's outputs.
        shapes: Shapes of the network's outputs.
    """

    network: nn.Module
    graph: LenientGraph
    fixed: Mapping[nn.Module, str]
    order: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[torch.Size, ...]


def followed(network: nn.Module, sample: Tensor) -> Followed:
    """Run a network once and let Torch-Pruning build its dependency graph.

    Args:
        network: Network in eval mode on the meta device, with all parameters requiring gradients.
        sample: One input, on the meta device.

    Raises:
        PruningError: If the network does not run on the meta device, or Torch-Pruning can't follow
            it.
        NetworkError: If the output comes from no convolution or linear layer.
    """
    title = type(network).__name__
    outputs: list[Any] = []
    # Torch-Pruning tracks the network's input only if a layer produced it. Without such a layer, it
    # gets the width of concatenations with the input wrong.
    stem = _identity_sized_layer(sample)

    def forward(model: nn.Module, x: Tensor) -> Any:
        try:
            output = model(x)
        except USER_ERRORS as error:
            raise PruningError(
                f"{title}: it doesn't run on meta tensors of shape {tuple(x.shape)} "
                f"({described(error)}); "
                "its control flow must not depend on values, tensors that it makes must be on its "
                "input's device, and the image must be large enough"
            ) from error
        if not any(tensor.grad_fn is not None for tensor in tensors_in(output)):
            raise PruningError(
                f"{title}: it returns no tensor that comes from its layers, but a "
                f"{type(output).__name__}; use a network that returns its outputs"
            )
        outputs.append(output)
        return output

    try:
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(ShapeKernels())
            noted = stack.enter_context(observing(network))
            graph = lenient_graph(
                nn.Sequential(stem, network),
                sample,
                forward=forward,
                bare_parameters=_bare_parameters(network),
            )
    except DseError:
        raise
    except Exception as error:
        raise PruningError(
            f"{title}: Torch-Pruning can't follow how its channels pass from layer to layer "
            f"({described(error)}); use another network"
        ) from error
    names = noted.output_layers(outputs[-1])
    return Followed(
        network=network,
        graph=graph,
        fixed={stem: _INPUT, **{network.get_submodule(name): _OUTPUT for name in names}},
        order=noted.order(),
        outputs=names,
        shapes=tuple(tensor.shape for tensor in tensors_in(outputs[-1])),
    )


def proposed_groups(seen: Followed) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Derive a network's channel groups from Torch-Pruning's graph.

    Args:
        seen: The network that was followed.

    Returns:
        The groups whose members can be resized, in execution order, and for the head layer of every
        other group the reason why it can't be. Whether removing a group's channels leaves a working
        network is not checked here.
    """
    network = seen.network
    rank = {name: index for index, name in enumerate(seen.order)}
    names: dict[int, str] = {id(module): name for name, module in network.named_modules()}
    names |= {id(parameter): name for name, parameter in network.named_parameters()}
    layout = cache(partial(channels_of, network))
    groups: list[ChannelGroup] = []
    refused: dict[str, str] = {}

    def position(name: str) -> int:
        return rank.get(name, len(rank))

    for walked in all_reached(seen.graph, fixed=seen.fixed, most_entries=_MAX_INDEX_ENTRIES):
        if walked.reason is not None:
            whole = {
                names[id(each)]
                for each in walked.shrinking
                if isinstance(each, (_ConvNd, nn.Linear)) and id(each) in names
            }
            refused |= dict.fromkeys(sorted(whole - set(seen.outputs), key=position), walked.reason)
            continue
        places = _fitting(_places(walked.reached, names), layout)
        for block in uniform_blocks(places) if places else ():
            heads = producers(network, places, block, rank)
            if not heads:  # groups.py gives its reason
                continue
            try:
                groups.append(block_group(layout, places, block, heads, rank))
            except PruningError as error:
                refused |= dict.fromkeys(heads, str(error))
    groups.sort(key=lambda group: (position(group.name), group.members[0].start))
    return uniquely_named(groups), refused


def _identity_sized_layer(sample: Tensor) -> nn.Module:
    """Build a layer that maps an input like `sample` to an output of the same size."""
    features = sample.shape[1]
    made: dict[str, Any] = {"dtype": sample.dtype, "device": sample.device}
    convolutions = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
    if sample.dim() in convolutions:
        return convolutions[sample.dim()](features, features, kernel_size=1, **made)
    return nn.Linear(sample.shape[-1], sample.shape[-1], **made)


def _bare_parameters(network: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Return the parameters outside standard layers, each with its channel axis."""
    return [
        (parameter, _channel_axis(parameter))
        for module in network.modules()
        if not isinstance(module, _STANDARD)
        for parameter in module.parameters(recurse=False)
        if parameter.numel() > 1
    ]


def _channel_axis(parameter: nn.Parameter) -> int:
    """Return the channel axis: third from last in (..., channels, height, width), else last."""
    spatial = 2
    if parameter.dim() > spatial and parameter.shape[-3] > 1:
        return parameter.dim() - 3
    return max(axis for axis, size in enumerate(parameter.shape) if size > 1)


def _places(reached: Sequence[Reached], names: Mapping[int, str]) -> Places:
    """Key places by module name. Pseudo-operations have no tensors and are left out."""
    found: dict[tuple[str, Dimension], list[tuple[Ints, Ints]]] = defaultdict(list)
    for each in reached:
        target = each.target.module
        name = names.get(id(target))
        if name is None or (isinstance(target, nn.PReLU) and target.num_parameters == 1):
            continue
        found[name, _dimension(each)].append((each.positions, each.channels))
    return {
        key: (
            np.concatenate([positions for positions, _ in several]),
            np.concatenate([channels for _, channels in several]),
        )
        for key, several in found.items()
    }


def _fitting(places: Places, layout: Callable[[str, Dimension], Channels]) -> Places:
    """Leave out the places that can't be right, because the dimension has no such positions.

    Torch-Pruning takes every dimension that it doesn't understand, such as attention heads, for the
    channels. Whether the other places are all that the channels reach is for the trials to show.
    """
    fitting = {}
    for (name, dimension), (positions, channels) in places.items():
        try:
            width = layout(name, dimension).width
        except PruningError:
            width = None  # refused where the group is built
        if width is None or (
            len(np.unique(positions)) == len(positions) <= width > positions.max()
        ):
            fitting[name, dimension] = positions, channels
    return fitting


def _dimension(reached: Reached) -> Dimension:
    target = reached.target.module
    if isinstance(target, nn.Parameter):
        return int(reached.target.pruning_dim)
    if is_depthwise(target) or not isinstance(target, (_ConvNd, nn.Linear)):
        return "both"
    return "out" if reached.handler.__name__ == "prune_out_channels" else "in"
