"""Teaching a pruned network to give what the unpruned one gives, place by place, without labels.

Only what was pruned must learn anew. After the last pruned layer both networks are the same, so the
images go no farther: where a frozen backbone is pruned at its peak, early in the network, that
spares most layers and nearly all of the backward pass.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.config import TrainingConfig
from dse.data.parts import Part
from dse.errors import TrainingError
from dse.finetune.loop import endless_batches, learning_rate_at
from dse.networks.fixed import fixed_parameters
from dse.networks.forward import evaluating, execution_order
from dse.step.optimizers import make_optimizer
from dse.step.schemes import NORMALISATION
from dse.step.settings import StepSettings


class _ReachedError(Exception):
    """The last place was passed: the rest of the network isn't needed."""


@dataclass(frozen=True)
class Places:
    """Where a pruned network can be compared with the unpruned one.

    Attributes:
        compared: Layers whose outputs have the same shape in both, in execution order.
        trained: Layers up to the last of those that hold parameters.
    """

    compared: tuple[str, ...]
    trained: tuple[str, ...]


def find_places(whole: nn.Module, pruned: nn.Module, images: Tensor) -> Places:
    """Find the layers by whose outputs a pruned network is to imitate the unpruned one.

    They are all layers with parameters whose outputs kept their shape, up to the last layer whose
    parameters didn't and the normalisation after it. Where pruning reaches the end of the network,
    the output layer is one of them.

    Args:
        whole: The unpruned network.
        pruned: The smaller one.
        images: (1 or more, channels, height, width).

    Raises:
        TrainingError: Nothing was pruned, or no layer kept the shape of its output.
    """
    order = execution_order(whole, images)
    holding = [n for n in order if any(True for _ in whole.get_submodule(n).parameters())]
    changed = [
        name
        for name in holding
        if _shapes(whole.get_submodule(name)) != _shapes(pruned.get_submodule(name))
    ]
    if not changed:
        raise TrainingError("nothing was pruned, so there is nothing to imitate")
    end = holding.index(changed[-1]) + 1
    following = [whole.get_submodule(name) for name in holding[end : end + 1]]
    reached = holding[: end + isinstance(next(iter(following), None), NORMALISATION)]
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
    """Outputs of some layers; what would run after all of them does not.

    Args:
        network: In any mode.
        places: Names of layers, each of which gives one tensor.
        images: (batch, channels, height, width).
    """
    found: dict[str, Tensor] = {}

    def note(name: str, output: Tensor) -> Tensor:
        found[name] = output
        if len(found) == len(places):
            raise _ReachedError
        return output.clone()  # an activation may work in place on what is compared

    with ExitStack() as stack:
        for name in places:
            module = network.get_submodule(name)
            hook = module.register_forward_hook(lambda _m, _i, out, name=name: note(name, out))
            stack.callback(hook.remove)
        with suppress(_ReachedError):
            network(images)
    return found


def imitation_loss(own: dict[str, Tensor], given: dict[str, Tensor]) -> Tensor:
    """Mean over the places of squared differences, in units of each place's own variance."""
    parts = [
        functional.mse_loss(own[name], wanted) / wanted.var().clamp_min(1e-12)
        for name, wanted in given.items()
    ]
    return torch.stack(parts).mean()


@contextmanager
def imitating(pruned: nn.Module, places: Places) -> Iterator[list[nn.Parameter]]:
    """Let the layers up to the last place train, and leave everything trainable afterwards.

    What the network's factory froze stays frozen.

    Yields:
        Their parameters.
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
    """Train a pruned network to imitate the unpruned one, in one cycle of the learning rate.

    Args:
        whole: The unpruned network, on the device; it goes in eval mode and stays as it is.
        pruned: On the device; changed in place. Its normalisation trains on batch statistics, so
            running statistics must be computed anew afterwards.
        part: Images; labels aren't read.
        settings: Optimizer, batch size, peak learning rate, memory format and device.
        epochs: How long; part of an epoch is rounded to whole steps, at least one.
        seed: Of order and augmentation.

    Returns:
        The loss of each step.

    Raises:
        TrainingError: Nothing was pruned, there are too few images, or the loss isn't finite.
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
