"""Find the frozen trunk: the modules that run before anything that trains.

Its outputs are a fixed function of the image, so they can be computed once and cached.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import nn

from dse.networks.forward import evaluating, run


def frozen_trunk(network: nn.Module, example_input: torch.Tensor) -> tuple[nn.Module, ...]:
    """Find the modules whose last call ends before the first trained module begins.

    If a single module trains and no layer follows it, as under ``last``, the trunk also includes
    the containers around that module: what a container's own ``forward`` computes, for example
    ``functional.dropout``, then runs before the trained module.

    Args:
        network: Network with ``requires_grad`` set. It runs once in eval mode and is not changed.
        example_input: Tensor (batch, channels, height, width) on the network's device. Only the
            first image is used.

    Returns:
        The modules of the trunk, where a module stands for itself and not for its submodules. Empty
        if nothing trains.
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
    # By the end of the last call: a module that runs again later is not part of the trunk.
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
    """When each module began and ended in one forward pass, as a running count of events.

    Attributes:
        begins: (event, module) of every call, in order.
        ends: Event at which each module's last call ended, by the module's ``id``.
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
        run(network, example_input[:1])
    return calls


def _places_of(network: nn.Module, owners: set[int], calls: _Calls) -> list[int]:
    """Return the event at which each module with trained parameters first begins.

    A module that is never called has its parameters used by an enclosing module, so the nearest
    enclosing module that is called counts instead.
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
