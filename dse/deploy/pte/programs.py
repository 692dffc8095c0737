"""A network's training step and its evaluation as exported programs.

The training program maps samples, labels and running statistics to the loss, the logits, the new
running statistics and the gradients. The evaluation program maps samples, the trained parameters
and the running statistics to the logits, so that it sees what training has changed.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.export import ExportedProgram, export
from torch.export.exported_program import _decompose_exported_program
from torch.export.graph_signature import OutputKind, OutputSpec, TensorArgument
from torch.func import functional_call

from dse.deploy.pte.normalisation import batch_norm_backward, replace_training_norms
from dse.networks.logits import main_logits
from dse.step.canonical import classification_loss

_aten = torch.ops.aten


_ALIASES = (_aten.alias.default, _aten.detach.default)


def training_program(
    network: nn.Module, samples: Tensor, labels: Tensor
) -> tuple[ExportedProgram, dict[str, Tensor]]:
    """Export a network's step: loss, logits, new running statistics, gradients.

    Args:
        network: the network in its training mode, with its scheme applied. It is not changed.
        samples: (batch, ...), of any values.
        labels: (batch,) int64.

    Returns:
        The program, whose graph holds forward and backward pass, and the running statistics before
        the step, by name.
    """
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
    table = {
        **core_aten_decompositions(),
        _aten.native_batch_norm_backward.default: batch_norm_backward,
        _aten.bernoulli.p: _drawn,
        _aten.native_dropout.default: _dropped,
        _aten.silu_backward.default: _silu_backward,
        _aten._log_softmax.default: _log_softmax,  # noqa: SLF001  # no public name
        _aten.empty_permuted.default: _filled,
    }
    program = _decompose_exported_program(
        export(own, (samples, labels, *statistics.values()), strict=False),
        cia_to_decomp={},
        python_decomp_table=table,
        joint_loss_index=0,
        decompose_custom_triton_ops=False,
    )
    _without_aliases(program.graph_module)
    _return_masks(program)
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
    own = deepcopy(network).eval().requires_grad_(requires_grad=False)
    tensors = {**dict(own.named_parameters()), **dict(own.named_buffers())}
    state = [tensors[name].clone() for name in names]
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


def _drawn(like: Tensor, probability: float = 0.5, generator: object = None) -> Tensor:  # noqa: ARG001
    """Decompose ``bernoulli``: ExecuTorch draws uniform numbers alone."""
    drawn = torch.rand(like.shape, dtype=like.dtype, device=like.device)
    return (drawn < probability).to(like.dtype)


def _dropped(inputs: Tensor, probability: float, train: bool | None) -> tuple[Tensor, Tensor]:  # noqa: FBT001
    """Decompose dropout: ExecuTorch's own kernel doesn't divide by the share that is kept."""
    if not train or probability == 0:
        return inputs.clone(), torch.ones_like(inputs, dtype=torch.bool)
    drawn = torch.rand(inputs.shape, dtype=inputs.dtype, device=inputs.device)
    kept = drawn < 1 - probability
    return torch.where(kept, inputs, 0.0) * (1 / (1 - probability)), kept


def _silu_backward(gradient: Tensor, inputs: Tensor) -> Tensor:
    """Decompose SiLU's backward pass: PyTorch's own formula makes a tensor of ones."""
    gate = torch.sigmoid(inputs)
    return gradient * (gate * (1.0 + inputs * (1.0 - gate)))


def _log_softmax(inputs: Tensor, dim: int, _half_to_float: bool) -> Any:  # noqa: FBT001
    """Decompose log softmax in float64, for which ExecuTorch has no kernel."""
    if inputs.dtype != torch.float64:
        return NotImplemented
    shifted = inputs - torch.amax(inputs, dim, keepdim=True)
    return shifted - torch.log(torch.sum(torch.exp(shifted), dim, keepdim=True))


def _filled(size: Sequence[int], _order: Sequence[int], **options: Any) -> Tensor:
    """Decompose a tensor without values, which ExecuTorch can't make."""
    return torch.full(size, 0, dtype=options.get("dtype"), device=options.get("device"))


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


def _without_aliases(module: torch.fx.GraphModule) -> None:
    """Remove operators that return their input, which ExecuTorch would run as copies."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target in _ALIASES:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()
