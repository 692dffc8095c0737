"""What the search's finalists are worth beside the strongest baseline within each budget."""

from dse.measures import Measure
from dse.report.wording import size_label
from dse.results.candidate_records import FinalRecord
from dse.results.records import RunRecords
from dse.results.within_budgets import WithinBudget, within_budgets


def budget_notes(records: RunRecords) -> list[str]:
    """Return one sentence for each budget within which both sides were fine-tuned in full."""
    return [_note(one, records.measure) for one in within_budgets(records)]


def _note(found: WithinBudget, measure: Measure) -> str:
    sides = (
        f"Within {size_label(found.budget_bytes)}, {found.own.label} has "
        f"{_score(found.own, measure)}, and the strongest baseline trained in full, "
        f"{found.rival.label}, {_score(found.rival, measure)}"
    )
    worse = found.difference < 0
    by = measure.spread_number(abs(found.difference)) + (" points" if measure.percent else "")
    verdict = f"{'worse' if worse else 'better'} by {by}"
    if found.interval is not None:
        low, high = found.interval
        ends = (-high, -low) if worse else (low, high)
        verdict += f" ({' to '.join(_signed(end, measure) for end in ends)}, Welch's 95 % interval)"
    if found.differs is None:
        return f"{sides}: {verdict}; no test is possible with these seeds."
    return f"{sides}: {verdict}, {'significant' if found.differs else 'not significant'}."


def _score(final: FinalRecord, measure: Measure) -> str:
    """Return the mean on the validation part, with its standard deviation if there is one."""
    mean, spread = measure.number(final.validation_accuracy), final.validation_spread
    after = "" if spread is None else f" ± {measure.spread_number(spread)}"
    return f"{mean}{after}{' %' if measure.percent else ''}"


def _signed(end: float, measure: Measure) -> str:
    number = measure.spread_number(abs(end))
    return f"\N{MINUS SIGN}{number}" if end < 0 else number
