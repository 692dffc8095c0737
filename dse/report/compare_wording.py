"""Phrases with which figures, tables and the page of a comparison explain their numbers."""

from dse.report import wording
from dse.results.comparison import Comparison
from dse.results.grouping import Group
from dse.units import format_size


def fidelity_text(comparison: Comparison) -> str:
    """Return what was trained and on which part it is scored."""
    lengths = sorted(
        {
            run.study.proxy.short_epochs
            if comparison.fidelity == "short"
            else run.study.proxy.full_epochs
            for run in comparison.runs
        }
    )
    span = wording.epochs(lengths[0])
    if lengths[0] != lengths[-1]:
        span = f"{lengths[0]:g} to {lengths[-1]:g} epochs"
    if comparison.fidelity == "short":
        return f"every candidate after the short training ({span}), selection part"
    return f"finalists trained in full ({span}), validation part"


def band_text(comparison: Comparison) -> str:
    """Return what line and band of the attainment surfaces are."""
    if all(len(group.runs) == 1 for group in comparison.groups):
        return "line: attained by the run"
    if comparison.band_percents == (0.0, 100.0):
        return "line: attained by half of the runs; band: from the best run to the worst"
    return "line: attained by half of the runs; band: by a quarter to three quarters of them"


def box_text(comparison: Comparison) -> str:
    """Return the box whose share the hypervolume is."""
    measure = comparison.runs[0].measure
    best = "100 %" if measure.percent else f"{measure.ideal:g}"
    return (
        f"box: {measure.title} from {measure.text(comparison.chance)} to {best}, peak from "
        f"{format_size(comparison.reference_peak_bytes)} to 0"
    )


def groups_text(comparison: Comparison) -> list[str]:
    """Return how many runs each group has: "5 runs each", or one phrase per group."""
    counts = [len(group.runs) for group in comparison.groups]
    if len(counts) == 1 or len(set(counts)) > 1:
        pairs = zip(comparison.groups, counts, strict=True)
        return [f"{group.label}: {_runs(count)}" for group, count in pairs]
    return [f"{_runs(counts[0])} each"]


def seeds_text(group: Group) -> str:
    """Return the seeds of a group's runs: "0, 1, 2"."""
    return ", ".join(str(run.study.seed) for run in group.runs)


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
