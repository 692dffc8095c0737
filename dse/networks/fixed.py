"""Parameters that a network's factory froze, such as fixed filters: no scheme trains them.

A network remembers their names from the moment it is built, so that every scheme applied later, to
it or to a copy, pruned or not, can tell them from those that an earlier scheme froze.
"""

from collections.abc import Collection, Mapping, Sequence

from torch import nn

_MARK = "_dse_fixed"
_SHOWN = 3  # names in a message


def fixed_parameters(network: nn.Module) -> frozenset[str]:
    """Names of the parameters that stay frozen; remembered on the first call.

    Args:
        network: Network as its factory built it, or a copy of one that this function has seen.
    """
    if _MARK not in vars(network):
        found = [name for name, p in network.named_parameters() if not p.requires_grad]
        _remember(network, found)
    return frozenset(vars(network)[_MARK])


def unfix(network: nn.Module, names: Collection[str]) -> None:
    """Forget some names, as when a new layer takes the place of a frozen one."""
    _remember(network, fixed_parameters(network) - frozenset(names))


def rename_fixed(network: nn.Module, names: Mapping[str, str]) -> None:
    """Remember fixed parameters under new names, as when a layer is put into another module."""
    _remember(network, [names.get(name, name) for name in fixed_parameters(network)])


def fixed_line(network: nn.Module) -> str | None:
    """Return one line on what the factory froze, or None if it froze nothing."""
    fixed = fixed_parameters(network)
    names = [name for name, _ in network.named_parameters()]
    frozen = [name for name in names if name in fixed]
    if not frozen:
        return None
    rest = len(names) - len(frozen)
    what = "tensor" if len(frozen) == 1 else "tensors"
    stays = "stays" if len(frozen) == 1 else "stay"
    return (
        f"{len(frozen)} {what} frozen by the factory {stays} frozen: {listed(frozen)}; "
        f"at most {rest} of {len(names)} can train"
    )


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and the number of the others."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _remember(network: nn.Module, names: Collection[str]) -> None:
    # A tuple among the module's plain attributes: copies and digests of the network have it too.
    vars(network)[_MARK] = tuple(sorted(names))
