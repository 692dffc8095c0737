"""A pruned network from its description alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.candidate import Candidate
from dse.inputs import InputSpec
from dse.names import Outputs
from dse.networks.build import build_network
from dse.pruning.groups import find_groups
from dse.pruning.shorten import shortened
from dse.pruning.surgery import prune
from dse.step.schemes import prepare_scheme


def rebuild(
    name: str,
    *,
    classes: int,
    inputs: InputSpec,
    candidate: Candidate,
    options: Mapping[str, Any] | None = None,
    search_path: Path | None = None,
    outputs: Outputs = "vector",
) -> nn.Module:
    """Build a candidate's network: pruned, with its scheme's side branches, randomly initialised.

    Shapes don't depend on which channels are removed, so the first ones are kept. Torch's global
    random state is restored.

    Args:
        name: Name of the network, such as `torchvision:mobilenet_v2`.
        classes: Number of outputs.
        inputs: Shape and type of one sample; networks that flatten depend on it.
        candidate: Gives the channels kept, the blocks left out, and a scheme that may add modules.
        options: Options of the network's factory.
        search_path: Folder in which `package.module:factory` is also looked for.
        outputs: Whether the outputs are a vector for each sample, or maps.

    Raises:
        NetworkError: If the network can't be built.
        PruningError: If the network can't be pruned.
        CandidateError: If the candidate doesn't fit the network.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            name,
            classes=classes,
            options=dict(options or {}),
            search_path=search_path,
            inputs=inputs,
            outputs=outputs,
        )
        example = inputs.example(1)
        groups = find_groups(network, example) if candidate.channels else ()
        network, groups = shortened(network, example, groups, candidate.drop)
        if groups:
            network = prune(network, groups=groups, kept=candidate.kept(groups))
        if candidate.scheme is not None:
            prepare_scheme(network, example, candidate.scheme)
        return network
