"""Build a network of timm, transformers or MCUNet with random weights, and check all of it.

What ``networks.py`` runs in a process of its own for each network.
"""

import json
import logging
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # masking and fresh traces

from dse.engines.lean import lean
from dse.errors import DseError, NetworkError, PruningError
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.networks.build import build_network
from dse.networks.copies import copied
from dse.networks.logits import main_logits
from dse.pruning.channel_group import ChannelGroup, is_axis, owner_of
from dse.pruning.groups import survey_channels
from dse.pruning.shares import fixed_counts
from dse.pruning.surgery import keep_indices, prune
from dse.step.canonical import classification_loss
from dse.step.settings import StepSettings
from support.masking import masked
from support.traces import fresh_peak

CLASSES = 10
SIZES = (64, 128)  # tried before a network's own image size, to save time
TOKENS = 16
WIDTHS = 2  # random widths compared with a fresh trace
BATCH = 2  # where only shapes count
STEP_BATCH = 8  # of real steps

_SMALL = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
_WIDE = {**_SMALL, "intermediate_size": 96}
_IMAGE = {"image_size": 64, "patch_size": 16}
_TEXT = {"vocab_size": 99, "max_position_embeddings": 32}
HUGGING_FACE: dict[str, dict[str, Any]] = {
    "vit": {**_WIDE, **_IMAGE},
    "dinov2": {**_SMALL, **_IMAGE, "mlp_ratio": 2},
    "swin": {"image_size": 64, "embed_dim": 24, "depths": [1, 1], "num_heads": [2, 4],
             "window_size": 4},
    "convnext": {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]},
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1],
               "layer_type": "basic"},
    "bert": {**_WIDE, **_TEXT},
    "distilbert": {"dim": 48, "hidden_dim": 96, "n_heads": 4, "n_layers": 2, **_TEXT},
    "roberta": {**_WIDE, **_TEXT},
    "electra": {**_WIDE, **_TEXT, "embedding_size": 48},
    "albert": {**_WIDE, **_TEXT, "embedding_size": 24},
}  # fmt: skip
_TEXTS = ("bert", "distilbert", "roberta", "electra", "albert")


def main() -> None:
    """Check the network whose name is given, and print the record as JSON."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(json.dumps(checked(*built(sys.argv[1]))))


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Build a network, and a batch of the smallest samples tried that it runs on."""
    if name == "mcunet":
        return mcunet_subnetwork(), torch.randn(BATCH, 3, 96, 96)
    if name.startswith("hf:"):
        kind = name.removeprefix("hf:")
        config = {"model_type": kind, **HUGGING_FACE[kind]}
        network = build_network("hf:any", classes=CLASSES, options={"config": config})
        tokens = torch.randint(3, 99, (BATCH, TOKENS))
        return network, tokens if kind in _TEXTS else torch.randn(BATCH, 3, 64, 64)
    own = timm.create_model(name, num_classes=CLASSES)
    for size in SIZES:
        for options in ({"img_size": size}, None):
            try:
                network = (
                    timm.create_model(name, num_classes=CLASSES, **options) if options else own
                )
                images = torch.randn(BATCH, 3, size, size)
                with torch.no_grad():
                    network.eval()(images)
            except Exception:  # noqa: BLE001, S112  # the network's code may raise anything
                continue
            return network, images
    size = own.default_cfg["input_size"][-1]
    return own, torch.randn(BATCH, 3, size, size)


def mcunet_subnetwork() -> nn.Module:
    """A random network of MCUNet's search space, since its own configurations are downloads."""
    from mcunet.tinynas.elastic_nn.networks.ofa_proxyless import (  # noqa: PLC0415  # needed here only
        OFAProxylessNASNets,
    )

    random.seed(0)
    space = OFAProxylessNASNets(
        n_classes=CLASSES,
        base_stage_width="mcunet384",
        width_mult_list=0.5,
        ks_list=[3, 5, 7],
        expand_ratio_list=[3, 4, 6],
        depth_list=[0, 1, 2],
        no_mix_layer=True,
    )
    space.sample_active_subnet()
    network: nn.Module = space.get_active_subnet(preserve_weight=False)
    with torch.no_grad():
        for _ in range(50):  # its running variances begin far above those of its activations
            network(torch.randn(BATCH, 3, 96, 96))
    return network


def checked(network: nn.Module, samples: torch.Tensor) -> dict[str, Any]:
    """Check the step as it is, the pruned network and the lean one. Each may fail alone."""
    record: dict[str, Any] = {"size": samples.shape[-1], "as_it_is": as_it_is(network, samples)}
    for check in (measured, trained_lean, pruned):
        start = time.process_time()
        try:
            record |= check(network, samples)
        except DseError as error:
            record[f"{check.__name__}_failed"] = str(error)
        record[f"{check.__name__}_seconds"] = time.process_time() - start
    return record


def as_it_is(network: nn.Module, samples: torch.Tensor) -> str:
    """Compile the memory model of the unpruned network."""
    try:
        MemoryModel.compile(network, samples, groups=())
    except DseError as error:
        return str(error)
    return "yes"


def measured(network: nn.Module, samples: torch.Tensor) -> dict[str, Any]:
    """Compare a real step with its prediction."""
    batch, labels = several(samples)
    stock = copied(network).train()
    with TemporaryDirectory() as cache:
        found = probed_timeline(stock, batch, batch_size=STEP_BATCH, cache=Path(cache))
    held = measure_peak(stock, batch, labels, timed_steps=1).peak_bytes
    return {"predicted_bytes": found.breakdown().peak_bytes, "measured_bytes": held}


