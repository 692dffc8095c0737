"""A lean network's training step as an exported program."""

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from dse.deploy.pte.lean_step import lean_step
from dse.deploy.pte.normalisation import statistics_names
from dse.engines.network import LeanNetwork
from dse.errors import ExportError
from dse.memory.markers import Watch


def lean_training_program(
    network: LeanNetwork, samples: Tensor, labels: Tensor, *, chunks: Watch | None = None
) -> tuple[ExportedProgram, dict[str, Tensor]]:
    """Export a lean network's step: loss, logits, new running statistics, gradients.

    Args:
        network: the network in its training mode, with its scheme applied. It is not changed.
        samples: (batch, ...), of any values.
        labels: (batch,) int64.
        chunks: determines the sizes of chunks; None for the engine's own.

    Returns:
        The program, and the running statistics before the step, by name.

    Raises:
        ExportError: if the step changes other buffers than running statistics.
    """
    names = statistics_names(network.stock)
    module = lean_step(network, samples, labels, chunks=chunks)
    parameters, buffers = dict(network.named_parameters()), dict(network.named_buffers())
    trained = [name for name, one in parameters.items() if one.requires_grad]
    places = [node for node in module.graph.nodes if node.op == "placeholder"]
    (end,) = module.graph.find_nodes(op="output")
    loss, logits, *rest = end.args[0]
    after = dict(zip(buffers, rest, strict=False))
    before = dict(zip(buffers, places[2 + len(parameters) :], strict=True))
    _check_buffers(before, after, names)
    users = [loss, logits, *(after[name] for name in names)]
    gradients = rest[len(buffers) :]
    end.args = ((*users, *gradients),)
    module.graph.eliminate_dead_code()
    kinds = {
        **dict.fromkeys(parameters, InputKind.PARAMETER),
        **{name: InputKind.BUFFER for name in buffers if name not in names},
    }
    named = dict(zip((*parameters, *buffers), places[2:], strict=True))
    state = {name: node for name, node in named.items() if name in kinds and node.users}
    users_in = [*places[:2], *(before[name] for name in names)]
    constants = _lift_constants(module)
    _order_inputs(module, [*state.values(), *constants, *users_in], places)
    inputs = [
        *(InputSpec(kinds[n], _argument(node), n, persistent=True) for n, node in state.items()),
        *(
            InputSpec(InputKind.CONSTANT_TENSOR, _argument(node), node.name, persistent=False)
            for node in constants
        ),
        *(InputSpec(InputKind.USER_INPUT, _argument(node), None) for node in users_in),
    ]
    outputs = [
        OutputSpec(OutputKind.LOSS_OUTPUT, _argument(loss), None),
        *(OutputSpec(OutputKind.USER_OUTPUT, _argument(node), None) for node in users[1:]),
        *(
            OutputSpec(OutputKind.GRADIENT_TO_PARAMETER, _argument(node), name)
            for name, node in zip(trained, gradients, strict=True)
        ),
    ]
    for node in module.graph.nodes:
        node.meta.pop("from_node", None)  # nodes of traces that nobody sees
    module.recompile()
    tensors = {**parameters, **buffers}
    statistics = {name: buffers[name] for name in names}
    program = ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=ExportGraphSignature(inputs, outputs),
        state_dict={name: tensors[name] for name in state},
        range_constraints={},
        module_call_graph=[_call(len(users_in), len(users))],
        example_inputs=((samples, labels, *statistics.values()), {}),
        constants={node.name: held for node, held in constants.items()},
    )
    return program, statistics


def _argument(node: Node) -> TensorArgument:
    return TensorArgument(node.name)


def _check_buffers(before: dict[str, Node], after: dict[str, Node], names: list[str]) -> None:
    """Check that only running statistics change, and counters of batches, which nothing reads."""
    for name, node in after.items():
        if name in names or name.endswith("num_batches_tracked"):
            continue
        if node is not before[name] and not _is_copy(node, before[name]):
            raise ExportError(
                f"the step changes the buffer {name!r}, which a lean program for ExecuTorch can't: "
                "export a candidate of the engine 'stock'"
            )


def _is_copy(node: Node, other: Node) -> bool:
    return node.target is torch.ops.aten.clone.default and node.args[0] is other


def _lift_constants(module: GraphModule) -> dict[Node, Tensor]:
    """Turn tensors that the step makes from constants into inputs, and return them by input."""
    found: dict[Node, Tensor] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        tensor = getattr(module, str(node.target))
        with module.graph.inserting_before(next(iter(module.graph.nodes))):
            lifted = module.graph.placeholder(f"c_{node.name}")
        lifted.meta = dict(node.meta)
        if "val" not in lifted.meta:
            lifted.meta["val"] = tensor
        node.replace_all_uses_with(lifted)
        module.graph.erase_node(node)
        found[lifted] = tensor
    return found


def _order_inputs(module: GraphModule, wanted: list[Node], given: list[Node]) -> None:
    """Put a graph's inputs in order, and take out those that nothing reads."""
    first = next(iter(module.graph.nodes))
    for node in wanted:
        if node is first:
            first = node.next
        else:
            first.prepend(node)
    for node in given:
        if node not in wanted:
            module.graph.erase_node(node)


def _call(inputs: int, outputs: int) -> ModuleCallEntry:
    """Return the signature of the program's call, without names, which passes may change."""
    return ModuleCallEntry(
        fqn="",
        signature=ModuleCallSignature(
            inputs=[],
            outputs=[],
            in_spec=pytree.tree_flatten((tuple(range(inputs)), {}))[1],
            out_spec=pytree.tree_flatten(tuple(range(outputs)))[1],
        ),
    )
