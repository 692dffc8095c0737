"""How well a network's features tell the labels apart, before any output layer has learned them."""

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.data.parts import Batch
from dse.errors import NetworkError
from dse.networks.forward import evaluating, output_layers, tensors_in

PENALTIES = (0.001, 0.01, 0.1, 1.0)  # of ridge regression, as shares of the mean square


def features_loss(network: nn.Module, batches: Iterable[Batch], *, classes: int) -> float:
    """Leave-one-out error of a ridge regression from a network's features to the labels.

    Features are what the output layer is given, averaged over positions. Every image is predicted
    by a regression on all others, with the penalty that does best; so nothing has to be trained.

    Args:
        network: Left as it is; runs in eval mode.
        batches: (images, labels) on its device; 2 images or more in all.
        classes: How many labels there are.

    Returns:
        Mean squared error of the labels written as 0 and 1, over images and labels.
    """
    features, labels = _features(network, batches)
    wanted = functional.one_hot(labels, classes).double()
    if not bool(torch.isfinite(features).all()):
        return float("inf")
    return _leave_one_out(features.double(), wanted)


def _features(network: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """(images, features) and (images,) labels."""
    given: list[Tensor] = []
    found: list[Tensor] = []
    labels: list[Tensor] = []
    hooks: ExitStack | None = None
    with evaluating(network), torch.no_grad(), ExitStack() as stack:
        for images, own in batches:
            if hooks is None:
                hooks = stack
                for head in _heads(network, images):
                    hook = network.get_submodule(head).register_forward_pre_hook(
                        lambda _head, args: given.append(args[0])
                    )
                    stack.callback(hook.remove)
            output = next(tensors_in(network(images)))
            found.append(torch.cat([_pooled(one) for one in given or [output]], dim=1))
            labels.append(own)
            given.clear()
    return torch.cat(found), torch.cat(labels)


def _heads(network: nn.Module, images: Tensor) -> tuple[str, ...]:
    try:
        return output_layers(network, images[:1])
    except NetworkError:  # it ends in no such layer; its output is what there is
        return ()


def _pooled(given: Tensor) -> Tensor:
    """(images, features), the mean over whatever dimensions follow."""
    return given.flatten(2).mean(dim=2) if given.dim() > 2 else given.flatten(1)  # noqa: PLR2004  # images and channels


def _leave_one_out(features: Tensor, wanted: Tensor) -> float:
    """Least mean squared error over the penalties; solved among images, of which there are few."""
    count = len(features)
    features = features - features.mean(dim=0)
    values, vectors = torch.linalg.eigh(features @ features.T)
    values = values.clamp_min(0)
    scale = float(values.sum()) / count
    if scale == 0:
        return float((wanted - wanted.mean(dim=0)).square().mean())
    rotated = vectors.T @ (wanted - wanted.mean(dim=0))
    losses = []
    for penalty in PENALTIES:
        shrunk = values / (values + penalty * scale)
        residual = wanted - wanted.mean(dim=0) - vectors @ (shrunk[:, None] * rotated)
        leverage = (vectors.square() @ shrunk + 1 / count).clamp_max(1 - 1e-6)
        losses.append(float((residual / (1 - leverage)[:, None]).square().mean()))
    return min(losses)
