"""The peak of a step as a convention counts it, and the step's memory over time."""

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
    return compiled_model(step.running, step.example, settings=step.settings, groups=step.groups)


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
    return count_step(
        convention,
        CountedStep(
            model=model,
            channels=step.kept,
            batch_size=step.batch_size,
            network=step.running,
            example_input=step.example,
            groups=step.groups,
            element_bits=element_bits,
            device=step.device,
            threads=step.target.threads,
            renew=probe,
        ),
    )
