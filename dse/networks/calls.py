"""Calls of code that returns a network: a user's factory, or a library's."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from dse.errors import NetworkError
from dse.names import nearest
from dse.networks.fixed import fixed_parameters
from dse.user_code import USER_ERRORS, described


def call(
    title: str,
    factory: Callable[..., object],
    arguments: dict[str, Any],
    *,
    shown: dict[str, Any] | None = None,
) -> nn.Module:
    """Call a factory, and remember the parameters that it freezes.

    Args:
        title: name of the network in messages.
        factory: function or class.
        arguments: its keyword arguments.
        shown: arguments that messages show; all if None.

    Raises:
        NetworkError: If it doesn't take the arguments, fails, or returns something else.
    """
    try:
        inspect.signature(factory).bind(**arguments)
        network = factory(**arguments)
    except USER_ERRORS as error:  # a factory may do anything
        named = arguments if shown is None else shown
        given = ", ".join(f"{key}={value!r}" for key, value in named.items())
        hint = _contract(error) if isinstance(error, TypeError) else ""
        raise NetworkError(
            f"network {title!r} can't be built with {given}: {described(error)}{hint}"
        ) from error
    if not isinstance(network, nn.Module):
        raise NetworkError(
            f"network {title!r}: the factory returned {type(network).__name__!r}, "
            "not a torch.nn.Module"
        )
    fixed_parameters(network)
    return network


def did_you_mean(name: str, known: list[str]) -> str:
    """Return a hint with the most similar name; empty if none is similar enough."""
    close = nearest(name, known)
    return f", did you mean {close!r}?" if close else ""


def _contract(error: TypeError) -> str:
    """What a factory must take, where it doesn't take the number of classes."""
    if "num_classes" not in str(error):
        return ""
    return "; a factory is called with num_classes=... and network.options: let it take them"
