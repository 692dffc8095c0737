"""Depth: find the residual blocks of a network that can be left out, and leave them out.

A block can be left out if its output is its input with a branch added: what remains is the skip
connection. It is found by that, not by its class (docs/decisions/0043).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from dse.errors import PruningError
from dse.networks.copies import copied
from dse.networks.fixed import listed
from dse.networks.forward import is_leaf, tensors_in
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.resize import resized
from dse.pruning.shape_kernels import ShapeKernels
from dse.pruning.skips import SEVERAL, FollowedCall, first_tensor, followed_skips
from dse.user_code import USER_ERRORS, described

_AGAIN = "it is called more than once, so that one module stands for several blocks"
_SHARED = "its parameters belong to other modules, too"


@dataclass(frozen=True)
class Block:
    """A residual block that can be left out.

    Attributes:
        name: Name of its module.
        shape: Shape of its input and output, without the batch.
        plain: Whether it takes and returns one tensor, so that an identity can stand for it.
        outputs: Number of values that it returns in a tuple; None for a tensor.
        after: Operators after the sum that go with it, such as a norm; empty where leaving it out
            equals switching its branch off.
    """

    name: str
    shape: tuple[int, ...]
    plain: bool
    outputs: int | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Depth:
    """The blocks of a network.

    Attributes:
        blocks: Blocks that can be left out, in execution order.
        refused: For each other block, the reason why not.
    """

    blocks: tuple[Block, ...]
    refused: dict[str, str]


class LeftOut(nn.Module):
    """Stands for a block that takes more than one argument, or returns a tuple."""

    def __init__(self, block: nn.Module, outputs: int | None) -> None:
        """Create a module that returns its first tensor.

        Args:
            block: The block, whose plain attributes the network's code may read.
            outputs: Number of values of the tuple to return, None but for the first; None to
                return the tensor alone.
        """
        super().__init__()
        vars(self).update({key: one for key, one in vars(block).items() if key[0] != "_"})
        self.outputs = outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first tensor."""
        given = first_tensor(args, kwargs)
        return given if self.outputs is None else (given, *(None,) * (self.outputs - 1))


def find_depth(network: nn.Module, example_input: Tensor) -> Depth:
    """Find the residual blocks of a network that can be left out.

    Args:
        network: Any network that takes one tensor. Its parameters may be on the meta device. It is
            not changed.
        example_input: Images (batch, channels, height, width), or whatever the network takes. Only
            the shape of one sample matters.

    Returns:
        The blocks, each of which was tried: without all of them the network runs, and its outputs
        have the same shapes.

    Raises:
        PruningError: If the network does not run on the meta device.
    """
    shell = resized(network, (), ())
    shell.eval()
    sample = example_input[:1].detach().to("meta")
    try:
        calls = followed_skips(shell, sample)
        with torch.no_grad(), ShapeKernels():
            shapes = _shapes(shell(sample))
    except USER_ERRORS as error:
        raise PruningError(
            f"{type(network).__name__}: its blocks can't be found, because it doesn't run on meta "
            f"tensors of shape {tuple(sample.shape)} ({described(error)})"
        ) from error
    found = _residual(shell, calls)
    blocks, broken = _tried(shell, sample, shapes, found)
    refused = _others(shell, calls, {block.name for block in blocks}, broken)
    return Depth(tuple(blocks), refused)


def blocks_named(depth: Depth, names: Sequence[str]) -> tuple[Block, ...]:
    """Return the blocks of these names, in execution order.

    Raises:
        PruningError: If one of them can't be left out; the message says why.
    """
    known = {block.name for block in depth.blocks}
    for name in names:
        if name not in known:
            reason = depth.refused.get(name, "it is none of the network's residual blocks")
            have = listed([block.name for block in depth.blocks])
            others = f"those that can be are {have}" if have else "no other block can be, either"
            raise PruningError(f"block {name!r} can't be left out: {reason}; {others}")
    return tuple(block for block in depth.blocks if block.name in names)


def stages_of(blocks: Sequence[Block]) -> tuple[tuple[str, ...], ...]:
    """Return the names of the blocks, stage by stage: the next begins where the shape changes."""
    return tuple(
        tuple(block.name for block in stage)
        for _, stage in groupby(blocks, key=lambda block: block.shape)
    )


def without_blocks(network: nn.Module, blocks: Sequence[Block]) -> nn.Module:
    """Copy a network without some of its blocks; the names of its other modules stay.

    Args:
        network: The network. It is not changed.
        blocks: Blocks of it, as :func:`find_depth` found them.
    """
    shorter = copied(network)
    for block in blocks:
        owner, _, last = block.name.rpartition(".")
        whole = shorter.get_submodule(block.name)
        put = nn.Identity() if block.plain else LeftOut(whole, block.outputs)
        put.train(whole.training)
        shorter.get_submodule(owner)._modules[last] = put  # noqa: SLF001  # also in a ModuleList
    return shorter


