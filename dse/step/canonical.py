"""The canonical training step.

What a step holds depends on where references die and where gradients are dropped, so the memory
model, the measurement and the fine-tuning loop all run this one.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional

from dse.errors import TrainingError
from dse.step.checkpointing import checkpointed
from dse.step.settings import StepSettings

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
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    settings: StepSettings,
    on_phase: Callable[[str], None] | None = None,
) -> torch.Tensor:
    """Run one training step and drop the gradients.

    Args:
        network: in the mode it trains in (see ``training_mode``).
        optimizer: over the parameters that train.
        loss: of the network's outputs and the targets.
        batches: (batch, channels, height, width) images and (batch,) targets,
            ``settings.accumulate`` times; read one after the other, so that one at a time is held.
        settings: how to run it; ``optimizer`` and ``memory_format`` are the caller's work.
        on_phase: told ``forward``, ``backward`` and ``optimizer`` when these begin; the memory
            model listens.

    Returns:
        The loss, a detached scalar: the mean over the batches.

    Raises:
        TrainingError: there are fewer or more batches than the settings say.
    """
    begin = on_phase or _unheard
    total: torch.Tensor | None = None
    seen = 0
    with checkpointed(network) if settings.checkpointing == "blocks" else nullcontext():
        for inputs, targets in batches:
            begin("forward")
            with in_precision(settings, inputs.device.type):
                value = loss(network(inputs), targets)
            del inputs, targets
            if settings.accumulate > 1:
                value = value / settings.accumulate
            begin("backward")
            value.backward()  # type: ignore[no-untyped-call]
            total = value.detach() if total is None else total + value.detach()
            del value
            seen += 1
    if total is None or seen != settings.accumulate:
        raise TrainingError(f"a step got {seen} batches in place of {settings.accumulate}")
    begin("optimizer")
    optimizer.step()
    optimizer.zero_grad(set_to_none=settings.set_to_none)
    return total


def _unheard(_phase: str) -> None:
    """Nobody listens."""


def in_precision(settings: StepSettings, device_type: str) -> AbstractContextManager[object]:
    """The context in which a forward pass runs in the settings' precision."""
    if settings.precision == "float32":
        return nullcontext()
    return torch.autocast(device_type, dtype=torch.bfloat16)
