"""Least squares: the layers that read pruned channels, fitted to give what they gave before.

After He, Zhang and Sun (ICCV 2017). Nothing is trained by gradients and no labels are read: layer
by layer, in execution order, the weights of a layer that lost inputs become those with which its
outputs come nearest to the unpruned network's, on a sample of images and positions.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from dse.errors import PruningError
from dse.networks.forward import evaluating, execution_order
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.importance import Importance
from dse.pruning.layout import is_depthwise
from dse.pruning.surgery import keep_indices

POSITIONS = 32  # of each image, at most: neighbours say much the same


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
        whole: the unpruned network, on the images' device.
        pruned: the smaller one, with channels chosen by the same importance; changed in place.
            Its normalisation statistics ought to be computed anew afterwards.
        images: batches, (batch, channels, height, width) each.
        groups: channel groups.
        kept: (groups,) channels.
        importance: scores by group name.
        seed: of the positions.

    Returns:
        Names of the fitted layers, in execution order; grouped and transposed convolutions, and
        what isn't two-dimensional, keep their weights.

    Raises:
        PruningError: there are no images.
    """
    if not images:
        raise PruningError("no images to fit layers on: give more, or leave reconstruction out")
    lost = [group for group, count in zip(groups, kept, strict=True) if count < group.channels]
    readers = {m.module for group in lost for m in group.members if m.dimension == "in"}
    outputs = _kept_outputs(whole, groups, kept, importance)
    generator = torch.Generator().manual_seed(seed)
    fitted = []
    with evaluating(whole), evaluating(pruned), torch.no_grad():
        for name in execution_order(whole, images[0][:1]):
            layer = pruned.get_submodule(name)
            if name in readers and _is_plain(layer):
                pairs = _pairs(
                    whole, pruned, name, images, outputs=outputs.get(name), generator=generator
                )
                _fit(layer, pairs)
                fitted.append(name)
    return tuple(fitted)


def _kept_outputs(
    network: nn.Module, groups: Sequence[ChannelGroup], kept: Sequence[int], importance: Importance
) -> dict[str, Tensor]:
    """Positions of the output channels that each layer keeps, where it lost some."""
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
    """Rows of a pruned layer's inputs, and of the outputs that the whole one gave."""
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
    """A convolution's setting as numbers; texts such as "same" were ruled out."""
    return tuple(int(one) for one in value)  # type: ignore[attr-defined]


def _seen(network: nn.Module, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer was given and gave."""
    found: list[tuple[Tensor, Tensor]] = []

    def note(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        found.append((args[0], output))
        return output.clone()  # an activation may work in place on it

    with ExitStack() as stack:
        stack.callback(network.get_submodule(name).register_forward_hook(note).remove)
        network(images)
    return found[0]


def _fit(layer: nn.Module, pairs: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Ridge regression towards the old weights, with an intercept where the layer has a bias.

    The pull is the inputs' mean square times inputs over rows: little where there are many rows,
    strong where there are hardly more rows than inputs, and least squares alone would fit noise.
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
