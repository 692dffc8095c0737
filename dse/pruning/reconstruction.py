"""Reconstruction: fit the layers that read pruned channels to their previous outputs.

After He, Zhang and Sun (ICCV 2017). No gradients or labels are used. Layer by layer, in execution
order, least squares gives the layers that lost inputs the weights whose outputs come closest to the
unpruned network's, on a sample of images and positions.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from dse.errors import PruningError
from dse.networks.fixed import fixed_parameters
from dse.networks.forward import StopForward, evaluating, execution_order, run_until_stopped
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.importance import Importance
from dse.pruning.layout import is_depthwise
from dse.pruning.surgery import keep_indices

POSITIONS = 32  # at most, per image: neighbouring positions are strongly correlated


def reconstruct(
    whole: nn.Module,
    pruned: nn.Module,
    images: Sequence[Tensor],
    *,
    groups: Sequence[ChannelGroup],
    kept: Sequence[int],
    importance: Importance,
    seed: int = 0,
) -> tuple[str, ...]:
    """Fit every plain convolution and linear layer that lost inputs.

    Args:
        whole: The unpruned network, on the images' device.
        pruned: The pruned network, whose channels were chosen by the same importance. It is changed
            in place. Its normalisation statistics should be recomputed afterwards.
        images: Batches of shape (batch, channels, height, width).
        groups: Channel groups.
        kept: Channels kept, shape (groups,).
        importance: Scores by group name.
        seed: Seed of the sampled positions.

    Returns:
        Names of the fitted layers, in execution order. Grouped and transposed convolutions, and
        those that are not two-dimensional, keep their weights.

    Raises:
        PruningError: If there are no images.
    """
    if not images:
        raise PruningError("no images to fit layers on: give more, or leave reconstruction out")
    lost = [group for group, count in zip(groups, kept, strict=True) if count < group.channels]
    readers = {m.module for group in lost for m in group.members if m.dimension == "in"}
    outputs = _kept_outputs(whole, groups, kept, importance)
    generator = torch.Generator().manual_seed(seed)
    fixed = fixed_parameters(pruned)
    fitted = []
    with evaluating(whole), evaluating(pruned), torch.no_grad():
        # In execution order: each layer is fitted on the inputs that the fitted ones before it
        # give.
        for name in execution_order(whole, images[0][:1]):
            layer = pruned.get_submodule(name)
            if name in readers and f"{name}.weight" not in fixed and _is_plain(layer):
                pairs = _pairs(
                    whole, pruned, name, images, outputs=outputs.get(name), generator=generator
                )
                _fit(layer, pairs)
                fitted.append(name)
    return tuple(fitted)


def _kept_outputs(
    network: nn.Module, groups: Sequence[ChannelGroup], kept: Sequence[int], importance: Importance
) -> dict[str, Tensor]:
    """Return the positions of the kept output channels, for each layer that lost some."""
    masks: dict[str, Tensor] = {}
    for group, count in zip(groups, kept, strict=True):
        stay = torch.zeros(group.channels, dtype=torch.bool)
        stay[torch.from_numpy(keep_indices(group, count, scores=importance[group.name]))] = True
        for member in group.members:
            if member.dimension == "out":
                weight = network.get_parameter(f"{member.module}.weight")
                mask = masks.setdefault(member.module, torch.ones(len(weight), dtype=torch.bool))
                own = stay.repeat_interleave(member.span)
                mask[member.start : member.start + len(own)] = own
    return {name: mask.nonzero().ravel() for name, mask in masks.items()}


def _is_plain(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return True
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and not is_depthwise(layer)
    return plain and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _pairs(
    whole: nn.Module,
    pruned: nn.Module,
    name: str,
    images: Sequence[Tensor],
    *,
    outputs: Tensor | None,
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows of a layer's inputs in the pruned network, and of its outputs in the whole one."""
    for batch in images:
        _, wanted = _seen(whole, name, batch)
        given, _ = _seen(pruned, name, batch)
        layer = pruned.get_submodule(name)
        if outputs is not None:
            axis = 1 if isinstance(layer, nn.Conv2d) else wanted.dim() - 1
            wanted = wanted.index_select(axis, outputs.to(wanted.device))
        if not isinstance(layer, nn.Conv2d):
            yield given.flatten(0, -2), wanted.flatten(0, -2)
            continue
        columns = functional.unfold(
            given,
            kernel_size=_pair(layer.kernel_size),
            dilation=_pair(layer.dilation),
            padding=_pair(layer.padding),
            stride=_pair(layer.stride),
        )
        rows = wanted.flatten(2)
        chosen = torch.randperm(rows.shape[2], generator=generator)[:POSITIONS].to(rows.device)
        yield (
            columns[:, :, chosen].movedim(1, 2).flatten(0, 1),
            rows[:, :, chosen].movedim(1, 2).flatten(0, 1),
        )


def _pair(value: object) -> tuple[int, ...]:
    """Return a convolution's setting as integers. Strings such as "same" were excluded before."""
    return tuple(int(one) for one in value)  # type: ignore[attr-defined]


def _seen(network: nn.Module, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the input and the output of a layer's first call; nothing is run after it."""
    found: list[tuple[Tensor, Tensor]] = []

    def note(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((args[0], output))
        raise StopForward

    with ExitStack() as stack:
        stack.callback(network.get_submodule(name).register_forward_hook(note).remove)
        run_until_stopped(network, images)
    return found[0]


def _fit(layer: nn.Module, pairs: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Ridge regression towards the old weights, with an intercept if the layer has a bias.

    The penalty is the mean square of the inputs times the ratio of inputs to rows. It is small if
    there are many rows, and large if there are hardly more rows than inputs, where plain least
    squares would fit noise.
    """
    if not isinstance(layer, (_ConvNd, nn.Linear)):
        raise TypeError(f"{type(layer).__name__} has no weights to fit")
    old = layer.weight.flatten(1).double()
    count, sums_in, sums_out = 0, torch.zeros(old.shape[1]), torch.zeros(old.shape[0])
    sums_in, sums_out = sums_in.to(old), sums_out.to(old)
    square, cross = old.new_zeros(old.shape[1], old.shape[1]), old.new_zeros(*old.shape[::-1])
    for given, wanted in pairs:
        inputs, outputs = given.double(), wanted.double()
        count += len(inputs)
        sums_in += inputs.sum(dim=0)
        sums_out += outputs.sum(dim=0)
        square += inputs.T @ inputs
        cross += inputs.T @ outputs
    mean_in, mean_out = sums_in / count, sums_out / count
    square = square / count - torch.outer(mean_in, mean_in)
    cross = cross / count - torch.outer(mean_in, mean_out)
    pull = len(square) / count * square.diagonal().mean().clamp_min(1e-12)
    square.diagonal().add_(pull)
    new = torch.linalg.solve(square, cross + pull * old.T).T
    layer.weight.copy_(new.reshape(layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(mean_out - new @ mean_in)
