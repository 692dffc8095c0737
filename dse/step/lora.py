"""Put low-rank adapters (LoRA) beside a network's linear layers, with the library peft.

An adapter adds scale * B(A(x)) to what its layer computes from x, where A and B are linear layers
with `rank` features between them. B is zero at first, so the network computes what it did. Adapters
are put in after pruning, so that their widths are those of the pruned layers
(docs/decisions/0039-adapters-by-peft.md).
"""

import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from dse.config.lora import LoraSettings, read_lora
from dse.errors import NetworkError
from dse.names import LORA
from dse.networks.classifier import classifier_parameters
from dse.networks.fixed import fixed_parameters, listed, rename_fixed
from dse.networks.forward import execution_order
from dse.networks.tied import first_names

_MARK = "_dse_lora"  # among the network's plain attributes: the scheme of its adapters
_ADAPTER = "default"  # peft's name of a network's only adapter
_BASE = "base_layer"  # peft's name of the layer that an adapter stands beside
_LAYERS = "peft.tuners.lora.layer"  # where its classes of layers are
_PARTS = ("lora_A", "lora_B")


def attach_adapters(network: nn.Module, example_input: Tensor, argument: str) -> None:
    """Put adapters beside a network's linear layers, unless it has them already.

    Without targets, each linear layer gets one that a forward pass calls, but for the output layer,
    which trains as a whole. A layer whose weights other code reads, such as the projections of
    `nn.MultiheadAttention`, would run without its adapter and gets none. The tensors of a layer
    with an adapter are called `LAYER.base_layer.weight` from then on.

    The initial weights are deterministic, and torch's global random state is preserved.

    Args:
        network: Network to change in place. It may be pruned or on the meta device.
        example_input: An input on the network's device. The network runs on its first sample.
        argument: The scheme's text after the colon, such as `8,alpha=16`.

    Raises:
        NetworkError: If the package peft isn't installed, the network has other adapters, or no
            layer, or none of a target, can have one.
    """
    wanted = read_lora(f"{LORA}:{argument}")
    if (held := vars(network).get(_MARK)) == wanted.text:
        return
    if held is not None:
        raise NetworkError(
            f"scheme {wanted.text!r}: {_title(network)} has adapters of {held!r} already: build "
            "the network anew"
        )
    peft = _peft(wanted)
    if any(
        isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer) for module in network.modules()
    ):
        raise NetworkError(
            f"scheme {wanted.text!r}: {_title(network)} has adapters of its own already: leave "
            "them out of its factory"
        )
    _inject(peft, network, _layers(network, example_input, wanted), wanted)
    vars(network)[_MARK] = wanted.text


@dataclass(frozen=True)
class Adapter:
    """What stands beside one layer.

    Attributes:
        rank: Features between its two layers.
        scale: What its output is multiplied by.
    """

    rank: int
    scale: float


def adapter_of(module: nn.Module) -> Adapter | None:
    """Return the adapter of a module that `attach_adapters` has put in a layer's place."""
    if type(module).__module__ != _LAYERS or not isinstance(
        getattr(module, _BASE, None), nn.Linear
    ):
        return None
    rank: dict[str, int] = module.r  # type: ignore[assignment]
    scaling: dict[str, float] = module.scaling  # type: ignore[assignment]
    return Adapter(rank[_ADAPTER], scaling[_ADAPTER]) if list(rank) == [_ADAPTER] else None


def inside_adapters(name: str) -> bool:
    """Return whether a module is a part of peft's layers that computes nothing."""
    return ".lora_dropout" in name


def adapters_of(network: nn.Module) -> Iterator[str]:
    """Yield the names of the parameters of a network's adapters."""
    for name, _ in network.named_parameters():
        owner = name.split(".")
        if len(owner) > 3 and owner[-3] in _PARTS and owner[-2] == _ADAPTER:  # noqa: PLR2004  # LAYER.lora_A.default.weight
            yield name


