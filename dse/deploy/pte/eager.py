"""The same step in PyTorch, as what a training program's results are compared with."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dse.step.canonical import classification_loss


class _Replayed(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base is untyped
    """Gives random choices the values that another run drew."""

    def __init__(self, drawn: Iterator[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._drawn = drawn

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.bernoulli_.float:
            return args[0].copy_(next(self._drawn))
        return func(*args, **(kwargs or {}))


def eager_step(
    network: nn.Module, samples: Tensor, labels: Tensor, *, masks: Sequence[Tensor] = ()
) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """Compute loss, gradients and buffers of one step in PyTorch.

    Args:
        network: the network in its training mode, with its scheme applied. It is not changed.
        samples: (batch, ...).
        labels: (batch,) int64.
        masks: which values dropout keeps, in the order of the forward pass.

    Returns:
        The loss, gradients by the parameter's name, and the buffers after the step.
    """
    own = deepcopy(network)
    with _Replayed(iter(masks)):
        loss = classification_loss(own(samples), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in own.named_parameters() if p.grad is not None}
    return float(loss.detach()), gradients, dict(own.named_buffers())
