"""Attach side branches to a network's blocks, for the scheme ``lite-residual``.

The branches become part of the network, whichever scheme is applied later. They are attached after
pruning, so that their widths match those of the pruned blocks.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from dse.errors import NetworkError
from dse.networks.forward import evaluating, run
from dse.step.checkpointing import find_blocks
from dse.step.side_branch import SideBranch, SideBranches

LITE_RESIDUAL = "lite-residual"
BRANCHES = "lite_residual"  # attribute of the network that holds the branches

_FEWEST_LAYERS = 2  # beside a single convolution, the branch would be larger than the block
_IMAGE_DIMENSIONS = 4


@dataclass(frozen=True)
class _Place:
    """What a branch must match: the block's channels in and out, and its downsampling factor."""

    in_channels: int
    out_channels: int
    stride: int


def attach(network: nn.Module, example_input: Tensor) -> None:
    """Attach a side branch, which adds zero at first, to every suitable block but the first.

    A block is suitable if it holds a convolution and at least two weighted layers, takes one
    (batch, channels, height, width) tensor without changing it in place, returns one such tensor,
    and has the same channel counts in every call. As in TinyTL, the first suitable block gets no
    branch: its images are the largest, so a branch there would cost the most memory. A network that
    already has branches is left unchanged.

    The initial weights are deterministic, and torch's global random state is preserved.

    Args:
        network: Network to change in place. It may be pruned or on the meta device.
        example_input: Tensor (batch, channels, height, width) on the network's device. The network
            runs on its first image once, without gradients.

    Raises:
        NetworkError: If fewer than two blocks are suitable.
    """
    if has_branches(network):
        return
    places = _places(network, example_input)
    if not places:
        raise NetworkError(
            f"scheme {LITE_RESIDUAL!r}: {type(network).__name__} has fewer than two blocks that "
            "can have a side branch: use scheme 'bias'"
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
    """Whether `attach` has added side branches to the network."""
    return isinstance(getattr(network, BRANCHES, None), SideBranches)


def _branch(place: _Place, *, like: Tensor) -> SideBranch:
    # Draw the weights on the CPU, so that they are the same on every device.
    device = "meta" if like.is_meta else "cpu"
    branch = SideBranch(place.in_channels, place.out_channels, stride=place.stride, device=device)
    return branch.to(device=like.device, dtype=like.dtype)


def _places(network: nn.Module, example_input: Tensor) -> dict[str, _Place]:
    """Return what the branch of each block must match, in the order in which blocks finish."""
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
        run(network, example_input[:1])
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
    """Hooks of one block that record, for each call, what a branch would have to match."""

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
    """Return how often the first argument has been changed in place."""
    return args[0]._version if args and isinstance(args[0], Tensor) else 0  # noqa: SLF001  # no public name


def _is_channels_last(network: nn.Module) -> bool:
    """Whether some weight is laid out channels-last and not at the same time contiguous."""
    return any(
        parameter.ndim == _IMAGE_DIMENSIONS
        and parameter.is_contiguous(memory_format=torch.channels_last)
        and not parameter.is_contiguous()
        for parameter in network.parameters()
    )
