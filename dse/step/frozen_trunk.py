"""Which modules run before anything that trains, so that they are a fixed function of the image."""

from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import nn

from dse.networks.forward import evaluating


def frozen_trunk(network: nn.Module, example_input: torch.Tensor) -> tuple[nn.Module, ...]:
    """Find the modules that have run for the last time when the first trained module begins.

    Where one module trains and no layer follows it, as under ``last``, the containers around it
    belong to the trunk as well: what such a container computes itself, for example
    ``functional.dropout`` in the network's own ``forward``, comes before that module.

    Args:
        network: with ``requires_grad`` set; left as it is. Runs once, in eval mode.
        example_input: (batch, channels, height, width), on its device; one image is used.

    Returns:
        The modules, each without those inside it; none where nothing trains.
    """
    owners = {
        id(module)
        for module in network.modules()
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    }
    calls = _calls(network, example_input)
    places = _places_of(network, owners, calls)
    if not places:
        return ()
    first = min(places)
    trunk = [module for module in network.modules() if calls.ends.get(id(module), first) < first]
    if len(owners) == 1 and calls.ends.keys() >= owners and not _layers_after(first, owners, calls):
        trunk += [
            module
            for module in network.modules()
            if id(module) not in owners and any(id(inner) in owners for inner in module.modules())
        ]
    return tuple(trunk)


def _layers_after(first: int, owners: set[int], calls: "_Calls") -> bool:
    """Whether another module with parameters begins after the trained one."""
    later = (module for place, module in calls.begins if place > first and id(module) not in owners)
    return any(True for module in later for _ in module.parameters())


@dataclass(frozen=True)
class _Calls:
    """When modules began and ended in one forward pass, counted in events.

    Attributes:
        begins: of every call, in order.
        ends: of each module's last call, by its id.
    """

    begins: list[tuple[int, nn.Module]] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)


def _calls(network: nn.Module, example_input: torch.Tensor) -> _Calls:
    calls = _Calls()
    events = iter(range(2**62))

    def begin(module: nn.Module, _args: object) -> None:
        calls.begins.append((next(events), module))

    def end(module: nn.Module, _args: object, _output: object) -> None:
        calls.ends[id(module)] = next(events)

    with ExitStack() as stack:
        for module in network.modules():
            stack.callback(module.register_forward_pre_hook(begin).remove)
            stack.callback(module.register_forward_hook(end).remove)
        stack.enter_context(evaluating(network))
        stack.enter_context(torch.no_grad())
        network(example_input[:1])
    return calls


def _places_of(network: nn.Module, owners: set[int], calls: _Calls) -> list[int]:
    """When each module with trained parameters first begins.

    One that is never called lends its parameters to the module around it, so that one counts.
    """
    begun: dict[int, int] = {}
    for place, module in reversed(calls.begins):
        begun[id(module)] = place
    places = []
    for name, module in network.named_modules():
        if id(module) in owners:
            above = name.split(".") if name else []
            around = (
                network.get_submodule(".".join(above[:depth]))
                for depth in range(len(above), -1, -1)
            )
            places.append(next(begun[id(one)] for one in around if id(one) in begun))
    return places
