"""Where a network gets side branches: at its blocks, as the scheme ``lite-residual`` wants them.

The branches are part of the network from then on, whatever scheme follows. They are added after
pruning, so their widths are those that the pruned blocks have.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from dse.errors import NetworkError
from dse.networks.forward import evaluating
from dse.step.checkpointing import find_blocks
from dse.step.side_branch import SideBranch, SideBranches

LITE_RESIDUAL = "lite-residual"
BRANCHES = "lite_residual"  # the network's attribute that holds them

_FEWEST_LAYERS = 2  # beside a single convolution, a branch would be the larger part
_IMAGE_DIMENSIONS = 4


@dataclass(frozen=True)
class _Place:
    """What a branch must fit: channels in and out, and by how much the image shrinks."""

    in_channels: int
    out_channels: int
    stride: int


def attach(network: nn.Module, example_input: Tensor) -> None:
    """Give every suitable block but the first a side branch that adds nothing yet.

    A block is suitable if it holds a convolution and at least two layers of weights, is given one
    (batch, channels, height, width) tensor, which it leaves as it is, and returns one such tensor,
    with the same channel counts each time it runs. The first has none, as in TinyTL: its images are
    the largest, so a branch would hold most there. A network that has branches keeps them.

    Their first weights are the same each time; torch's global random state is left as it was.

    Args:
        network: changed in place; perhaps pruned, perhaps on the meta device.
        example_input: (batch, channels, height, width), on its device; run once without gradients.

    Raises:
        NetworkError: fewer than two blocks are suitable.
    """
    if has_branches(network):
        return
    places = _places(network, example_input)
    if not places:
        raise NetworkError(
            f"scheme {LITE_RESIDUAL!r}: {type(network).__name__} hasn't two or more blocks that a "
            "side branch can stand beside: use scheme 'bias'"
        )
    branches = SideBranches()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, place in places.items():
            block = network.get_submodule(name)
            branch = _branch(place, like=next(block.parameters()))
            branches[name.replace(".", "-")] = branch
            block.register_forward_hook(branch.after)
    if _is_channels_last(network):
        branches.to(memory_format=torch.channels_last)
    network.add_module(BRANCHES, branches.train(network.training))


def has_branches(network: nn.Module) -> bool:
    """Whether `attach` was here."""
    return isinstance(getattr(network, BRANCHES, None), SideBranches)


def _branch(place: _Place, *, like: Tensor) -> SideBranch:
    # Random numbers are drawn on the CPU, so that every device begins with the same.
    device = "meta" if like.is_meta else "cpu"
    branch = SideBranch(place.in_channels, place.out_channels, stride=place.stride, device=device)
    return branch.to(device=like.device, dtype=like.dtype)


def _places(network: nn.Module, example_input: Tensor) -> dict[str, _Place]:
    """Blocks that get a branch, in the order in which they finish."""
    seen: dict[str, list[_Place | None]] = {}
    with ExitStack() as stack:
        stack.enter_context(evaluating(network))
        stack.enter_context(torch.no_grad())
        for name in find_blocks(network):
            block = network.get_submodule(name)
            if _has_layers(block):
                probe = _Probe(name, seen)
                before = block.register_forward_pre_hook(probe.begin, with_kwargs=True)
                after = block.register_forward_hook(probe.end, with_kwargs=True)
                stack.callback(before.remove)
                stack.callback(after.remove)
        network(example_input[:1])
    suitable = [
        (name, calls[0])
        for name, calls in seen.items()
        if calls[0] is not None and len(set(calls)) == 1
    ]
    return dict(suitable[1:])


def _has_layers(block: nn.Module) -> bool:
    layers = [module for module in block.modules() if isinstance(module, (_ConvNd, nn.Linear))]
    return len(layers) >= _FEWEST_LAYERS and any(isinstance(one, _ConvNd) for one in layers)


class _Probe:
    """Hooks of one block that note what each of its calls would need of a branch."""

    def __init__(self, name: str, seen: dict[str, list[_Place | None]]) -> None:
        self._name = name
        self._seen = seen
        self._version = 0

    def begin(self, _block: nn.Module, args: tuple[Any, ...], _kwargs: Mapping[str, Any]) -> None:
        self._version = _version(args)

    def end(
        self, _block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        untouched = self._version == _version(args)
        fitting = len(args) == 1 and not kwargs and _is_image(args[0]) and _is_image(output)
        place = _place(args[0], output) if fitting and untouched else None
        self._seen.setdefault(self._name, []).append(place)


def _place(images: Tensor, output: Tensor) -> _Place:
    stride = max(1, round(images.shape[2] / output.shape[2]))
    return _Place(images.shape[1], output.shape[1], stride)


def _is_image(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == _IMAGE_DIMENSIONS


def _version(args: tuple[Any, ...]) -> int:
    """How often the first argument was changed in place."""
    return args[0]._version if args and isinstance(args[0], Tensor) else 0  # noqa: SLF001  # no public name


def _is_channels_last(network: nn.Module) -> bool:
    """Whether some weight can only have been laid out so."""
    return any(
        parameter.ndim == _IMAGE_DIMENSIONS
        and parameter.is_contiguous(memory_format=torch.channels_last)
        and not parameter.is_contiguous()
        for parameter in network.parameters()
    )
