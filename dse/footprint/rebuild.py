"""Rebuild a pruned network from its description, and measure a real training step of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.candidate import Candidate
from dse.memory.measure import Measurement, enough_memory, measure_peak
from dse.networks.build import build_network, example_input
from dse.networks.devices import check_device, threads_set
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
    image_channels: int = 3,
    options: Mapping[str, Any] | None = None,
    search_path: Path | None = None,
) -> nn.Module:
    """Build a network with a candidate's channels and side branches, without trained weights.

    Shapes do not depend on which channels are removed, so the first ones are kept. Torch's global
    random state is preserved.

    Args:
        name: Name of the network, such as `torchvision:mobilenet_v2`.
        classes: Number of outputs.
        image_size: Side of the images in pixels. It affects the shape of networks that flatten.
        image_channels: Channels of the images.
        candidate: Candidate with the channels to keep, and a scheme that may add side branches.
        options: Options for the network's factory.
        search_path: Folder in which the module of `package.module:factory` is also searched.

    Raises:
        NetworkError: If the network can't be built.
        PruningError: If the network can't be pruned.
        CandidateError: If the candidate does not match the network.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            name, classes=classes, options=dict(options or {}), search_path=search_path
        )
        example = example_input(1, image_size, channels=image_channels)
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
    image_channels: int = 3,
    batch_size: int,
    settings: StepSettings,
    options: Mapping[str, Any] | None = None,
    search_path: Path | None = None,
    device: str = "cpu",
    threads: int = 0,
) -> Measurement:
    """Run real training steps of a candidate on random images, and measure one.

    Args:
        name: Name of the network.
        candidate: Candidate with the channels to keep. Its other fields are replaced by the
            arguments below, except for side branches.
        classes: Number of outputs.
        image_size: Side of the images in pixels.
        image_channels: Channels of the images.
        batch_size: Images per step.
        settings: Settings of the step.
        options: Options for the network's factory.
        search_path: As for `rebuild`.
        device: Device that runs the step.
        threads: CPU threads of the step, on which its workspace depends; 0 takes all cores.

    Raises:
        ConfigError: If this machine does not have the device.
        NetworkError: If the network can't be built, or the scheme does not apply to it.
        PruningError: If the network can't be pruned.
        MemoryModelError: If memory on the device can't be measured.
    """
    check_device(device)
    network = rebuild(
        name,
        classes=classes,
        image_size=image_size,
        image_channels=image_channels,
        candidate=candidate,
        options=options,
        search_path=search_path,
    ).to(device)
    noise = torch.Generator().manual_seed(0)
    with enough_memory(batch_size, image_size):
        inputs = torch.randn(batch_size, image_channels, image_size, image_size, generator=noise)
    labels = torch.arange(batch_size) % classes
    with threads_set(threads):
        return measure_peak(network, inputs, labels, settings=settings)
