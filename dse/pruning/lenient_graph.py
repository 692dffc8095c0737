"""Torch-Pruning's dependency graph, where an operation that can't be followed stops only its path.

Torch-Pruning builds its graph in one go, so that one operation it fails on ends everything. Here
each operation is prepared alone. What fails is noted, and only the channels that reach it are lost.
"""

import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.dependency.index_mapping import update_index_mapping
from torch_pruning.dependency.shape_infer import init_shape_information

from dse.user_code import described

# Steps that Torch-Pruning runs once for each operation, after the graph has its edges.
_PREPARATIONS = (init_shape_information, update_index_mapping)


@dataclass(frozen=True)
class LenientGraph:
    """A dependency graph and the operations in it that Torch-Pruning can't follow.

    Attributes:
        graph: Built ``torch_pruning.DependencyGraph``.
        lost: For each node that can't be followed, the reason.
    """

    graph: Any
    lost: Mapping[Any, str]


def lenient_graph(
    network: nn.Sequential,
    sample: Tensor,
    *,
    forward: Callable[[nn.Module, Tensor], Any],
    bare_parameters: Sequence[tuple[nn.Parameter, int]],
) -> LenientGraph:
    """Trace a network and build its dependency graph.

    Args:
        network: Pair of a layer before the network and the network itself, in eval mode, with all
            parameters requiring gradients.
        sample: Its input.
        forward: Runs the network on the sample.
        bare_parameters: Parameters outside standard layers, each with its channel axis.

    Raises:
        Exception: Whatever ``forward`` or Torch-Pruning's trace of the whole network raises.
    """
    graph = tp.DependencyGraph()
    graph.verbose = False  # the conditions it would warn about are checked afterwards
    graph.model = network
    graph.ignored_params = []
    graph._module2name = {  # noqa: SLF001  # the steps of build_dependency, one at a time
        module: name for name, module in network.named_modules()
    }
    graph._param_to_name, graph.unwrapped_parameters = (  # noqa: SLF001
        graph._detect_unwrapped_parameters(list(bare_parameters))  # noqa: SLF001
    )
    graph.module2node = graph._trace(  # noqa: SLF001
        network, sample, forward, output_transform=None
    )
    for name, parameter in network.named_parameters():
        if (node := graph.module2node.get(parameter)) is not None:
            node._name = name  # noqa: SLF001  # instead of a number
    graph._build_dependency(graph.module2node)  # noqa: SLF001
    lost: dict[Any, str] = {}
    for prepare in _PREPARATIONS:
        for module, node in graph.module2node.items():
            if node in lost:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the trials show what they are about
                    prepare(_only(graph, module, node))
            except Exception as error:  # noqa: BLE001  # any failure of Torch-Pruning's is a reason
                lost[node] = f"Torch-Pruning can't follow {place_of(node)} ({described(error)})"
    return LenientGraph(graph, lost)


def _only(graph: Any, module: nn.Module, node: Any) -> Any:
    """A view of the graph in which the steps above find one node alone."""
    return SimpleNamespace(
        module2node={module: node},
        get_out_channels=graph.get_out_channels,
        get_in_channels=graph.get_in_channels,
        _2d_4d=graph._2d_4d,  # noqa: SLF001
    )


def place_of(node: Any) -> str:
    """Say which operation a node is: a layer by its name, another one by the layer before it."""
    if name := _layer_name(node):
        return name
    operation = type(node.grad_fn).__name__.partition("Backward")[0]
    seen: set[int] = set()
    queue = deque(node.inputs)
    while queue:
        before = queue.popleft()
        if name := _layer_name(before):
            return f"{operation} after {name}"
        if id(before) not in seen:
            seen.add(id(before))
            queue.extend(before.inputs)
    return operation


def _layer_name(node: Any) -> str | None:
    """Name of a node's module in the network, which is the second part of what was traced."""
    name: str = node._name or ""  # noqa: SLF001  # `name` adds the module's whole description
    return name.partition(".")[2] or None
