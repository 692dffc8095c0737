"""The peak of a step as a convention counts it, and the step's memory over time."""

from dataclasses import dataclass

from dse.footprint.resolve import ResolvedStep
from dse.memory.cache import compiled_model
from dse.memory.conventions import breakdown_by
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.memory.timeline import Breakdown, Timeline
from dse.networks.devices import threads_set


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted memory of a step.

    Attributes:
        breakdown: The peak by category and where it is reached, by the requested convention.
        timeline: Memory over the step, by the convention ``allocator`` if that was requested, else
            by ``tensors``.
    """

    breakdown: Breakdown
    timeline: Timeline


def compile_step(step: ResolvedStep) -> MemoryModel:
    """Compile the memory model of a step, or take it from the cache.

    Raises:
        MemoryModelError: If the step can't be traced.
        NetworkError: If the scheme or checkpointing doesn't fit the network.
    """
    return compiled_model(step.network, step.example, settings=step.settings, groups=step.groups)


def predict(
    step: ResolvedStep,
    model: MemoryModel,
    *,
    convention: str,
    element_bits: int = 32,
    probe: bool = False,
) -> Prediction:
    """Predict the peak of a step.

    Args:
        step: The step.
        model: Its memory model.
        convention: What is counted, one of ``dse.names.CONVENTIONS``.
        element_bits: Bits of a floating-point element, for the convention ``arena``.
        probe: Whether the convention ``allocator`` runs every operator again, whatever its cache
            holds.

    Raises:
        DseError: If the convention can't count this step, or its device can't run an operator.
    """
    if convention == "allocator":
        with threads_set(step.target.threads):
            timeline = probed_timeline(
                step.network,
                step.example,
                batch_size=step.batch_size,
                settings=step.settings,
                device=step.device,
                groups=step.groups,
                channels=step.kept,
                renew=probe,
            )
        return Prediction(breakdown=timeline.breakdown(), timeline=timeline)
    return Prediction(
        timeline=model.timeline(step.kept, batch_size=step.batch_size),
        breakdown=breakdown_by(
            convention,
            model,
            step.kept,
            batch_size=step.batch_size,
            network=step.network,
            example_input=step.example,
            groups=step.groups,
            element_bits=element_bits,
        ),
    )
