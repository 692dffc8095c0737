"""Schemes: which parameters of a network train."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dse import names
from dse.config.lora import canonical_scheme
from dse.errors import ConfigError, NetworkError
from dse.networks.classifier import classifier_parameters
from dse.networks.engine import stock_of
from dse.networks.fixed import fixed_parameters, listed
from dse.networks.forward import execution_order
from dse.networks.tied import first_names
from dse.registry import Registry
from dse.step.frozen_trunk import frozen_trunk
from dse.step.lite_residual import BRANCHES, LITE_RESIDUAL, attach
from dse.step.lora import adapters_of, attach_adapters

NORMALISATION = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)  # noqa: SLF001  # the common base of all batch and instance norms


@dataclass(frozen=True, kw_only=True)
class SchemeKind:
    """Registry entry of a scheme.

    Attributes:
        trained: Names the parameters that train beside the classifier's. It gets the network, an
            example input (batch, channels, height, width), and the scheme's text after the colon,
            which is empty for a scheme without one.
        with_classifier: Whether the parameters that turn the last features into logits train, too.
        prepare: Adds what the scheme needs to the network, such as side branches; does nothing if
            the network has it already. It gets the same three as ``trained``.
    """

    trained: Callable[[nn.Module, Tensor, str], Iterable[str]]
    with_classifier: bool = True
    prepare: Callable[[nn.Module, Tensor, str], None] | None = None


SCHEMES: Registry[SchemeKind] = Registry("scheme", names.SCHEMES)
"""Schemes by the entries of ``dse.names.SCHEMES``, such as ``last`` or ``from:MODULE``."""


def apply_scheme(network: nn.Module, example_input: Tensor, scheme: str) -> None:
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
            executed from that module on), ``only:MODULE,MODULE`` (the output layer and these
            modules: a sparse update of chosen layers), ``bias-from:MODULE`` (the output layer and
            the biases executed from that module on) or ``lora:RANK`` (the output layer and adapters
            beside the linear layers, which are put in if missing; see ``attach_adapters``). Schemes
            joined by ``+`` train what any of them trains, as in ``bias+from:features.14``.

    Raises:
        ConfigError: If the scheme does not exist, or its text can't be read.
        NetworkError: If a module that the scheme names does not exist, no parameter would train, or
            the network has no blocks that a branch can be attached to.
    """
    network = stock_of(network)
    fixed_parameters(network)  # remembered before anything is added
    prepare_scheme(network, example_input, scheme)
    fixed = fixed_parameters(network)
    chosen: set[str] = set()
    for part, kind, argument in _parts(scheme):
        chosen |= _named(network, kind.trained(network, example_input, argument), part)
        if kind.with_classifier:
            chosen |= set(classifier_parameters(network, example_input))
    trained = chosen - fixed
    if not trained:
        raise NetworkError(_nothing_trains(network, scheme, sorted(chosen)))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    training_mode(network, example_input)


def prepare_scheme(network: nn.Module, example_input: Tensor, scheme: str) -> None:
    """Add to a network what a scheme needs, such as side branches, and nothing else.

    Args:
        network: Network to change in place.
        example_input: Tensor (batch, channels, height, width) on the network's device.
        scheme: The scheme, as for ``apply_scheme``.

    Raises:
        ConfigError: If the scheme does not exist, or its text can't be read.
        NetworkError: If the network has no place for what the scheme needs.
    """
    for _, kind, argument in _parts(scheme):
        if kind.prepare is not None:
            kind.prepare(network, example_input, argument)


def _parts(scheme: str) -> Iterator[tuple[str, SchemeKind, str]]:
    """Yield each part of a scheme with its kind and its text after the colon."""
    try:
        parts = names.scheme_parts(canonical_scheme(scheme))
    except ValueError as error:
        raise ConfigError(f"scheme {scheme!r} {error}") from error
    for part in parts:
        yield part, SCHEMES[names.scheme_kind(part)], part.partition(":")[2]


def training_mode(network: nn.Module, example_input: Tensor) -> None:
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
    network = stock_of(network)
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


def _named(network: nn.Module, chosen: Iterable[str], scheme: str) -> set[str]:
    """Return the first names of chosen parameters, which may be tied to others."""
    first = first_names(network)
    wanted = set(chosen)
    if unknown := sorted(wanted - first.keys()):
        raise NetworkError(
            f"scheme {scheme!r}: {_title(network)} has no parameter {listed(unknown)}"
        )
    return {first[name] for name in wanted}


