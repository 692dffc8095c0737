"""What a device holds beyond a step's tensors, as a search counts it.

A search scales thousands of candidates to a budget by the memory model of their tensors. What the
device's allocator holds beyond them, kernels' workspace and the workspaces that cuBLAS keeps, takes
seconds to find out for one candidate. So it is found for every candidate that is to be trained, and
decides whether that fits. For scaling it is found for the ends of the search space and its middle
alone, and the most of these is added to what the tensors need.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from torch import nn

from dse.candidate import Candidate, with_recipe
from dse.config import Study
from dse.config.fields import SearchConvention
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.networks.build import example_input
from dse.networks.devices import threads_set
from dse.pruning.channel_group import ChannelGroup
from dse.sampling.search_space import SearchSpace
from dse.step.settings import StepSettings
from dse.units import format_size

_MIDDLE = 0.5  # pruned share of every free group


@dataclass(frozen=True)
class BeyondTensors:
    """What a step holds beyond its tensors on one device.

    Attributes:
        device: of the study.
        bytes: of the unpruned network, one with half of its channels, and the smallest; none where
            the study counts tensors alone.
    """

    device: str
    bytes: tuple[int, ...]

    @property
    def added_bytes(self) -> int:
        """What is added where candidates are scaled to a budget."""
        return max((0, *self.bytes))

    @property
    def text(self) -> str | None:
        """One line for whoever runs the study; None where only tensors are counted."""
        if not self.bytes:
            return None
        found = ", ".join(format_size(one) for one in self.bytes)
        return (
            f"convention allocator: on {self.device} a step holds {found} beyond its tensors "
            "(unpruned, half of the channels, the smallest network); candidates are scaled with "
            "the most of these, and each one's own peak there decides whether it fits"
        )


def convention_of(study: Study) -> SearchConvention:
    """Return how a study counts memory: as it says, or else `allocator` on CUDA alone."""
    if study.search.convention is not None:
        return study.search.convention
    return "allocator" if study.training.device.startswith("cuda") else "tensors"


def device_peaks(
    study: Study, network: nn.Module, *, groups: Callable[[], Sequence[ChannelGroup]]
) -> Callable[[Candidate], int] | None:
    """Return what predicts a candidate's peak on the study's device; None by tensors alone.

    It runs each operator alone there that the cache doesn't know, which takes seconds.

    Args:
        study: the resolved study.
        network: unpruned; its shapes alone count.
        groups: finds those of the network.
    """
    if convention_of(study) == "tensors":
        return None

    @cache
    def peak_bytes(candidate: Candidate) -> int:
        own, found = with_recipe(study, candidate), groups()
        with threads_set(own.training.threads):
            timeline = probed_timeline(
                network,
                example_input(2, own.data.image_size),
                batch_size=own.training.batch_size,
                settings=StepSettings.of(own.training),
                device=own.training.device,
                groups=found,
                channels=candidate.kept(found),
            )
        return timeline.breakdown().peak_bytes

    return peak_bytes


def beyond_tensors(
    study: Study,
    *,
    peak_bytes: Callable[[Candidate], int] | None,
    model: MemoryModel,
    space: SearchSpace,
) -> BeyondTensors:
    """Find what a study's device holds beyond tensors at the ends of its space and in its middle.

    Args:
        study: the resolved study.
        peak_bytes: of a candidate on the device, see `device_peaks`.
        model: of the study's own training step.
        space: whose ends are looked at.

    Raises:
        ConfigError: this machine hasn't the device.
        MemoryModelError: an operator can't be run alone there.
    """
    if peak_bytes is None:
        return BeyondTensors(study.training.device, ())
    batch_size = study.training.batch_size
    found = []
    for candidate in (Candidate(channels={}), space.uniform(_MIDDLE), space.smallest()):
        tensors = int(model.peaks(candidate.kept(model.groups), batch_size=batch_size))
        found.append(peak_bytes(candidate) - tensors)
    return BeyondTensors(study.training.device, tuple(found))
