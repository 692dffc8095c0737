"""The canonical training step.

What a step holds depends on where references die and where gradients are dropped, so the memory
model, the measurement and the fine-tuning loop all run this one.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

Loss = Callable[[object, torch.Tensor], torch.Tensor]

AUXILIARY_WEIGHT = 0.3  # of each auxiliary head's loss (Szegedy et al., 2015, section 5)


def classification_loss(outputs: object, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (batch, classes) logits against (batch,) labels.

    Networks with auxiliary heads (GoogLeNet, Inception) return a tuple while they train: the main
    logits first, the auxiliary ones after it; each of those adds 0.3 of its own loss.
    """
    if isinstance(outputs, torch.Tensor):
        return functional.cross_entropy(outputs, labels)
    main, *auxiliary = (logits for logits in outputs if logits is not None)  # type: ignore[attr-defined]
    loss = functional.cross_entropy(main, labels)
    for logits in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(logits, labels)
    return loss


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    on_phase: Callable[[str], None] | None = None,
) -> torch.Tensor:
    """Run one training step and drop the gradients.

    Args:
        network: in the mode it trains in (see ``training_mode``).
        optimizer: over the parameters that train.
        loss: of the network's outputs and the targets.
        inputs: (batch, channels, height, width).
        targets: (batch,).
        on_phase: told ``backward`` and ``optimizer`` when these begin; the memory model listens.

    Returns:
        The loss, a detached scalar.
    """
    value = loss(network(inputs), targets)
    if on_phase is not None:
        on_phase("backward")
    value.backward()  # type: ignore[no-untyped-call]
    if on_phase is not None:
        on_phase("optimizer")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value.detach()
