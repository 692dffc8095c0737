"""The peak of a step as a convention counts it, and the step's memory over time."""

from dataclasses import replace

from dse.errors import MemoryModelError
from dse.footprint.resolve import ResolvedStep
from dse.memory.cache import compiled_model
from dse.memory.conventions import Count, CountedStep, count_step
from dse.memory.model import MemoryModel


def compile_step(step: ResolvedStep) -> MemoryModel:
    """Compile the memory model of a step, or take it from the cache.

    Raises:
        MemoryModelError: If the step can't be traced.
        NetworkError: If the scheme or checkpointing doesn't fit the network.
    """
    return compiled_model(
        step.running,
        step.example,
        settings=step.settings,
        groups=step.groups,
        loss=step.loss,
    )


def predict(
    step: ResolvedStep,
    model: MemoryModel,
    *,
    convention: str,
    element_bits: int = 32,
    probe: bool = False,
) -> Count:
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
    counted = _counted(step, model)
    return count_step(convention, replace(counted, element_bits=element_bits, renew=probe))


def known_allocator_peak(step: ResolvedStep, model: MemoryModel) -> int | None:
    """Return the peak with kernels' workspace, if it is known without running an operator.

    Returns:
        Bytes; None if an operator hasn't been run on this machine yet.
    """
    try:
        count = count_step("allocator", replace(_counted(step, model), only_cached=True))
    except MemoryModelError:  # also if the step can't be counted this way: nothing is known then
        return None
    return count.breakdown.peak_bytes


def _counted(step: ResolvedStep, model: MemoryModel) -> CountedStep:
    return CountedStep(
        model=model,
        channels=step.kept,
        batch_size=step.batch_size,
        network=step.running,
        example_input=step.example,
        groups=step.groups,
        loss=step.loss,
        device=step.device,
        threads=step.target.threads,
    )
