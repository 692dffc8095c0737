"""The adapter around Torch-Pruning: which channels of a network hang together.

Torch-Pruning walks the autograd graph and guesses how channels pass through each operation. What
comes out here are proposals; :mod:`dse.pruning.consistency` finds out which of them hold.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from dse.errors import PruningError
from dse.networks.forward import observing, tensors_in
from dse.pruning.blocks import Ints, Places, block_group, producers, uniform_blocks, uniquely_named
from dse.pruning.channel_group import ChannelGroup, Dimension
from dse.pruning.layout import channels_of, is_depthwise
from dse.pruning.shape_kernels import ShapeKernels
from dse.pruning.walk import Reached, all_reached

_STANDARD = (_ConvNd, nn.Linear, _NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)

# Entries that following the channels of one network may take. densenet201, the greediest network
# tried, needs 2.7 million; attention over shifted windows makes them grow without end.
_MAX_INDEX_ENTRIES = 10_000_000


@dataclass(frozen=True)
class Followed:
    """One forward pass of a network, and Torch-Pruning's account of it.

    Attributes:
        network: What ran.
        graph: Torch-Pruning's dependency graph.
        ignored: Modules whose output channels stay whole.
        order: Leaf modules in execution order.
        outputs: Layers whose outputs are the network's own.
        shapes: Of the network's outputs.
    """

    network: nn.Module
    graph: Any
    ignored: frozenset[nn.Module]
    order: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[torch.Size, ...]


def followed(network: nn.Module, sample: Tensor) -> Followed:
    """Run a network once and let Torch-Pruning build its graph of it.

    Args:
        network: In eval mode, on the meta device, its parameters all requiring gradients.
        sample: One input, on the meta device.

    Raises:
        PruningError: If the network doesn't run there, or Torch-Pruning can't follow it.
        NetworkError: If its output comes from no convolution or linear layer.
    """
    title = type(network).__name__
    outputs: list[Any] = []
    # Torch-Pruning sees the network's input only if a layer made it: without one it takes
    # concatenations with the input for shorter than they are.
    stem = _identity_sized_layer(sample)

    def forward(model: nn.Module, x: Tensor) -> Any:
        try:
            output = model(x)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PruningError(
                f"{title}: it doesn't run on meta tensors of shape {tuple(x.shape)} ({reason}); "
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
            graph = tp.DependencyGraph().build_dependency(
                nn.Sequential(stem, network),
                example_inputs=sample,
                forward_fn=forward,
                unwrapped_parameters=_bare_parameters(network),
                verbose=False,  # what it would warn of is checked afterwards
            )
    except PruningError:
        raise
    except Exception as error:
        raise _unfollowed(title, error) from error
    names = noted.output_layers(outputs[-1])
    return Followed(
        network=network,
        graph=graph,
        ignored=frozenset((stem, *(network.get_submodule(name) for name in names))),
        order=noted.order(),
        outputs=names,
        shapes=tuple(tensor.shape for tensor in tensors_in(outputs[-1])),
    )


def proposed_groups(seen: Followed) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Take the channel groups of a network from Torch-Pruning's graph.

    Args:
        seen: The network.

    Returns:
        The groups whose members can be resized, in execution order (whether removing their channels
        leaves a working network is yet to be seen), and for each layer that heads another one the
        reason why that can't be.

    Raises:
        PruningError: If Torch-Pruning can't follow the network.
    """
    network = seen.network
    rank = {name: index for index, name in enumerate(seen.order)}
    names: dict[int, str] = {id(module): name for name, module in network.named_modules()}
    names |= {id(parameter): name for name, parameter in network.named_parameters()}
    layout = cache(partial(channels_of, network))
    groups: list[ChannelGroup] = []
    refused: dict[str, str] = {}
    for reached in _all_reached(seen):
        places = _places(reached, names)
        for block in uniform_blocks(places):
            heads = producers(network, places, block, rank)
            try:
                groups.append(block_group(layout, places, block, heads, rank))
            except PruningError as error:
                refused[heads[0]] = str(error)
    groups.sort(key=lambda group: (rank.get(group.name, len(rank)), group.members[0].start))
    return uniquely_named(groups), refused


def _all_reached(seen: Followed) -> list[list[Reached]]:
    """What hangs together, Torch-Pruning's every failure turned into one line."""
    title = type(seen.network).__name__
    try:
        return list(all_reached(seen.graph, ignored=seen.ignored, most_entries=_MAX_INDEX_ENTRIES))
    except PruningError as error:
        raise PruningError(f"{title}: {error}") from error
    except Exception as error:
        raise _unfollowed(title, error) from error


def _unfollowed(title: str, error: Exception) -> PruningError:
    told = " ".join(str(error).split())  # errors are one line
    return PruningError(
        f"{title}: Torch-Pruning can't follow how its channels pass from layer to layer "
        f"({type(error).__name__}: {told}); use another network"
    )


def _identity_sized_layer(sample: Tensor) -> nn.Module:
    """A layer with as many output as input channels, for one input's number of dimensions."""
    features = sample.shape[1]
    made: dict[str, Any] = {"dtype": sample.dtype, "device": sample.device}
    convolutions = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
    if sample.dim() in convolutions:
        return convolutions[sample.dim()](features, features, kernel_size=1, **made)
    return nn.Linear(sample.shape[-1], sample.shape[-1], **made)


def _bare_parameters(network: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Parameters outside the standard layers, each with the axis that its channels lie along."""
    return [
        (parameter, _channel_axis(parameter))
        for module in network.modules()
        if not isinstance(module, _STANDARD)
        for parameter in module.parameters(recurse=False)
        if parameter.numel() > 1
    ]


def _channel_axis(parameter: nn.Parameter) -> int:
    """Of a (..., channels, height, width) tensor the third from last, otherwise the last."""
    spatial = 2
    if parameter.dim() > spatial and parameter.shape[-3] > 1:
        return parameter.dim() - 3
    return max(axis for axis, size in enumerate(parameter.shape) if size > 1)


def _places(reached: Sequence[Reached], names: Mapping[int, str]) -> Places:
    """Give places their names, leaving out pseudo-operations, which have no tensors."""
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


def _dimension(reached: Reached) -> Dimension:
    target = reached.target.module
    if isinstance(target, nn.Parameter):
        return int(reached.target.pruning_dim)
    if is_depthwise(target) or not isinstance(target, (_ConvNd, nn.Linear)):
        return "both"
    return "out" if reached.handler.__name__ == "prune_out_channels" else "in"
