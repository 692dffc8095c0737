"""Which parts of a network the schemes of a joint space update, and how alike schemes are.

Sparse updates follow MCUNetV3 (Lin et al., "On-Device Training Under 256KB Memory", 2022): the last
blocks train, or chosen ones, with or without the biases before them. What is held for the backward
pass then ends where the first weight trains.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from dse.config.lora import MOST_RANK, is_lora, read_lora, with_ranks
from dse.errors import NetworkError
from dse.names import scheme_parts
from dse.networks.classifier import classifier_parameters
from dse.networks.copies import copied
from dse.networks.forward import execution_order
from dse.step.checkpointing import trained_blocks
from dse.step.schemes import NORMALISATION, apply_scheme

_KINDS = ("weight", "scale", "bias")
_SUFFIXES = (1 / 4, 1 / 2, 3 / 4)  # where suffixes of blocks begin, as shares of all blocks


def usual_schemes(network: nn.Module, *, own: str = "full") -> tuple[str, ...]:
    """Return the schemes that a joint space has if none are listed.

    These are everything, normalisation, biases and the output layer alone; for networks with blocks
    also the blocks from a quarter, half and three quarters on, each also with the biases before
    them; the biases of the later half alone; and every second block of the later half. Where the
    study trains adapters, these at half and at twice their rank are among them.

    Args:
        network: The unpruned network.
        own: The study's scheme.
    """
    return tuple(dict.fromkeys((*_usual(network), *_other_ranks(own))))


def _other_ranks(own: str) -> Iterator[str]:
    for part in filter(is_lora, scheme_parts(own)):
        rank = read_lora(part).rank
        yield from with_ranks([own], [one for one in (rank // 2, 2 * rank) if 0 < one <= MOST_RANK])


def _usual(network: nn.Module) -> Iterator[str]:
    yield "full"
    if any(isinstance(module, NORMALISATION) for module in network.modules()):
        yield "norm"
    yield "bias"
    yield "last"
    blocks = trained_blocks(network)
    starts = dict.fromkeys(round(share * len(blocks)) for share in _SUFFIXES)
    suffixes = [blocks[start] for start in starts if 0 < start < len(blocks)]
    yield from (f"from:{block}" for block in suffixes)
    yield from (f"bias+from:{block}" for block in suffixes)
    if suffixes:
        yield f"bias-from:{suffixes[len(suffixes) // 2]}"
    chosen = blocks[len(blocks) // 2 :: 2]
    if len(chosen) > 1:
        yield f"only:{','.join(chosen)}"


def scheme_features(
    schemes: Sequence[str], network: nn.Module, example: torch.Tensor
) -> tuple[tuple[float, ...], ...]:
    """Describe schemes by numbers, so that a surrogate learns about one from others like it.

    For weights, scales and biases apart, these are the share of the modules, in execution order,
    that lie behind the first with trained ones, and the root of the share that trains. The output
    layer, which every scheme trains, is left out.

    Args:
        schemes: Schemes, the study's own first. Its features are subtracted from all.
        network: The unpruned network.
        example: An input of the network.

    Returns:
        Features of each scheme. All are empty if a scheme doesn't apply to the network; what is
        wrong is reported where its memory model is compiled.
    """
    order = {name: place for place, name in enumerate(execution_order(network, example))}
    head = set(classifier_parameters(network, example))
    try:
        rows = [_described(copied(network), example, scheme, order, head) for scheme in schemes]
    except NetworkError:
        return ((),) * len(schemes)
    return tuple(
        tuple(value - own for value, own in zip(row, rows[0], strict=True)) for row in rows
    )


def _described(
    network: nn.Module, example: torch.Tensor, scheme: str, order: dict[str, int], head: set[str]
) -> tuple[float, ...]:
    apply_scheme(network, example, scheme)
    first = dict.fromkeys(_KINDS, len(order))
    trained, every = dict.fromkeys(_KINDS, 0), dict.fromkeys(_KINDS, 0)
    for name, parameter in network.named_parameters():
        if name in head:
            continue
        owner, _, own = name.rpartition(".")
        kind = "weight" if parameter.dim() > 1 else "bias" if own == "bias" else "scale"
        every[kind] += parameter.numel()
        if parameter.requires_grad:
            trained[kind] += parameter.numel()
            first[kind] = min(first[kind], _place(order, owner))
    behind = (1 - first[kind] / len(order) for kind in _KINDS)
    return (*behind, *((trained[kind] / max(every[kind], 1)) ** 0.5 for kind in _KINDS))


def _place(order: dict[str, int], owner: str) -> int:
    """Return the place of a module in execution order; of its layer, for a layer's adapter."""
    while owner not in order and owner:
        owner = owner.rpartition(".")[0]
    return order.get(owner, len(order))