def _peft(wanted: LoraSettings) -> ModuleType:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise NetworkError(
            f"scheme {wanted.text!r} needs the package peft ({error}): pip install 'dse[{LORA}]'"
        ) from error


def _inject(
    peft: ModuleType, network: nn.Module, layers: Sequence[str], wanted: LoraSettings
) -> None:
    """Let peft replace layers by ones with adapters; what trained and what was fixed stays so."""
    fixed = fixed_parameters(network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    config = peft.LoraConfig(
        r=wanted.rank,
        lora_alpha=wanted.rank if wanted.alpha is None else wanted.alpha,
        target_modules="|".join(map(re.escape, layers)),
    )
    # On meta, widths stand for others and may be far larger than any memory.
    on_meta = all(parameter.is_meta for parameter in network.parameters())
    place = torch.device("meta") if on_meta else nullcontext()
    with torch.random.fork_rng(devices=[]), place:
        torch.manual_seed(0)
        peft.inject_adapter_in_model(config, network, adapter_name=_ADAPTER)
    for parameter in trained:  # peft freezes what it finds
        parameter.requires_grad = True
    new = {f"{layer}.": f"{layer}.{_BASE}." for layer in layers}
    rename_fixed(network, {name: _renamed(name, new) for name in fixed})
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            # Its fused path in evaluation reads the layers' weights, and so skips the adapters.
            module.activation_relu_or_gelu = 0


def _renamed(name: str, new: dict[str, str]) -> str:
    owner, _, own = name.rpartition(".")
    return f"{new.get(f'{owner}.', f'{owner}.')}{own}" if owner else name


def _layers(network: nn.Module, example_input: Tensor, wanted: LoraSettings) -> list[str]:
    """Return the names of the layers that get adapters, in the network's order.

    Raises:
        NetworkError: If there is none, or none of a target.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    reasons = _reasons(network, example_input, linear)
    free = [name for name in linear if name not in reasons]
    if not wanted.targets:
        if not free:
            raise NetworkError(
                f"scheme {wanted.text!r}: {_title(network)} has no linear layer for an adapter "
                f"{_why_none(reasons)}: use another scheme, such as 'bias'"
            )
        return free
    for target in wanted.targets:
        if not any(_matches(name, target) for name in free):
            raise NetworkError(f"scheme {wanted.text!r}: {_why_not(network, target, reasons)}")
    return [name for name in free if any(_matches(name, one) for one in wanted.targets)]


def _reasons(network: nn.Module, example_input: Tensor, linear: Sequence[str]) -> dict[str, str]:
    """Return why linear layers can't have an adapter, by name; those that can are left out."""
    called = set(execution_order(network, example_input))
    head = {name.rpartition(".")[0] for name in classifier_parameters(network, example_input)}
    first = first_names(network)
    every = [id(module) for _, module in network.named_modules(remove_duplicate=False)]
    found = {}
    for name in linear:
        if name in head:
            found[name] = "is the output layer, which trains as a whole"
        elif name not in called:
            found[name] = "is never called; other code reads its weights, or it doesn't run"
        elif every.count(id(network.get_submodule(name))) > 1:
            found[name] = "stands in several places of the network"
        elif sum(one == first[f"{name}.weight"] for one in first.values()) > 1:
            found[name] = "shares its weights with another layer"
    return found


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _why_none(reasons: dict[str, str]) -> str:
    if not reasons:
        return "(it has none at all)"
    name, reason = next(iter(reasons.items()))
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"({name} {reason}{more})"


def _why_not(network: nn.Module, target: str, reasons: dict[str, str]) -> str:
    for name, reason in reasons.items():
        if _matches(name, target):
            return f"{name} {reason}"
    for name, module in network.named_modules():
        if name and _matches(name, target):
            return f"{name} is a {type(module).__name__}: adapters stand beside linear layers"
    linear = [name for name, one in network.named_modules() if isinstance(one, nn.Linear)]
    return f"{_title(network)} has no module {target!r}; its linear layers are {listed(linear)}"


def _title(network: nn.Module) -> str:
    return type(network).__name__