def groups_without(
    groups: Sequence[ChannelGroup], blocks: Sequence[Block]
) -> tuple[ChannelGroup, ...]:
    """Return the channel groups of a network without some of its blocks, in the same order.

    A group that goes on elsewhere, such as a residual stream's, loses its members in the blocks.
    One that has no others has none left, and how many channels it keeps has no effect.

    Args:
        groups: Channel groups of the whole network.
        blocks: Blocks that are left out.
    """
    gone = tuple(f"{block.name}." for block in blocks)
    found = []
    for group in groups:
        left = tuple(one for one in group.members if not f"{one.module}.".startswith(gone))
        found.append(replace(group, members=left))
    return tuple(found)


def _residual(network: nn.Module, calls: Sequence[FollowedCall]) -> list[Block]:
    """Select the blocks among nested modules with skip connections, in execution order.

    A module whose additions all lie in others, such as a stage, is no block of its own. One that
    adds as often itself as others on its skip connection counts as a whole with them (an encoder
    layer with its attention). One with blocks in its branch is left to those.
    """
    repeated = _repeated(calls)
    accepted: dict[str, FollowedCall] = {}
    for call in calls:
        if call.trouble is not None or call.name in repeated or _is_shared(network, call.name):
            continue
        inner = [one for one in accepted.values() if call.name in one.inside]
        on_skip = [one for one in inner if one.additions & call.additions]
        own = call.additions.difference(*(one.additions for one in on_skip))
        if own and len(inner) == len(on_skip) <= len(own):
            for one in on_skip:
                del accepted[one.name]
            accepted[call.name] = call
    return [
        Block(call.name, call.shape, call.plain, call.outputs, call.after)
        for call in accepted.values()
    ]


def _tried(
    shell: nn.Module, sample: Tensor, shapes: list[torch.Size], found: Sequence[Block]
) -> tuple[list[Block], dict[str, str]]:
    """Select the blocks without which the network runs, and give a reason for each other one."""
    if _trouble(shell, sample, shapes, found) is None:
        return list(found), {}
    reasons = {block.name: _trouble(shell, sample, shapes, [block]) for block in found}
    broken = {name: reason for name, reason in reasons.items() if reason is not None}
    left = [block for block in found if block.name not in broken]
    together = _trouble(shell, sample, shapes, left)
    if together is not None:
        return [], {block.name: f"left out with the others: {together}" for block in left} | broken
    return left, broken


def _trouble(
    shell: nn.Module, sample: Tensor, shapes: list[torch.Size], blocks: Sequence[Block]
) -> str | None:
    try:
        with torch.no_grad(), ShapeKernels():
            found = _shapes(without_blocks(shell, blocks)(sample))
    except USER_ERRORS as error:
        return f"the network doesn't run without it ({described(error)})"
    return None if found == shapes else "the network's output would change its shape"


def _others(
    network: nn.Module, calls: Sequence[FollowedCall], accepted: set[str], broken: dict[str, str]
) -> dict[str, str]:
    """Give a reason for each outermost module with modules of its own that stays."""
    reasons: dict[str, str | None] = {call.name: call.trouble for call in calls}
    reasons |= dict.fromkeys(_repeated(calls), _AGAIN)
    wide = {name for name, reason in reasons.items() if reason and reason.startswith(SEVERAL)}
    found = {}
    for name in _built(network, "", accepted | broken.keys(), wide):
        shared = _SHARED if _is_shared(network, name) else None
        called = reasons.get(name, "the network doesn't call it as a module")
        found[name] = called or shared or "what it adds lies in other modules"
    return found | broken


def _built(module: nn.Module, name: str, known: set[str], wide: set[str]) -> Iterator[str]:
    """Yield the outermost modules with modules and parameters that hold no known block.

    Containers of such modules are searched, and so are those in `wide`.
    """
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}".strip(".")
        if full in known or is_leaf(child) or next(child.parameters(), None) is None:
            continue
        holds = any(one.startswith(f"{full}.") for one in known)
        contains = type(child) in (nn.Sequential, nn.ModuleList) and not all(
            map(is_leaf, child.children())
        )
        if holds or contains or full in wide:
            yield from _built(child, full, known, wide)
        else:
            yield full


def _repeated(calls: Sequence[FollowedCall]) -> set[str]:
    counts = Counter(call.name for call in calls)
    return {name for name, count in counts.items() if count > 1}


def _is_shared(network: nn.Module, name: str) -> bool:
    """Whether a module has parameters that the network also has elsewhere."""
    own = {id(one) for one in network.get_submodule(name).parameters()}
    return any(
        id(one) in own and not other.startswith(f"{name}.")
        for other, one in network.named_parameters(remove_duplicate=False)
    )


def _shapes(output: object) -> list[torch.Size]:
    return [tensor.shape for tensor in tensors_in(output)]
