"""A pruned network from its description alone, and what a real training step of it holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.candidate import Candidate
from dse.memory.measure import Measurement, enough_memory, measure_peak
from dse.networks.build import build_network, example_input
from dse.networks.devices import check_device
from dse.pruning.groups import find_groups
from dse.pruning.surgery import prune
from dse.step.lite_residual import LITE_RESIDUAL, attach
from dse.step.settings import StepSettings


def rebuild(
    name: str,
    *,
    classes: int,
    image_size: int,
    candidate: Candidate,
    options: Mapping[str, Any] | None = None,
    search_path: Path | None = None,
) -> nn.Module:
    """Build a network as a candidate has it, channels and side branches; its weights mean nothing.

    Which channels go doesn't matter for shapes, so the first ones stay. Torch's global random state
    is left as it was.

    Args:
        name: of the network, such as `torchvision:mobilenet_v2`.
        classes: number of outputs.
        image_size: side of the images; it decides the shape of networks that flatten.
        candidate: gives the channels kept, and a scheme that may add side branches.
        options: of the network's factory.
        search_path: folder in which `package.module:factory` is also looked for.

    Raises:
        NetworkError: the network can't be built or pruned.
        CandidateError: the candidate doesn't fit it.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            name, classes=classes, options=dict(options or {}), search_path=search_path
        )
        example = example_input(1, image_size)
        if candidate.channels:
            groups = find_groups(network, example)
            network = prune(network, groups=groups, kept=candidate.kept(groups))
        if candidate.scheme == LITE_RESIDUAL:
            attach(network, example)
        return network


def measure_candidate(
    name: str,
    candidate: Candidate,
    *,
    classes: int,
    image_size: int,
    batch_size: int,
    settings: StepSettings,
    options: Mapping[str, Any] | None = None,
    search_path: Path | None = None,
    device: str = "cpu",
) -> Measurement:
    """Run real training steps of a candidate on noise, and measure one.

    Args:
        name: of the network.
        candidate: gives the channels kept; all else is given here.
        classes: number of outputs.
        image_size: side of the images.
        batch_size: images per step.
        settings: of the step.
        options: of the network's factory.
        search_path: as for `rebuild`.
        device: where the step runs.

    Raises:
        ConfigError: this machine has no such device.
        NetworkError: the network can't be built or pruned, or the scheme doesn't fit it.
        MemoryModelError: the device can't be measured.
    """
    check_device(device)
    network = rebuild(
        name,
        classes=classes,
        image_size=image_size,
        candidate=candidate,
        options=options,
        search_path=search_path,
    ).to(device)
    noise = torch.Generator().manual_seed(0)
    with enough_memory(batch_size, image_size):
        inputs = torch.randn(batch_size, 3, image_size, image_size, generator=noise)
    labels = torch.arange(batch_size) % classes
    return measure_peak(network, inputs, labels, settings=settings)
