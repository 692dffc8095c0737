"""Operators that ExecuTorch has no kernel for, in operators that it has."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions

from dse.deploy.pte.normalisation import batch_norm_backward

_aten = torch.ops.aten


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the table by which a training program is decomposed."""
    return {
        **core_aten_decompositions(),
        _aten.native_batch_norm_backward.default: batch_norm_backward,
        _aten.bernoulli.p: _drawn,
        _aten.native_dropout.default: _dropped,
        _aten.silu_backward.default: _silu_backward,
        _aten._log_softmax.default: _log_softmax,  # noqa: SLF001  # no public name
        _aten.empty_permuted.default: _filled,
    }


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
