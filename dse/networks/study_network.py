"""Build a study's network without weights, for its channel groups and its memory."""

import torch
from torch import nn

from dse.config import Study
from dse.inputs import InputSpec
from dse.networks.build import build_network
from dse.networks.checks import check_network, check_prunable


def network_without_weights(study: Study, *, classes: int, inputs: InputSpec) -> nn.Module:
    """Build a study's network without weights, which its groups and memory don't depend on.

    Args:
        study: The study.
        classes: Number of outputs.
        inputs: Shape and type of one sample of its data.

    Raises:
        PruningError: If it has layers that can't be pruned whatever the image size.
        NetworkError: If the network can't be built, can't run on the study's images, or has a
            number of outputs other than ``classes``.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            study.network.name,
            classes=classes,
            options=study.network.options,
            search_path=study.source_dir,
            inputs=inputs,
            outputs=study.task.outputs,
        )
        check_prunable(network)
        check_network(
            network,
            title=f"network.name = {study.network.name!r}",
            size_key="data.image_size or data.input" if inputs.is_image else "data.input",
            inputs=inputs,
            classes=classes,
            outputs=study.task.outputs,
        )
    return network