def trained_lean(network: nn.Module, samples: torch.Tensor) -> dict[str, Any]:
    """Compare gradients and peak of a lean step with the stock ones."""
    batch, labels = several(samples)
    stock, other = copied(network).train(), copied(network).train()
    budget: str | None = "least"
    try:
        leaner = lean(other, batch, scheme="full", budget=budget, bit_identical=True)
    except NetworkError:  # it can't be traced as a whole
        budget = None
        leaner = lean(other, batch, scheme="full")
    pairs = zip(
        gradients_of(stock, stock, batch, labels),
        gradients_of(leaner, other, batch, labels),
        strict=True,
    )
    same = all(
        first is second or (first is not None and second is not None and torch.equal(first, second))
        for first, second in pairs
    )
    held = measure_peak(leaner, batch, labels, timed_steps=1).peak_bytes
    return {"lean_same_bits": same, "lean_budget": budget, "lean_bytes": held}


def several(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples and labels for a step."""
    batch = samples.repeat(STEP_BATCH // BATCH, *[1] * (samples.dim() - 1))
    return batch, torch.arange(STEP_BATCH) % CLASSES


def gradients_of(
    network: nn.Module, owner: nn.Module, samples: torch.Tensor, labels: torch.Tensor
) -> list[torch.Tensor | None]:
    """Gradients of one step, with the same random numbers each time."""
    torch.manual_seed(1)
    classification_loss(main_logits(network(samples)), labels).backward()
    found = [parameter.grad for parameter in owner.parameters()]
    owner.zero_grad(set_to_none=True)
    return found


def pruned(network: nn.Module, samples: torch.Tensor) -> dict[str, Any]:
    """Survey the channels, and compare pruned networks with masking and with fresh traces."""
    network.eval()
    try:
        survey = survey_channels(network, samples)
    except PruningError as error:
        return {"refused": str(error)}
    groups = survey.groups
    total = sum(parameter.numel() for parameter in network.parameters())
    reasons = Counter(survey.refused.values()).most_common(1)
    rng = np.random.default_rng(0)
    found = {
        "kinds": Counter(kind_of(network, group) for group in groups),
        "share": 1 - sum(fixed_counts(network, groups).values()) / total,
        "whole": len(survey.refused),
        "reason": reasons[0][0] if reasons else None,
    }
    try:
        found["mask_error"] = mask_error(network, samples, groups, drawn(groups, rng))
        found["worst_bytes"] = worst_bytes(network, samples, groups, rng)
    except DseError as error:
        found["pruned_failed"] = str(error)
    return found


def kind_of(network: nn.Module, group: ChannelGroup) -> str:
    """``heads``, ``stream`` (added up by several layers), ``hidden`` (linear) or ``channels``."""
    if group.fewest > 1 or any("head" in str(member.dimension) for member in group.members):
        return "heads"
    producing = [
        member
        for member in group.members
        if not member.reads and (is_axis(member) or member.dimension in ("out", "both"))
    ]
    layers = {
        name
        for name in (owner_of(network, member.module) for member in producing)
        if isinstance(network.get_submodule(name), (nn.Linear, nn.modules.conv._ConvNd))  # noqa: SLF001
    }
    wide = [name for name in layers if getattr(network.get_submodule(name), "groups", 1) == 1]
    if len(wide) > 1:
        return "stream"
    only_linear = all(isinstance(network.get_submodule(name), nn.Linear) for name in layers)
    return "hidden" if layers and only_linear else "channels"


def drawn(groups: Sequence[ChannelGroup], rng: np.random.Generator) -> list[int]:
    """Any count from two to all, group by group. One channel, normalised by itself, is zero."""
    fewest = [max(min(2, g.channels // g.multiple), -(-g.fewest // g.multiple)) for g in groups]
    return [
        int(rng.integers(few, g.channels // g.multiple + 1)) * g.multiple
        for few, g in zip(fewest, groups, strict=True)
    ]


def mask_error(
    network: nn.Module, samples: torch.Tensor, groups: Sequence[ChannelGroup], counts: list[int]
) -> float:
    """Largest difference between outputs pruned and masked, over the largest output."""
    whole = network.double().eval()
    smaller = prune(whole, groups=groups, kept=counts)
    kept = {
        group.name: keep_indices(group, count).tolist()
        for group, count in zip(groups, counts, strict=True)
    }
    given = samples.double() if samples.is_floating_point() else samples
    with torch.no_grad():
        expected = main_logits(masked(whole, smaller, groups, kept)(given))
        difference = main_logits(smaller(given)) - expected
    network.float()
    return float(difference.abs().max() / expected.abs().max())


def worst_bytes(
    network: nn.Module,
    samples: torch.Tensor,
    groups: Sequence[ChannelGroup],
    rng: np.random.Generator,
) -> int:
    """Largest difference between predicted and traced peak, over random widths."""
    shell = network.to("meta")
    model = MemoryModel.compile(shell, samples, groups=groups)
    worst = 0
    for _ in range(WIDTHS):
        counts = drawn(groups, rng)
        smaller = prune(shell, groups=groups, kept=counts)
        traced = fresh_peak(smaller, tuple(samples.shape), step=StepSettings(), dtype=samples.dtype)
        worst = max(worst, abs(int(model.peaks(counts, batch_size=BATCH)) - traced))
    return worst


if __name__ == "__main__":
    main()
