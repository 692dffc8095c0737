"""Schemes: which parameters of a network train."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from dse.errors import NetworkError
from dse.names import SCHEMES, use
from dse.networks.classifier import classifier_parameters
from dse.networks.fixed import fixed_parameters, listed
from dse.networks.forward import execution_order
from dse.step.frozen_trunk import frozen_trunk
from dse.step.lite_residual import BRANCHES, LITE_RESIDUAL, attach

NORMALISATION = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)  # noqa: SLF001  # the common base of all batch and instance norms


def apply_scheme(network: nn.Module, example_input: torch.Tensor, scheme: str) -> None:
    """Apply a scheme: set every parameter's ``requires_grad`` and every module's mode.

    Parameters that the network's factory froze stay so under every scheme
    (see ``fixed_parameters``).

    Args:
        network: Network to change in place.
        example_input: Tensor (batch, channels, height, width) on the network's device. The network
            runs on it without gradients, to find the order in which modules execute.
        scheme: What trains: ``full`` (everything), ``last`` (the output layer, or the parameters
            that turn the last features into logits), ``norm`` (the output layer and all scales and
            shifts of normalisation layers), ``bias`` (the output layer and all biases),
            ``lite-residual`` (as ``bias``, plus small branches beside the blocks, which are
            attached if missing; see ``attach``), ``from:MODULE`` (the output layer and everything
            executed from that module on) or ``only:MODULE,MODULE`` (the output layer and these
            modules: a sparse update of chosen layers).

    Raises:
        NetworkError: If the scheme or a module it names does not exist, no parameter would train,
            or the network has no blocks that a branch can be attached to.
    """
    fixed = fixed_parameters(network)
    if scheme == LITE_RESIDUAL:
        attach(network, example_input)
    chosen = set(_trained_parameters(network, example_input, scheme))
    trained = chosen - fixed
    if not trained:
        raise NetworkError(_nothing_trains(network, scheme, sorted(chosen)))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    training_mode(network, example_input)


def training_mode(network: nn.Module, example_input: torch.Tensor) -> None:
    """Put every module into the mode in which it trains: train mode, or eval mode where frozen.

    ``requires_grad`` tells which parameters train. Whatever runs before the first of them must give
    the same output in every epoch, so its dropout and stochastic depth are switched off
    (docs/decisions/0008-a-frozen-trunk-evaluates.md). A frozen normalisation layer is in eval mode
    wherever it stands. One without parameters is in train mode only if the
    whole network trains, apart from what its factory froze.

    Args:
        network: Network whose modules' modes are set. Nothing else changes.
        example_input: Tensor (batch, channels, height, width) on the network's device. The network
            runs on it once if any parameter is frozen.
    """
    network.train()
    if all(parameter.requires_grad for parameter in network.parameters()):
        return
    fixed = fixed_parameters(network)
    everything = all(p.requires_grad for name, p in network.named_parameters() if name not in fixed)
    for module in network.modules():
        if isinstance(module, NORMALISATION):
            own = list(module.parameters(recurse=False))
            module.train(any(p.requires_grad for p in own) if own else everything)
    for module in frozen_trunk(network, example_input):
        module.training = False  # of this module alone: those inside are judged by themselves


def _trained_parameters(
    network: nn.Module, example_input: torch.Tensor, scheme: str
) -> Iterator[str]:
    if scheme == "full":
        yield from (name for name, _ in network.named_parameters())
        return
    yield from classifier_parameters(network, example_input)
    if scheme == "last":
        return
    if scheme.startswith("only:"):
        yield from _of_modules(network, scheme.removeprefix("only:").split(","))
    elif scheme.startswith("from:"):
        yield from _executed_from(network, example_input, scheme.removeprefix("from:"))
    elif scheme == "norm":
        yield from _of_normalisation(network)
    elif scheme == "bias":
        yield from _biases(network)
    elif scheme == LITE_RESIDUAL:
        yield from _biases(network)
        yield from _of_modules(network, [BRANCHES])
    else:
        raise NetworkError(f"unknown scheme {scheme!r}: {use(SCHEMES, given=scheme)}")


def _of_normalisation(network: nn.Module) -> Iterator[str]:
    for module_name, module in network.named_modules():
        if isinstance(module, NORMALISATION):
            for name, _ in module.named_parameters(recurse=False):
                yield f"{module_name}.{name}" if module_name else name


def _biases(network: nn.Module) -> Iterator[str]:
    names = (name for name, _ in network.named_parameters())
    yield from (name for name in names if name.rpartition(".")[2] == "bias")


def _of_modules(network: nn.Module, chosen: Sequence[str]) -> Iterator[str]:
    """Yield the names of all parameters of the chosen modules."""
    known = dict(network.named_modules())
    for module in chosen:
        if module not in known or not module:
            raise NetworkError(
                f"scheme 'only:{','.join(chosen)}': {_title(network)} has no module {module!r}; "
                "see its named_modules()"
            )
        for name, _ in known[module].named_parameters():
            yield f"{module}.{name}"


def _executed_from(network: nn.Module, example_input: torch.Tensor, start: str) -> Iterator[str]:
    """Yield the parameters of the modules executed from ``start`` on, including its own.

    A parameter owned by a container, such as a layer scale, counts as executed with the container's
    first module.
    """
    if start not in dict(network.named_modules()) or not start:
        raise NetworkError(
            f"scheme 'from:{start}' names no module of {_title(network)}; see its named_modules()"
        )
    position: dict[str, int] = {}
    # Every enclosing module gets the position of the first leaf that runs inside it.
    for index, leaf in enumerate(execution_order(network, example_input)):
        parts = leaf.split(".")
        for depth in range(len(parts) + 1):
            position.setdefault(".".join(parts[:depth]), index)
    if start not in position:
        raise NetworkError(f"scheme 'from:{start}': that module is never executed")
    for name, _ in network.named_parameters():
        owner = name.rpartition(".")[0]
        # A container, e.g. the owner of a layer scale, has the position of its first leaf.
        if owner in position and position[owner] >= position[start]:
            yield name


def _nothing_trains(network: nn.Module, scheme: str, chosen: Sequence[str]) -> str:
    said = f"scheme {scheme!r} trains no parameter of {_title(network)}"
    if not chosen:
        return said
    return (
        f"{said}: its factory froze {listed(chosen)} (requires_grad=False); leave requires_grad "
        "True there, or take another scheme"
    )


def _title(network: nn.Module) -> str:
    return type(network).__name__
