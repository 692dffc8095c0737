"""BoTorch's qLogNEHVI with memory as a known objective, as a rival.

Accuracy is a Gaussian process over the pruning ratios. Memory isn't learned: it is the memory
model's own peak of the rounded channels, with its gradient.

BoTorch compiles a C++ extension when it is first used, which takes minutes where a compiler is
installed. If that is interrupted, a file named lock stays in ~/.cache/torch_extensions, and later
runs wait for it: delete it.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from botorch.acquisition.multi_objective.logei import (
    qLogNoisyExpectedHypervolumeImprovement,
)
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.deterministic import GenericDeterministicModel
from botorch.models.model import ModelList
from botorch.models.transforms import Standardize
from botorch.optim import optimize_acqf
from botorch.sampling.get_sampler import get_sampler
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor
from torch.quasirandom import SobolEngine
from world import Kept, World

from dse.sampling.search_space import RATIO

FIRST = 10  # draws before the surrogate, as many as Optuna's GP sampler makes
RESTARTS = 4
RAW_SAMPLES = 64
SAMPLES = 64  # of the posterior
STEPS = 40

Score = Callable[[Kept], float]


def search(
    world: World, score: Score, *, seed: int, evaluations: int, first: Sequence[float] = ()
) -> list[tuple[Kept, float]]:
    """Search by qLogNEHVI, one candidate at a time.

    Args:
        world: the study's parts.
        score: accuracy of channels kept.
        seed: seed of the draws.
        evaluations: number of candidates that are scored.
        first: ratios of uniform pruning to begin with. If there are some, candidates known before
            are replaced by draws at random, as the gate would.

    Returns:
        Channels and accuracy of each candidate in order.
    """
    torch.manual_seed(seed)
    free = world.space.free
    low = np.array([one.low for one in free])
    high = np.array([one.high for one in free])
    sobol = SobolEngine(len(free), scramble=True, seed=seed)
    starts = [np.clip(np.full(len(free), ratio), low, high) for ratio in first]
    starts = [(one - low) / (high - low) for one in starts]
    if not starts:
        starts = list(sobol.draw(FIRST, dtype=torch.double).numpy())
    points: list[np.ndarray[Any, Any]] = []
    found: list[tuple[Kept, float]] = []
    while len(found) < evaluations:
        number = len(found)
        point = starts[number] if number < len(starts) else _proposed(world, points, found)
        kept = _kept(world, low + point * (high - low))
        if first and kept in {one for one, _ in found}:
            point = sobol.draw(1, dtype=torch.double).numpy()[0]
            kept = _kept(world, low + point * (high - low))
        points.append(point)
        found.append((kept, score(kept)))
    return found


def _kept(world: World, ratios: np.ndarray[Any, Any]) -> Kept:
    drawn = {RATIO + one.name: float(r) for one, r in zip(world.space.free, ratios, strict=True)}
    return world.space.candidate(drawn).kept(world.space.choices)


class _Memory(torch.autograd.Function):
    """Minus the peak as a share of the unpruned network's, of points in the unit cube."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, world: World) -> Tensor:
        flat = points.detach().reshape(-1, points.shape[-1]).numpy()
        values, slopes = np.empty(len(flat)), np.empty_like(flat)
        for row, point in enumerate(flat):
            values[row], slopes[row] = _share(world, point)
        ctx.save_for_backward(torch.from_numpy(slopes).reshape(points.shape))
        return -torch.from_numpy(values).reshape(points.shape[:-1]).unsqueeze(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return -gradients[0] * slopes, None


def _share(world: World, point: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
    """Peak as a share of the unpruned network's, and its slope by each coordinate."""
    full = np.array(world.full, dtype=np.float64)
    places = [n for n, one in enumerate(world.space.choices) if one.fixed is None]
    low = np.array([one.low for one in world.space.free])
    span = np.array([one.high for one in world.space.free]) - low
    channels = full.copy()
    channels[places] *= 1 - (low + point * span)
    whole_channels = np.maximum(channels.round(), 1).astype(np.int64)
    peak, slopes = world.model.peak_and_gradient(
        whole_channels, batch_size=world.study.training.batch_size
    )
    whole = world.unpruned_peak_bytes
    return float(peak) / whole, -slopes[places] * full[places] * span / whole


def _proposed(
    world: World, points: Sequence[np.ndarray[Any, Any]], found: Sequence[tuple[Kept, float]]
) -> np.ndarray[Any, Any]:
    inputs = torch.from_numpy(np.stack(points))
    scores = torch.tensor([[score] for _, score in found], dtype=torch.double)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the fit's numerics
        accuracy = SingleTaskGP(inputs, scores, outcome_transform=Standardize(1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(accuracy.likelihood, accuracy))
        memory = GenericDeterministicModel(lambda x: _Memory.apply(x, world), num_outputs=1)
        model = ModelList(accuracy, memory)
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model,
            ref_point=[1 / world.classes, -1.0],
            X_baseline=inputs,
            sampler=get_sampler(model.posterior(inputs), torch.Size([SAMPLES]), seed=len(found)),
            prune_baseline=True,
        )
        dimensions = inputs.shape[1]
        bounds = torch.stack([torch.zeros(dimensions), torch.ones(dimensions)]).double()
        point, _ = optimize_acqf(
            acquisition,
            bounds=bounds,
            q=1,
            num_restarts=RESTARTS,
            raw_samples=RAW_SAMPLES,
            options={"maxiter": STEPS, "seed": len(found)},
        )
    proposed: np.ndarray[Any, Any] = point[0].numpy()
    return proposed
