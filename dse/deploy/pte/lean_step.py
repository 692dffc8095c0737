"""Traces a lean network's training step: forward and backward pass as one functional graph.

The engine computes blocks again and in chunks. A trace of its operators has all of that inside, in
the order in which they run.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.func import functional_call, functionalize
from torch.fx import GraphModule, Interpreter, traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from dse.deploy.pte.decompositions import decompositions
from dse.deploy.pte.draws import hold_draws
from dse.deploy.pte.functional_graph import CHUNK, simplify
from dse.deploy.pte.lean_norms import batch_norm, lean_batch_norm_backward
from dse.engines.network import LeanNetwork
from dse.memory.markers import Watch
from dse.networks.logits import main_logits
from dse.networks.slots import chunks_watched
from dse.step.canonical import classification_loss

_aten = torch.ops.aten


def lean_step(
    network: LeanNetwork, samples: Tensor, labels: Tensor, *, chunks: Watch | None = None
) -> GraphModule:
    """Trace a step.

    Args:
        network: the network in its training mode, with its scheme applied. It is not changed.
        samples: (batch, ...), of any values.
        labels: (batch,) int64.
        chunks: determines the sizes of chunks; None for the engine's own. Each node's notes then
            have the chunk in which it is computed (`CHUNK`).

    Returns:
        A graph of operators that ExecuTorch has, of which none changes its arguments. It takes
        samples, labels, all parameters and all buffers, and returns the loss, the logits, all
        buffers after the step, and the gradients of the parameters that train.
    """
    mode = detect_fake_mode([samples]) or FakeTensorMode(allow_non_fake_inputs=True)
    fakes = _fakes(mode, [samples, labels, *_state(network).values()])
    with mode, traceback.preserve_node_meta():
        own = hold_draws(network, fakes[0])
        step = _Step(own)
        with chunks_watched(chunks):
            graph = make_fx(
                _of_tensors(step, chunks),
                decomposition_table={_aten.native_batch_norm.default: batch_norm},
                _allow_non_fake_inputs=True,
            )(*fakes)
        with torch.no_grad():
            graph = make_fx(functionalize(_running(graph)), _allow_non_fake_inputs=True)(*fakes)
            simplify(graph)
            graph = make_fx(
                _running(graph), decomposition_table=_table(), _allow_non_fake_inputs=True
            )(*fakes)
            simplify(graph)
    return graph


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _fakes(mode: FakeTensorMode, tensors: Sequence[Tensor]) -> list[Tensor]:
    return [
        one.detach() if isinstance(one, FakeTensor) else mode.from_tensor(one.detach())
        for one in tensors
    ]


def _table() -> dict[Any, Any]:
    return {
        **decompositions(),
        _aten.native_batch_norm_backward.default: lean_batch_norm_backward,
    }


def _running(graph: GraphModule) -> Any:
    """Return a function that runs a graph node by node, so that notes are kept."""
    return lambda *inputs: Interpreter(graph).run(*inputs)


class _Step(nn.Module):
    """A network's step as a function of samples and labels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, samples: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return loss, logits, buffers and gradients."""
        outputs = self.network(samples)
        loss = classification_loss(outputs, labels)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, trained)
        buffers = self.network.buffers()
        return loss.detach(), main_logits(outputs).detach(), *buffers, *gradients


def _of_tensors(step: _Step, chunks: Watch | None) -> Any:
    """Return the step as a function of its parameters and buffers, too."""
    parameters = {f"network.{name}": one for name, one in step.network.named_parameters()}
    buffers = [f"network.{name}" for name, _ in step.network.named_buffers()]
    trains = [one.requires_grad for one in parameters.values()]

    def run(samples: Tensor, labels: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        state = {
            name: tensor.detach().requires_grad_(each)
            for name, tensor, each in zip(parameters, tensors, trains, strict=False)
        }
        held = tensors[len(parameters) :]
        # The step moves running statistics in place, and inputs must stay.
        state |= {name: one.clone() for name, one in zip(buffers, held, strict=True)}
        with torch.enable_grad(), nullcontext() if chunks is None else _Noting(chunks):
            found: tuple[Tensor, ...] = functional_call(step, state, (samples, labels))
        return found

    return run


class _Noting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base is untyped
    """Notes the chunk in which each operator runs."""

    def __init__(self, chunks: Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._chunks = chunks

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        with traceback.annotate({CHUNK: self._chunks.now}):
            return func(*args, **(kwargs or {}))
