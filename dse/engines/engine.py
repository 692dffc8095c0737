"""The plan by which the engine of a step runs a network."""

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dse.atomic import replaced_whole
from dse.caches import cache_folder
from dse.engines.budget import Planner
from dse.engines.build import division, first_plan
from dse.engines.network import LeanNetwork
from dse.engines.paying import plan_that_pays
from dse.engines.plan import LeanPlan
from dse.engines.plan_json import plan_from_json, plan_to_json
from dse.errors import InfeasibleError
from dse.memory.cache import model_digest
from dse.networks.engine import stock_of
from dse.pruning.resize import resized
from dse.step.canonical import Loss, classification_loss
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings
from dse.units import parse_size

_LOG = logging.getLogger(__name__)
_LEAST = "least"


def engine_plan(
    network: nn.Module,
    example_input: Tensor,
    *,
    settings: StepSettings,
    batch_size: int,
    loss: Loss = classification_loss,
    cache: Path | None = None,
) -> LeanPlan | None:
    """Return the plan of a step's engine for a network; None if stock PyTorch runs the step.

    Plans take seconds and are cached on disk.

    Args:
        network: The network that the plan is made for. It is not changed.
        example_input: Tensor (any batch, channels, height, width).
        settings: Settings of the step. The engine is one of them.
        batch_size: Images per step.
        loss: Loss of outputs and targets.
        cache: Cache folder. Defaults to ``cache_folder()``. A folder that can't be written is
            ignored.

    Raises:
        InfeasibleError: If no plan fits the engine's size. The message names the least.
        NetworkError: If the scheme doesn't apply to the network, or the engine has a size or takes
            the least memory and the network can't be traced as a whole.
        MemoryModelError: If the step can't be traced.
    """
    if not settings.lean or settings.mode == "inference":
        return None
    # From the second batch on, gradients are added into the same buffers.
    settings = replace(settings, accumulate=min(settings.accumulate, 2))
    network = stock_of(network)
    _, _, wish = settings.engine.partition(":")
    digest = model_digest(network, example_input, settings=settings, groups=(), loss=loss)
    folder = (cache_folder() if cache is None else cache) / "plans"
    path = folder / f"{digest}-{batch_size}.json"
    if digest is not None and path.is_file():
        try:
            return plan_from_json(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            _LOG.warning("%s is damaged (%s); it is planned anew", path, error)
    plan = _planned(
        network, example_input, wish, settings=settings, batch_size=batch_size, loss=loss
    )
    if digest is not None:
        with suppress(OSError):  # the cache only saves time
            folder.mkdir(parents=True, exist_ok=True)
            with replaced_whole(path) as partial:
                partial.write_text(plan_to_json(plan), "utf-8")
    return plan


def study_plan(
    network: nn.Module,
    example_input: Tensor,
    *,
    settings: StepSettings,
    batch_size: int,
    loss: Loss = classification_loss,
) -> LeanPlan | None:
    """Return the plan that all candidates of one recipe share: that of the unpruned network.

    One plan for all widths, made at the study's own batch size, keeps the memory model exact and
    free for every candidate. If the unpruned network can't be trained within the engine's size, it
    is the plan of least memory, with which pruned networks may fit.

    Args:
        network: The unpruned network.
        example_input: Tensor (any batch, channels, height, width).
        settings: Settings of the recipe's step.
        batch_size: Images per step of the study's own recipe.
        loss: Loss of outputs and targets.

    Raises:
        NetworkError: As for ``engine_plan``.
        MemoryModelError: As for ``engine_plan``.
    """
    try:
        return engine_plan(
            network, example_input, settings=settings, batch_size=batch_size, loss=loss
        )
    except InfeasibleError:
        least = replace(settings, engine=f"lean:{_LEAST}")
        return engine_plan(network, example_input, settings=least, batch_size=batch_size, loss=loss)


def takes_plans(network: nn.Module, example_input: Tensor) -> bool:
    """Return whether a plan within a size can be made: whether a network is traced as a whole.

    Args:
        network: The network, which is left unchanged.
        example_input: Tensor (any batch, ...).
    """
    found = _first(network, example_input, StepSettings()).division().parts.get("")
    return found is not None and bool(found.parts[-1].segment.output)


def _first(network: nn.Module, example_input: Tensor, settings: StepSettings) -> LeanNetwork:
    """Return a copy without values that holds only what is needed."""
    shell = resized(network, (), ())
    image = torch.empty(2, *example_input.shape[1:], dtype=example_input.dtype, device="meta")
    apply_scheme(shell, image, settings.scheme)
    return LeanNetwork(
        shell,
        image_shape=image.shape[1:],
        dtype=image.dtype,
        plan=first_plan(division(shell, image)),
    )


def _planned(
    network: nn.Module,
    example_input: Tensor,
    wish: str,
    *,
    settings: StepSettings,
    batch_size: int,
    loss: Loss,
) -> LeanPlan:
    images = torch.empty(
        batch_size, *example_input.shape[1:], dtype=example_input.dtype, device="meta"
    )
    first = _first(network, example_input, settings)
    if not wish:
        return plan_that_pays(first, images.shape, settings=settings, loss=loss)
    planner = Planner.of(first, images, settings=settings, loss=loss)
    return planner.least() if wish == _LEAST else planner.within(parse_size(wish))
