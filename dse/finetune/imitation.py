"""Trains a pruned network to reproduce the unpruned network's layer outputs, without labels.

Only layers up to the last pruned one have to be retrained. Both networks are equal after it, so the
images go no further. If a frozen backbone is pruned early, where its peak is, this saves most
layers and nearly all of the backward pass.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.config import TrainingConfig
from dse.data.parts import Part
from dse.errors import TrainingError
from dse.finetune.loop import endless_batches, learning_rate_at
from dse.networks.fixed import fixed_parameters
from dse.networks.forward import StopForward, evaluating, execution_order, run_until_stopped
from dse.step.optimizers import make_optimizer
from dse.step.schemes import NORMALISATION
from dse.step.settings import StepSettings
from dse.user_code import guarded


@dataclass(frozen=True)
class Places:
    """The layers at which a pruned network is compared with the unpruned one.

    Attributes:
        compared: layers whose outputs have the same shape in both, in execution order.
        trained: layers with parameters, up to the last compared one.
    """

    compared: tuple[str, ...]
    trained: tuple[str, ...]


def find_places(whole: nn.Module, pruned: nn.Module, images: Tensor) -> Places:
    """Find the layers at which a pruned network should imitate the unpruned one.

    These are the layers with parameters whose outputs kept their shape, up to the last layer whose
    parameters changed shape and the normalisation after it. If pruning reaches the end of the
    network, the output layer is one of them.

    Args:
        whole: the unpruned network.
        pruned: the pruned network.
        images: (1 or more, channels, height, width).

    Raises:
        TrainingError: if nothing was pruned, or no layer kept the shape of its output.
    """
    order = execution_order(whole, images)
    holding = [n for n in order if any(True for _ in whole.get_submodule(n).parameters())]
    left = dict(pruned.named_modules())  # blocks may have been left out
    changed = [
        name
        for name in holding
        if name not in left or _shapes(whole.get_submodule(name)) != _shapes(left[name])
    ]
    if not changed:
        raise TrainingError("nothing was pruned, so there is nothing to imitate")
    end = holding.index(changed[-1]) + 1
    # What follows a block that was left out is the first layer that can be compared.
    end += changed[-1] not in left
    following = [whole.get_submodule(name) for name in holding[end : end + 1]]
    end += isinstance(next(iter(following), None), NORMALISATION)
    reached = [name for name in holding[:end] if name in left]
    with evaluating(whole), evaluating(pruned), torch.no_grad():
        given = outputs_at(whole, reached, images[:1])
        own = outputs_at(pruned, reached, images[:1])
    compared = [n for n in reached if given[n].shape == own[n].shape]
    if not compared:
        raise TrainingError(
            "every layer of the pruned network has another shape, so there is nothing to imitate: "
            'set recovery.aim = "labels"'
        )
    last = reached.index(compared[-1])
    return Places(tuple(compared), tuple(reached[: last + 1]))


def outputs_at(network: nn.Module, places: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Return the outputs of some layers by name; the forward pass ends after the last of them.

    Args:
        network: network in any mode.
        places: names of layers, each of which returns one tensor.
        images: (batch, channels, height, width).
    """
    found: dict[str, Tensor] = {}

    def note(name: str, output: Tensor) -> Tensor:
        found[name] = output
        if len(found) == len(places):
            raise StopForward
        return output.clone()  # an in-place activation may follow and overwrite the compared tensor

    with ExitStack() as stack:
        for name in places:
            module = network.get_submodule(name)
            hook = module.register_forward_hook(lambda _m, _i, out, name=name: note(name, out))
            stack.callback(hook.remove)
        run_until_stopped(network, images)
    return found


def imitation_loss(own: dict[str, Tensor], given: dict[str, Tensor]) -> Tensor:
    """Return the mean over places of the squared error relative to the place's own variance."""
    parts = [
        functional.mse_loss(own[name], wanted) / wanted.var().clamp_min(1e-12)
        for name, wanted in given.items()
    ]
    return torch.stack(parts).mean()


@contextmanager
def imitating(pruned: nn.Module, places: Places) -> Iterator[list[nn.Parameter]]:
    """Make only the layers up to the last place trainable; make everything trainable on exit.

    What the network's factory froze stays frozen.

    Yields:
        The parameters to train.
    """
    trained: list[nn.Parameter] = []
    fixed = fixed_parameters(pruned)
    free = {name: p for name, p in pruned.named_parameters() if name not in fixed}
    pruned.requires_grad_(requires_grad=False)
    for place in places.trained:
        pruned.get_submodule(place).train()
        trained += [p for name, p in free.items() if name.rpartition(".")[0] == place]
    for parameter in trained:
        parameter.requires_grad = True
    try:
        yield trained
    finally:
        for parameter in free.values():
            parameter.requires_grad = True


def imitate(
    whole: nn.Module,
    pruned: nn.Module,
    part: Part,
    *,
    settings: TrainingConfig,
    epochs: float,
    seed: int,
) -> list[float]:
    """Train a pruned network to imitate the unpruned one, in one learning-rate cycle.

    Args:
        whole: the unpruned network on the device; used in eval mode and left unchanged.
        pruned: the pruned network on the device; changed in place. Its normalisation trains on
            batch statistics, so running statistics must be recomputed afterwards.
        part: images; labels aren't read.
        settings: optimizer, batch size, peak learning rate, memory format and device.
        epochs: length of the training, rounded to whole steps and at least one step.
        seed: seed of order and augmentation.

    Returns:
        The loss of each step.

    Raises:
        TrainingError: if nothing was pruned, there are fewer images than a batch, or the loss isn't
            finite.
    """
    size = settings.batch_size
    if len(part) < size:
        raise TrainingError(
            f"there are {len(part)} images to imitate on, fewer than a batch of {size}: "
            "lower recovery.batch_size or give more images"
        )
    steps = max(1, round(epochs * (len(part) // size)))
    first = part.batches(2, memory_format=settings.memory_format, device=settings.device)
    places = find_places(whole, pruned, next(first)[0])
    batches = endless_batches(part, settings, seed)
    losses: list[float] = []
    with evaluating(whole), imitating(pruned, places) as parameters:
        optimizer = make_optimizer(
            parameters, StepSettings.of(settings), learning_rate=settings.learning_rate
        )
        for step, (images, _) in zip(range(steps), batches, strict=False):
            rate = learning_rate_at(step, steps=steps, peak=settings.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.no_grad():
                given = outputs_at(whole, places.compared, images)
            loss = imitation_loss(outputs_at(pruned, places.compared, images), given)
            with guarded(pruned, "can't train"):
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss of imitation is {losses[-1]} at step {step + 1} of {steps}: "
                    "lower recovery.learning_rate"
                )
    return losses


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [parameter.shape for parameter in module.parameters()]
