"""The figures at the top of the page."""

from dataclasses import dataclass

from dse.report.html.entries import final_text
from dse.report.selection import Shown, baseline_hypervolume, front_trials, hypervolume_shares
from dse.results.records import RunRecords
from dse.units import format_size


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure: its name, the figure, and what it is measured against."""

    name: str
    value: str
    note: str


def tiles(records: RunRecords, *, shown: Shown | None) -> list[Tile]:
    """Return the figures that summarise a run."""
    found = [_unpruned(records)]
    if shown is not None:
        share = 100 * shown.peak_bytes / records.unpruned_peak_bytes
        found.append(
            Tile(
                name=f"{shown.label[0].upper()}{shown.label[1:]}",
                value=format_size(shown.peak_bytes),
                note=f"{share:.1f} % of unpruned; {_accuracy(records, shown)}",
            )
        )
    front = front_trials(records)
    if front:
        low, high = format_size(front[0].peak_bytes), format_size(front[-1].peak_bytes)
        found.append(
            Tile(
                name="Front",
                value=f"{len(front)} candidate{'s' if len(front) > 1 else ''}",
                note=f"from {low} to {high}, of {len(records.complete)} complete trials",
            )
        )
        share, rival = 100 * float(hypervolume_shares(records)[-1]), baseline_hypervolume(records)
        found.append(
            Tile(
                name="Hypervolume",
                value=f"{share:.1f} %",
                note="of the reference box"
                + ("" if rival is None else f"; the baselines alone {100 * rival:.1f} %"),
            )
        )
    return found


def _unpruned(records: RunRecords) -> Tile:
    whole = records.unpruned
    final = None if whole is None else records.final_of(whole.candidate)
    measure = records.measure
    note = "not trained yet"
    if final is not None:
        note = f"{measure.title} {final_text(final, measure)}, trained in full"
    elif whole is not None:
        note = f"{measure.title} {measure.text(whole.accuracy)} after the short training"
    return Tile(name="Unpruned network", value=format_size(records.unpruned_peak_bytes), note=note)


def _accuracy(records: RunRecords, shown: Shown) -> str:
    measure, final = records.measure, records.final_of(shown.candidate)
    if final is not None:
        return f"{measure.title} {final_text(final, measure)}, trained in full"
    return f"{measure.title} {measure.text(shown.accuracy)} after the short training"
