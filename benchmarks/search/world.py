"""A study's parts, for benchmarks that evaluate candidates outside a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dse.candidate import Candidate
from dse.config import Study, load_study
from dse.data import inputs_of, load_data
from dse.engines.engine import study_plan
from dse.finetune.proxy import Proxy
from dse.memory.model import MemoryModel
from dse.methods.workbench import Workbench, step_numbers
from dse.networks.study_network import network_without_weights
from dse.pruning.channel_group import ChannelGroup
from dse.sampling.propose import Proposer
from dse.sampling.search_space import SearchSpace

Kept = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class World:
    """What is known of the study before anything is trained.

    Attributes:
        classes: outputs of the network; chance is one in so many.
    """

    study: Study
    classes: int
    network: nn.Module
    groups: tuple[ChannelGroup, ...]
    space: SearchSpace
    model: MemoryModel

    @cached_property
    def full(self) -> Kept:
        """Channels of the whole network."""
        return tuple(choice.channels for choice in self.space.choices)

    @cached_property
    def unpruned_peak_bytes(self) -> int:
        """Predicted peak of the whole network."""
        return self.peak_bytes(self.full)

    @cached_property
    def smallest(self) -> Kept:
        """Channels of the smallest network of the space."""
        return tuple(ladder[0] for ladder in self.space.ladders)

    @cached_property
    def held(self) -> NDArray[np.float64]:
        """Bytes that each group holds at the peak of the whole network."""
        _, slopes = self.model.peak_and_gradient(
            self.full, batch_size=self.study.training.batch_size
        )
        held: NDArray[np.float64] = slopes * np.array(self.full)
        return held

    @cached_property
    def proposer(self) -> Proposer:
        """Proposes over the whole range of peaks."""
        return Proposer(
            ladders=self.space.ladders,
            peaks=(self.peaks,),
            recipe_indices=self.space.recipe_indices,
            features=self.space.features,
            steps=step_numbers(self.space.recipes),
            limits=self.space.limits,
            held_bytes=self.held,
            smallest_bytes=self.peak_bytes(self.smallest),
            largest_bytes=self.unpruned_peak_bytes,
            chance=1 / self.classes,
            reference_bytes=self.unpruned_peak_bytes,
        )

    def peaks(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Predicted peaks of one training step, (n, groups) channels to (n,)."""
        return self.model.peaks(kept, batch_size=self.study.training.batch_size)

    def peak_bytes(self, kept: Sequence[int]) -> int:
        """Predicted peak of one training step."""
        return int(self.model.peaks(kept, batch_size=self.study.training.batch_size))

    def candidate(self, kept: Sequence[int]) -> Candidate:
        """The candidate that keeps so many channels of each group."""
        return Candidate.from_kept(self.space.choices, kept)


def study_file(name: str) -> Path:
    """Find a study: beside this file, or among those that ship."""
    here = Path(__file__).parent
    beside = here / f"{name}.toml"
    return beside if beside.exists() else here.parents[1] / "studies" / f"{name}.toml"


def load_world(name: str = "digits", *, overrides: Sequence[str] = ()) -> World:
    """Build a study's parts, trained on one thread.

    Args:
        name: of a shipped study, or of a study beside this file.
        overrides: such as `data.root=...`; only what trains needs them.
    """
    study = load_study(
        str(study_file(name)), overrides=["training.threads=1", "space.joint=false", *overrides]
    )
    classes = len(study.data.labels or ())
    network = network_without_weights(study, classes=classes, inputs=inputs_of(study.data))
    bench = Workbench(study=study, network=network, classes=classes)
    return World(
        study=study,
        classes=classes,
        network=network,
        groups=bench.groups,
        space=bench.space,
        model=bench.model(),
    )


@dataclass(frozen=True, eq=False)
class Evaluators:
    """What trains; the pretrained network is made, or read from the cache, when first used."""

    world: World

    @cached_property
    def proxy(self) -> Proxy:
        """The study's proxy."""
        study = self.world.study
        data = load_data(study.data, seed=study.seed)
        return Proxy.of(study, data=data, groups=self.world.groups, make_plan=study_plan)
