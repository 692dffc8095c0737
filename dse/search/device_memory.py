"""What a device holds beyond a step's tensors, as a search counts it.

A search scales thousands of candidates to a budget with the memory model of their tensors. What the
device's allocator holds beyond them (workspace of kernels and of cuBLAS) takes seconds to measure
for one candidate. It is therefore measured for every candidate before it is trained, and decides
whether the candidate fits. For scaling, it is only measured at the ends and in the middle of the
search space, and the maximum of these is added to the tensors' bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from torch import nn

from dse.candidate import Candidate, with_recipe
from dse.config import Study
from dse.data import inputs_of
from dse.engines.engine import study_plan
from dse.engines.network import run_by
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.names import SearchConvention
from dse.networks.devices import threads_set
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.shorten import shortened
from dse.sampling.search_space import SearchSpace
from dse.step.settings import StepSettings
from dse.tasks.task import step_task
from dse.units import format_size

_MIDDLE = 0.5  # pruned share of every free group


@dataclass(frozen=True)
class BeyondTensors:
    """What a step holds beyond its tensors on one device.

    Attributes:
        device: the study's device.
        bytes: of the unpruned network, of one with half of its channels, and of the smallest; empty
            if the study counts only tensors.
    """

    device: str
    bytes: tuple[int, ...]

    @property
    def added_bytes(self) -> int:
        """Bytes that are added when candidates are scaled to a budget."""
        return max((0, *self.bytes))

    @property
    def text(self) -> str | None:
        """One line for the user; None if only tensors are counted."""
        if not self.bytes:
            return None
        found = ", ".join(format_size(one) for one in self.bytes)
        return (
            f"convention allocator: on {self.device} a step holds {found} beyond its tensors "
            "(unpruned, half of the channels, the smallest network); candidates are scaled with "
            "the most of these, and each one's own peak there decides whether it fits"
        )


def convention_of(study: Study) -> SearchConvention:
    """Return the study's convention; by default `allocator` on CUDA and `tensors` elsewhere."""
    if study.search.convention is not None:
        return study.search.convention
    return "allocator" if study.training.device.startswith("cuda") else "tensors"


def device_peaks(
    study: Study,
    network: nn.Module,
    *,
    classes: int,
    groups: Callable[[], Sequence[ChannelGroup]],
) -> Callable[[Candidate], int] | None:
    """Return a function that predicts a candidate's peak on the study's device.

    It runs each operator that the cache doesn't know alone on the device, which takes seconds.

    Args:
        study: the resolved study.
        network: the unpruned network without weights; only its shapes matter.
        classes: number of its outputs.
        groups: returns the network's channel groups.

    Returns:
        The function; None if only tensors are counted.
    """
    if convention_of(study) == "tensors":
        return None

    @cache
    def peak_bytes(candidate: Candidate) -> int:
        own = with_recipe(study, candidate)
        settings, inputs = StepSettings.of(own.training), inputs_of(own.data)
        example, loss = inputs.example(2), step_task(own, outputs=classes, inputs=inputs).loss
        whole, found = shortened(network, example, groups(), candidate.drop)
        plan = study_plan(
            whole,
            example,
            settings=settings,
            batch_size=study.training.batch_size,
            loss=loss,
        )
        with threads_set(own.training.threads):
            timeline = probed_timeline(
                run_by(whole, example, plan),
                example,
                batch_size=own.training.batch_size,
                settings=settings,
                loss=loss,
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
    """Measure what a device holds beyond tensors, at the ends and in the middle of the space.

    Args:
        study: the resolved study.
        peak_bytes: returns a candidate's peak on the device; see `device_peaks`.
        model: memory model of the study's own training step.
        space: search space.

    Raises:
        ConfigError: if this machine doesn't have the device.
        MemoryModelError: if an operator can't be run alone on it.
    """
    if peak_bytes is None:
        return BeyondTensors(study.training.device, ())
    batch_size = study.training.batch_size
    found = []
    for candidate in (Candidate(channels={}), space.uniform(_MIDDLE), space.smallest()):
        tensors = int(model.peaks(candidate.kept(model.groups), batch_size=batch_size))
        found.append(peak_bytes(candidate) - tensors)
    return BeyondTensors(study.training.device, tuple(found))
