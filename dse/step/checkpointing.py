"""Activation checkpointing by block: keep only a block's input and recompute its activations.

After Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016), using PyTorch's
non-reentrant checkpoint. Gradients and running statistics equal those of the plain step.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from dse.errors import NetworkError
from dse.networks.forward import tensors_in
from dse.step.side_branch import SideBranches


def block_names(network: nn.Module) -> tuple[str, ...]:
    """Return the blocks of a network that can be checkpointed or frozen.

    Raises:
        NetworkError: If the network has fewer than two blocks.
    """
    names = find_blocks(network)
    if len(names) < 2:  # noqa: PLR2004  # checkpointing a single block saves nothing
        raise NetworkError(
            f"{type(network).__name__} has {len(names)} blocks, and checkpointing, freezing by "
            "block and side branches take two or more: leave them off"
        )
    return names


def trained_blocks(network: nn.Module) -> tuple[str, ...]:
    """Return the blocks that have parameters; a pooling module built of others has none."""
    return tuple(
        name
        for name in find_blocks(network)
        if next(network.get_submodule(name).parameters(), None) is not None
    )


def find_blocks(network: nn.Module) -> tuple[str, ...]:
    """Return the blocks of a network (perhaps none): its outermost modules with nested submodules.

    Containers of such modules are searched: a ResNet's ``layer1`` is not a block, but ``layer1.0``
    is. The last top-level module, which computes the output, and the side branches are excluded.
    """
    outermost = [
        name for name, child in network.named_children() if not isinstance(child, SideBranches)
    ]
    names = (name for name, _ in _blocks(network, ""))
    return tuple(name for name in names if name.partition(".")[0] in outermost[:-1])


def _blocks(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    for child_name, child in module.named_children():
        full_name = f"{name}.{child_name}" if name else child_name
        built = [grandchild for grandchild in child.children() if any(grandchild.children())]
        if type(child) in (nn.Sequential, nn.ModuleList) and built:
            yield from _blocks(child, full_name)
        elif any(child.children()):
            yield full_name, child


@contextmanager
def checkpointed(network: nn.Module) -> Iterator[None]:
    """Checkpoint every block of a network within this context.

    Raises:
        NetworkError: If the network has fewer than two blocks, or a block changes its input in
            place.
    """
    blocks = [(name, network.get_submodule(name)) for name in block_names(network)]
    with ExitStack() as put_back:
        for name, block in blocks:
            own = block.__dict__.get("forward")
            block.forward = partial(_checkpoint, name, block, block.forward)
            put_back.callback(_restore, block, own)
        yield


def _restore(block: nn.Module, own: Callable[..., Any] | None) -> None:
    if own is None:
        del block.forward
    else:
        block.forward = own


def _checkpoint(
    name: str, block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    inputs = [*tensors_in(args), *tensors_in(kwargs)]
    # A block that overwrites its input can't be recomputed from it. Tensor versions reveal this.
    versions = [tensor._version for tensor in inputs]  # noqa: SLF001  # no public name

    def forward_once(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        if [tensor._version for tensor in inputs] != versions:  # noqa: SLF001  # no public name
            raise NetworkError(
                f"block {name!r} changes its input in place, so it can't be computed again from "
                'it: use checkpointing = "none", or build it with inplace=False'
            )
        return result

    device = next((tensor.device for tensor in inputs), torch.device("cpu"))
    state = random_state(device) if _draws(block) else None
    return checkpoint(
        forward_once,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,  # saved below instead, where a trace sees the tensors it keeps
        context_fn=lambda: (nullcontext(), _again(block, device, state)),
        **kwargs,
    )


def _draws(block: nn.Module) -> bool:
    """Whether a block may draw random numbers: any layer that is not known to be deterministic."""
    return block.training and any(
        not isinstance(module, _SILENT) for module in block.modules() if not any(module.children())
    )


_SILENT = (
    nn.modules.conv._ConvNd,  # noqa: SLF001  # the common base of all convolutions
    nn.Linear,
    _BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
)


def random_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the states of the CPU's random generator and, on CUDA, of the device's."""
    # A trace only sees tensors that an operator makes. `get_rng_state` is none, but `clone` is.
    on_device = torch.cuda.get_rng_state(device).clone() if device.type == "cuda" else None
    return torch.get_rng_state().clone(), on_device


@contextmanager
def _again(
    block: nn.Module, device: torch.device, state: tuple[torch.Tensor, torch.Tensor | None] | None
) -> Iterator[None]:
    """Replay the forward pass's random numbers and leave the running statistics unchanged."""
    with drawn_from(state, device), statistics_kept(block):
        yield


def drawn_from(
    state: tuple[torch.Tensor, torch.Tensor | None] | None, device: torch.device
) -> AbstractContextManager[None]:
    """Return a context in which random numbers are drawn from a state. None changes nothing."""
    return nullcontext() if state is None else _with_random_state(state, device)


@contextmanager
def _with_random_state(
    state: tuple[torch.Tensor, torch.Tensor | None], device: torch.device
) -> Iterator[None]:
    present = random_state(device)
    _set_random_state(state, device)
    try:
        yield
    finally:
        _set_random_state(present, device)


def _set_random_state(
    state: tuple[torch.Tensor, torch.Tensor | None], device: torch.device
) -> None:
    if isinstance(state[0], FakeTensor):
        return  # a trace draws no real random numbers
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


@contextmanager
def statistics_kept(block: nn.Module) -> Iterator[None]:
    """Leave the running statistics of a block as they are within this context."""
    norms = [
        module
        for module in block.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    # The first pass has already updated the statistics. With momentum 0, the recomputation's update
    # has no effect.
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
