"""Measures how well a network's features separate the labels before an output layer is trained."""

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.data.parts import Batch
from dse.errors import NetworkError
from dse.networks.forward import evaluating, output_layers, run, tensors_in

PENALTIES = (0.001, 0.01, 0.1, 1.0)  # of ridge regression, relative to the mean eigenvalue


def features_loss(network: nn.Module, batches: Iterable[Batch], *, classes: int) -> float:
    """Return the leave-one-out error of a ridge regression from a network's features to labels.

    Features are the input of the output layer, averaged over positions. Each image is predicted by
    a regression on all other images, with the penalty that gives the least error. Nothing is
    trained.

    Args:
        network: evaluated in eval mode and left unchanged.
        batches: (images, labels) on the network's device; at least 2 images in total.
        classes: number of labels.

    Returns:
        Mean squared error against one-hot labels, over images and labels.
    """
    features, labels = _features(network, batches)
    wanted = functional.one_hot(labels, classes).double()
    if not bool(torch.isfinite(features).all()):
        return float("inf")
    return _leave_one_out(features.double(), wanted)


def _features(network: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Return features, (images, features), and labels, (images,)."""
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
            output = next(tensors_in(run(network, images)))
            found.append(torch.cat([_pooled(one) for one in given or [output]], dim=1))
            labels.append(own)
            given.clear()
    return torch.cat(found), torch.cat(labels)


def _heads(network: nn.Module, images: Tensor) -> tuple[str, ...]:
    try:
        return output_layers(network, images[:1])
    except NetworkError:  # no linear output layer; the network's output serves as features
        return ()


def _pooled(given: Tensor) -> Tensor:
    """Return (images, features): the mean over all dimensions after the second."""
    return given.flatten(2).mean(dim=2) if given.dim() > 2 else given.flatten(1)  # noqa: PLR2004  # images and channels


def _leave_one_out(features: Tensor, wanted: Tensor) -> float:
    """Return the least leave-one-out mean squared error over all penalties.

    The dual problem of size (images, images) is solved, because there are few images. One
    eigendecomposition serves every penalty: dividing a residual by 1 - leverage gives the error of
    the regression without that image, so nothing is fitted again.
    """
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
