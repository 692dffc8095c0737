"""Make a network train in less memory, and back."""

from dataclasses import fields, replace
from typing import Any, get_args

import torch
from torch import nn

from dse.engines.budget import Planner
from dse.engines.build import division, first_plan
from dse.engines.network import LeanNetwork
from dse.engines.paying import plan_that_pays
from dse.engines.plan import SavedBits
from dse.errors import ConfigError, NetworkError
from dse.networks.forward import check_network_and_example
from dse.step.canonical import Loss, classification_loss
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings
from dse.units import parse_size


def lean(
    network: nn.Module,
    example_input: torch.Tensor,
    scheme: str | None = None,
    budget: int | str | None = None,
    *,
    bit_identical: bool = False,
    saved_bits: SavedBits = 32,
    loss: Loss | None = None,
    settings: StepSettings | None = None,
    **overrides: Any,
) -> LeanNetwork:
    """Return a network that trains with the same gradients in less memory.

    It shares the network's parameters, buffers and submodules under the same state-dict keys, and
    is trained like any other module. Without a budget, each block holds only what its backward pass
    needs: a convolution's output once, from which batch normalisation and activation are computed
    again. Gradients, running statistics and random numbers are those of stock PyTorch, bit by bit.

    With a budget, each block does what makes the whole step fit at the least estimated time: it
    runs as stock PyTorch, holds only what it needs, holds its input alone and runs again, or
    computes its widest tensor in chunks of channels. Only chunks change gradients, by the order in
    which sums are rounded.

    Args:
        network: The network. Its modules stay as they are.
        example_input: Tensor (batch, channels, height, width). It fixes the image size, and the
            batch size that a budget is for.
        scheme: Which parameters train (see ``apply_scheme``). If None, those with
            ``requires_grad``.
        budget: Bytes for everything that a step holds, as a number or as in ``"128 MiB"``, or
            ``"least"`` for the plan of least memory. None plans without a budget.
        bit_identical: Whether a plan within a budget leaves chunks out, so that gradients have the
            bits of stock PyTorch's.
        saved_bits: Bits of a number that is held until the backward pass: 32, or 8, which takes a
            quarter of the memory and makes gradients inexact.
        loss: Loss of outputs and labels that the budget counts. Defaults to cross-entropy.
        settings: Settings of the step that the budget counts. Defaults to ``StepSettings()``.
        **overrides: Fields of ``StepSettings`` to change, such as ``optimizer="adamw"``.

    Returns:
        The lean network. Its ``lean_plan`` prints as a table of what each block does.

    Raises:
        ConfigError: If the budget is no size, or a setting is unknown or excludes lean training.
        InfeasibleError: If no plan fits into the budget.
        NetworkError: If the scheme does not apply to the network, an argument is of the wrong type,
            or there is a budget and the network can't be traced as a whole.
        MemoryModelError: If there is a budget and the step can't be traced.
    """
    check_network_and_example(network, example_input)
    network = unlean(network)
    settings = _settings(settings, scheme, overrides)
    _check_bits(saved_bits, bit_identical=bit_identical)
    limit = None if budget is None or budget == "least" else parse_size(budget)
    if scheme is not None:
        apply_scheme(network, example_input, scheme)
    elif not any(parameter.requires_grad for parameter in network.parameters()):
        raise NetworkError(
            f"no parameter of {type(network).__name__} trains: set requires_grad, or give a "
            'scheme, as in scheme="full"'
        )
    image = torch.empty(2, *example_input.shape[1:], dtype=example_input.dtype, device="meta")
    found = division(network, image)
    first = LeanNetwork(
        network,
        image_shape=example_input.shape[1:],
        dtype=example_input.dtype,
        plan=first_plan(found, saved_bits=saved_bits),
        found=found,
    )
    loss = loss or classification_loss
    if budget is None:
        plan = plan_that_pays(first, example_input.shape, settings=settings, loss=loss)
        return first.with_plan(plan)
    planner = Planner.of(
        first,
        example_input,
        settings=settings,
        loss=loss,
        bit_identical=bit_identical,
    )
    return first.with_plan(planner.least() if limit is None else planner.within(limit))


def _settings(
    settings: StepSettings | None, scheme: str | None, overrides: dict[str, Any]
) -> StepSettings:
    """Put the settings together. Those that lean training can't run are refused."""
    unknown = sorted(set(overrides) - {field.name for field in fields(StepSettings)})
    if unknown:
        known = ", ".join(field.name for field in fields(StepSettings))
        raise ConfigError(f"a step has no setting {unknown[0]!r}: use one of {known}")
    if scheme is not None:
        overrides = {**overrides, "scheme": scheme}
    settings = replace(settings or StepSettings(), **overrides)
    if settings.checkpointing != "none":
        raise ConfigError(
            'checkpointing belongs to stock PyTorch: leave it "none" with lean training, whose '
            "plans recompute blocks themselves"
        )
    if settings.precision != "float32":
        raise ConfigError(
            f"precision is {settings.precision!r}: a lean network does not run under autocast; use "
            '"float32"'
        )
    return settings


def _check_bits(saved_bits: SavedBits, *, bit_identical: bool) -> None:
    if saved_bits not in get_args(SavedBits):
        raise ConfigError(f"saved_bits is {saved_bits!r}: use 32, or 8")
    if saved_bits == 8 and bit_identical:  # noqa: PLR2004
        raise ConfigError(
            "saved_bits=8 rounds what is held, so gradients can't have the bits of stock PyTorch: "
            "leave bit_identical off"
        )


def unlean(network: nn.Module) -> nn.Module:
    """Return the stock network of a lean one. Any other network is returned as it is."""
    return network.stock if isinstance(network, LeanNetwork) else network
