"""The canonical training step.

A step's peak memory depends on when tensors lose their last reference and when gradients are
freed. The memory model, the measurement and the fine-tuning loop therefore all run this function.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional

from dse.errors import TrainingError
from dse.inputs import InputSpec
from dse.networks.logits import all_logits
from dse.step.checkpointing import checkpointed
from dse.step.in_backward import updating_in_backward
from dse.step.settings import StepSettings

Loss = Callable[[object, torch.Tensor], torch.Tensor]

_CLASS = InputSpec(shape=(), kind="int64")

AUXILIARY_WEIGHT = 0.3  # weight of each auxiliary head's loss (Szegedy et al., 2015, section 5)


def classification_loss(outputs: object, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (batch, classes) logits against (batch,) labels.

    While training, networks with auxiliary heads (GoogLeNet, Inception) return a tuple: the main
    logits, then the auxiliary logits. Each auxiliary loss is added with weight 0.3. Outputs of
    another shape, such as an embedding beside the logits, aren't scored.
    """
    if isinstance(outputs, torch.Tensor):
        return functional.cross_entropy(outputs, labels)
    main, *auxiliary = all_logits(outputs)
    loss = functional.cross_entropy(main, labels)
    for logits in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(logits, labels)
    return loss


def target_of(loss: Loss) -> InputSpec:
    """Return shape and type of one sample's target: the loss's own, or a class."""
    target = getattr(loss, "target", _CLASS)
    return target if isinstance(target, InputSpec) else _CLASS


def loss_tensors(loss: Loss) -> list[torch.Tensor]:
    """Return the tensors that a loss holds, such as the weights of classes."""
    return list(loss.state_dict(keep_vars=True).values()) if isinstance(loss, nn.Module) else []


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
        network: Network in its training mode (see ``training_mode``).
        optimizer: Optimizer of the trained parameters.
        loss: Maps the network's outputs and the targets to a scalar loss.
        batches: ``settings.accumulate`` pairs of (batch, channels, height, width) images and
            (batch, ...) targets. They are consumed lazily: only one batch is in memory at a time.
        settings: How to run the step. The caller has already built the optimizer from
            ``settings.optimizer`` and converted the tensors to ``settings.memory_format``.
        on_phase: Called with ``forward``, ``backward`` or ``optimizer`` when that phase begins.
            The memory model uses it to assign events to phases. With the optimizer in the backward
            pass, the last two take turns.

    Returns:
        The mean loss over the batches, as a detached scalar.

    Raises:
        TrainingError: If the number of batches differs from ``settings.accumulate``.
    """
    begin = on_phase or _unheard
    total: torch.Tensor | None = None
    seen = 0
    with (
        checkpointed(network) if settings.checkpointing == "blocks" else nullcontext(),
        updating_in_backward(optimizer, begin) if settings.optimizer_in_backward else nullcontext(),
    ):
        for inputs, targets in batches:
            begin("forward")
            with in_precision(settings, inputs.device.type):
                value = loss(network(inputs), targets)
            # Otherwise this batch would stay alive while the next one is loaded.
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
    if settings.optimizer_in_backward:
        return total
    begin("optimizer")
    optimizer.step()
    optimizer.zero_grad(set_to_none=settings.set_to_none)
    return total


def _unheard(_phase: str) -> None:
    """Ignore the phase: the default of ``on_phase``."""


def in_precision(settings: StepSettings, device_type: str) -> AbstractContextManager[object]:
    """Return the context manager that runs a forward pass in the settings' precision."""
    if settings.precision == "float32":
        return nullcontext()
    return torch.autocast(device_type, dtype=torch.bfloat16)