def _everything(network: nn.Module, _example_input: Tensor, _argument: str) -> Iterator[str]:
    yield from (name for name, _ in network.named_parameters())


def _nothing_else(_network: nn.Module, _example_input: Tensor, _argument: str) -> tuple[str, ...]:
    return ()


def _of_normalisation(network: nn.Module, _example_input: Tensor, _argument: str) -> Iterator[str]:
    for module_name, module in network.named_modules():
        if isinstance(module, NORMALISATION):
            for name, _ in module.named_parameters(recurse=False):
                yield f"{module_name}.{name}" if module_name else name


def _biases(network: nn.Module, _example_input: Tensor, _argument: str) -> Iterator[str]:
    named = network.named_parameters(remove_duplicate=False)
    yield from (name for name, _ in named if name.rpartition(".")[2] == "bias")


def _biases_and_branches(network: nn.Module, example_input: Tensor, argument: str) -> Iterator[str]:
    yield from _biases(network, example_input, argument)
    yield from (n for n, _ in network.named_parameters() if n.startswith(f"{BRANCHES}."))


def _adapters(network: nn.Module, _example_input: Tensor, _argument: str) -> Iterator[str]:
    yield from adapters_of(network)


def _attach_branches(network: nn.Module, example_input: Tensor, _argument: str) -> None:
    attach(network, example_input)


def _of_modules(network: nn.Module, _example_input: Tensor, chosen: str) -> Iterator[str]:
    """Yield the names of all parameters of the chosen modules, ``MODULE,MODULE``."""
    known = dict(network.named_modules(remove_duplicate=False))
    for module in chosen.split(","):
        if module not in known or not module:
            raise NetworkError(
                f"scheme 'only:{chosen}': {_title(network)} has no module {module!r}; "
                "see its named_modules()"
            )
        for name, _ in known[module].named_parameters():
            yield f"{module}.{name}"


def _biases_from(network: nn.Module, example_input: Tensor, start: str) -> Iterator[str]:
    found = _executed_from(network, example_input, start, scheme="bias-from")
    yield from (name for name in found if name.rpartition(".")[2] == "bias")


def _executed_from(
    network: nn.Module, example_input: Tensor, start: str, *, scheme: str = "from"
) -> Iterator[str]:
    """Yield the parameters of the modules executed from ``start`` on, including its own.

    A parameter owned by a container, such as a layer scale, counts as executed with the container's
    first module.
    """
    if start not in dict(network.named_modules()) or not start:
        raise NetworkError(
            f"scheme '{scheme}:{start}' names no module of {_title(network)}; "
            "see its named_modules()"
        )
    position: dict[str, int] = {}
    # Every enclosing module gets the position of the first leaf that runs inside it.
    for index, leaf in enumerate(execution_order(network, example_input)):
        parts = leaf.split(".")
        for depth in range(len(parts) + 1):
            position.setdefault(".".join(parts[:depth]), index)
    if start not in position:
        raise NetworkError(f"scheme '{scheme}:{start}': that module is never executed")
    for name, _ in network.named_parameters(remove_duplicate=False):
        owner = name.rpartition(".")[0]
        # A container, e.g. the owner of a layer scale, has the position of its first leaf.
        if owner in position and position[owner] >= position[start]:
            yield name


def _nothing_trains(network: nn.Module, scheme: str, chosen: Sequence[str]) -> str:
    nothing = f"scheme {scheme!r} trains no parameter of {_title(network)}"
    if not chosen:
        return nothing
    return (
        f"{nothing}: its factory froze {listed(chosen)} (requires_grad=False); leave requires_grad "
        "True there, or take another scheme"
    )


def _title(network: nn.Module) -> str:
    return type(network).__name__


SCHEMES.register("full", SchemeKind(trained=_everything, with_classifier=False))
SCHEMES.register("last", SchemeKind(trained=_nothing_else))
SCHEMES.register("norm", SchemeKind(trained=_of_normalisation))
SCHEMES.register("bias", SchemeKind(trained=_biases))
SCHEMES.register(LITE_RESIDUAL, SchemeKind(trained=_biases_and_branches, prepare=_attach_branches))
SCHEMES.register("from:MODULE", SchemeKind(trained=_executed_from))
SCHEMES.register("only:MODULE,MODULE", SchemeKind(trained=_of_modules))
SCHEMES.register("bias-from:MODULE", SchemeKind(trained=_biases_from))
SCHEMES.register("lora:RANK", SchemeKind(trained=_adapters, prepare=attach_adapters))
