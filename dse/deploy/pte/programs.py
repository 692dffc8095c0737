"""A network's training step and its evaluation as exported programs.

The training program maps samples, labels and running statistics to the loss, the logits, the new
running statistics and the gradients. The evaluation program maps samples, the trained parameters
and the running statistics to the logits, so that it sees what training has changed.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export
from torch.export.exported_program import _decompose_exported_program
from torch.export.graph_signature import OutputKind, OutputSpec, TensorArgument
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from dse.deploy.pte.decompositions import decompositions
from dse.deploy.pte.functional_graph import without_aliases
from dse.deploy.pte.lean_program import lean_training_program
from dse.deploy.pte.normalisation import replace_training_norms
from dse.engines.network import LeanNetwork
from dse.memory.markers import Watch
from dse.networks.engine import stock_of
from dse.networks.logits import main_logits
from dse.step.canonical import classification_loss

_aten = torch.ops.aten

_ATTENTION = SDPBackend.MATH
"""Attention as matrix products and a softmax: ExecuTorch has no fused kernel for it."""


def training_program(
    network: nn.Module, samples: Tensor, labels: Tensor, *, chunks: Watch | None = None
) -> tuple[ExportedProgram, dict[str, Tensor]]:
    """Export a network's step: loss, logits, new running statistics, gradients.

    Args:
        network: the network in its training mode, with its scheme applied. It is not changed. A
            lean network's step computes again what its plan says, and in chunks.
        samples: (batch, ...), of any values.
        labels: (batch,) int64.
        chunks: determines the sizes of a lean network's chunks; None for the engine's own.

    Returns:
        The program, whose graph holds forward and backward pass, and the running statistics before
        the step, by name.

    Raises:
        ExportError: if the step can't be written as a program.
    """
    with sdpa_kernel(_ATTENTION):
        if isinstance(network, LeanNetwork):
            program, statistics = lean_training_program(network, samples, labels, chunks=chunks)
        else:
            program, statistics = _plain_program(network, samples, labels)
    _return_masks(program)
    return program, statistics


def _plain_program(
    network: nn.Module, samples: Tensor, labels: Tensor
) -> tuple[ExportedProgram, dict[str, Tensor]]:
    own = deepcopy(network)
    before = dict(network.named_buffers())
    norms = {name: norm for name, norm in replace_training_norms(own).items() if norm.tracked}
    names = [f"{name}.{kind}" for name in norms for kind in ("running_mean", "running_var")]
    inner = own.forward

    def forward(samples: Tensor, labels: Tensor, *statistics: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(statistics[::2], statistics[1::2], strict=True)
        for norm, pair in zip(norms.values(), pairs, strict=True):
            norm.running = pair
        outputs = inner(samples)
        updated = [each for norm in norms.values() for each in norm.take_updated()]
        return classification_loss(outputs, labels), main_logits(outputs).detach(), *updated

    own.forward = forward  # so that parameters keep their names
    statistics = {name: before[name] for name in names}
    program = _decompose_exported_program(
        export(own, (samples, labels, *statistics.values()), strict=False),
        cia_to_decomp={},
        python_decomp_table=decompositions(),
        joint_loss_index=0,
        decompose_custom_triton_ops=False,
    )
    without_aliases(program.graph_module)
    return program, statistics


def evaluation_program(
    network: nn.Module, samples: Tensor, names: Sequence[str]
) -> ExportedProgram:
    """Export a network's forward pass in evaluation mode, with some tensors as inputs.

    Args:
        network: the network. It is not changed.
        samples: (batch, ...), of any values.
        names: names of the parameters and buffers that are inputs, in that order.

    Returns:
        The program: samples and these tensors to (batch, classes) logits.
    """
    own = deepcopy(stock_of(network)).eval().requires_grad_(requires_grad=False)
    tensors = {**dict(own.named_parameters()), **dict(own.named_buffers())}
    state = [tensors[name].clone() for name in names]
    with sdpa_kernel(_ATTENTION):
        return export(_Evaluation(own, names), (samples, *state), strict=False)


class _Evaluation(nn.Module):
    """A network in evaluation mode whose trained tensors are inputs."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, tuple(names)

    def forward(self, samples: Tensor, *state: Tensor) -> Tensor:
        """Return the (batch, classes) logits."""
        tensors = dict(zip(self.names, state, strict=True))
        return main_logits(functional_call(self.network, tensors, (samples,)))


def _return_masks(program: ExportedProgram) -> None:
    """Return what dropout kept before the gradients, so that a step can be repeated elsewhere."""
    graph, specs = program.graph, program.graph_signature.output_specs
    masks = [
        node
        for node in graph.nodes
        if node.target is _aten.lt.Scalar and node.args[0].target is _aten.rand.default
    ]
    if not masks:
        return
    place = next(
        number for number, spec in enumerate(specs) if spec.kind == OutputKind.GRADIENT_TO_PARAMETER
    )
    (end,) = (node for node in graph.nodes if node.op == "output")
    found = list(end.args[0])
    end.args = ((*found[:place], *masks, *found[place:]),)
    specs[place:place] = [
        OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in masks
    ]
    program.graph_module.recompile()
