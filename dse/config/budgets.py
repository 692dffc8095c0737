"""Converts budgets that are shares of the unpruned network's peak, once that peak is known."""

from collections.abc import Sequence

from dse.config.study import Study
from dse.units import PeakShare, format_size


def budget_bytes(
    budgets: Sequence[int | PeakShare], *, unpruned_peak_bytes: int
) -> tuple[int, ...]:
    """Return budgets in bytes, ascending, without duplicates.

    Args:
        budgets: bytes, or shares of the peak.
        unpruned_peak_bytes: peak of the unpruned network's training step by the study's own recipe.
    """
    sizes = {one.of(unpruned_peak_bytes) if isinstance(one, PeakShare) else one for one in budgets}
    return tuple(sorted(sizes))


def with_budgets(study: Study, budgets: Sequence[int]) -> Study:
    """Return the study with budgets replaced by these bytes."""
    search = study.search.model_copy(update={"budgets": tuple(budgets)})
    return study.model_copy(update={"search": search})


def describe_budgets(written: Sequence[int | PeakShare], budgets: Sequence[int]) -> str:
    """Format a study's budgets in bytes, such as `1.0 MiB (25 % of the unpruned peak)`.

    Args:
        written: budgets as in the study.
        budgets: bytes, ascending.
    """
    shares = ", ".join(str(one) for one in written if isinstance(one, PeakShare))
    sizes = ", ".join(map(format_size, budgets))
    return f"{sizes} ({shares} of the unpruned peak)" if shares else sizes
