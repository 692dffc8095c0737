"""What the page shows of each candidate: figures as text, channels, memory ledger, seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dse.candidate import Candidate, engine_text, with_recipe
from dse.measures import Measure, objective_title
from dse.names import dropped
from dse.plain_text import one_line
from dse.report import wording
from dse.report.content import Models
from dse.report.selection import front_trials, knee_trial
from dse.report.style import CATEGORY_STYLES
from dse.report.wording import decimals, size_label
from dse.results.candidate_records import BaselineRecord, FinalRecord, TrialRecord
from dse.results.records import RunRecords
from dse.results.ties import ties_of
from dse.units import format_duration, format_size

Pair = tuple[str, str]

BEYOND_TENSORS = "beyond tensors"
"""Name of the ledger's line for what an allocator holds besides tensors."""


@dataclass(kw_only=True)
class Entry:
    """One candidate, under all names that the run has for it.

    Attributes:
        candidate: the candidate.
        peak_bytes: predicted peak memory.
        trial: its trial; None if it is only a baseline.
        baseline: its baseline record; None if it is only a trial.
        final: its record at fidelity `full`; None if it wasn't trained in full.
        names: its labels in the run; the first is the one that the page uses.
        on_front: whether its trial is on the front.
        is_knee: whether its trial is the front's knee.
    """

    candidate: Candidate
    peak_bytes: int
    trial: TrialRecord | None = None
    baseline: BaselineRecord | None = None
    final: FinalRecord | None = None
    names: list[str] = field(default_factory=list)
    on_front: bool = False
    is_knee: bool = False

    @property
    def label(self) -> str:
        """Its first name."""
        return self.names[0]

    @property
    def short(self) -> float | None:
        """Score at `short`."""
        scored = self.trial or self.baseline
        return None if scored is None else scored.accuracy


MOST_TRIALS = 1000
"""Most trials that the page shows; more make it slow to write, and to use."""


def entries_of(records: RunRecords, *, shown: Candidate | None = None) -> list[Entry]:
    """Return the candidates that were trained, each once: trials by number, then baselines.

    Of more than `MOST_TRIALS` trials, those closest to the front are returned.

    Args:
        records: the run.
        shown: a candidate to return in any case, as are all on the front and trained in full.
    """
    found: dict[str, Entry] = {}

    def entry(candidate: Candidate, peak_bytes: int, name: str) -> Entry:
        one = found.setdefault(candidate.digest, Entry(candidate=candidate, peak_bytes=peak_bytes))
        if name not in one.names:
            one.names.append(name)
        return one

    front, bend = {trial.number for trial in front_trials(records)}, knee_trial(records)
    always = [one.candidate for one in front_trials(records)]
    always += [one.candidate for one in records.finals]
    always += [one.candidate for one in records.baselines]
    always += [] if shown is None else [shown]
    wanted = _near_front(records.complete) | {one.digest for one in always}
    for trial in records.complete:
        if trial.candidate.digest not in wanted:
            continue
        own = entry(trial.candidate, trial.peak_bytes, f"trial {trial.number}")
        own.trial = own.trial or trial
        own.on_front |= trial.number in front
        own.is_knee |= bend is not None and bend.number == trial.number
    for baseline in records.baselines:
        entry(baseline.candidate, baseline.peak_bytes, baseline.label).baseline = baseline
    for final in records.finals:
        entry(final.candidate, final.peak_bytes, final.label).final = final
    return list(found.values())


def _near_front(trials: Sequence[TrialRecord]) -> set[str]:
    """Return the digests of those that lose least against a candidate of at most their memory."""
    distinct = {trial.candidate.digest: trial for trial in reversed(trials)}
    if len(distinct) <= MOST_TRIALS:
        return set(distinct)
    by_peak = sorted(
        distinct.values(), key=lambda trial: (trial.peak_bytes, -(trial.accuracy or 0.0))
    )
    accuracies = np.array([trial.accuracy or 0.0 for trial in by_peak])
    losses = np.maximum.accumulate(accuracies) - accuracies
    return {
        by_peak[row].candidate.digest for row in np.argsort(losses, kind="stable")[:MOST_TRIALS]
    }


def entry_json(
    entry: Entry, records: RunRecords, *, models: Models, picked: Candidate | None
) -> dict[str, Any]:
    """Return what the page shows of a candidate as JSON; all figures are texts but the ledger's."""
    model = models(entry.candidate)
    kept = [entry.candidate.channels.get(group.name, group.channels) for group in model.groups]
    batch_size = entry.candidate.batch_size or records.study.training.batch_size
    found = model.breakdown(kept, batch_size=batch_size)
    ledger = {_category_title(name): held for name, held in found.categories.items() if held}
    if entry.peak_bytes > found.peak_bytes:
        ledger[BEYOND_TENSORS] = entry.peak_bytes - found.peak_bytes
    place = ", ".join(part for part in (found.phase, found.operator, found.module) if part)
    return {
        "digest": entry.candidate.digest,
        "label": one_line(entry.label),
        "notes": _notes(entry, records, picked=picked),
        "facts": [[name, one_line(text)] for name, text in _facts(entry, records)],
        "recipe": _recipe(entry.candidate, records),
        "kept": [entry.candidate.channels.get(name, full) for name, full in records.groups],
        "ledger": [[name, held, format_size(held)] for name, held in ledger.items()],
        "peak": format_size(entry.peak_bytes),
        "place": one_line(place),
        "tip": [[name, one_line(text)] for name, text in _tip(entry, records)],
        "export": None if entry.trial is None else entry.trial.number,
    }


def recipe_settings(records: RunRecords, candidate: Candidate) -> dict[str, str]:
    """Return the recipe that a candidate is trained with, as names and texts."""
    study = with_recipe(records.study, candidate)
    training, proxy = study.training, study.proxy
    settings = {
        "blocks left out": ", ".join(dropped(candidate.drop)) or "none",
        "scheme": training.scheme,
        "batch": str(training.batch_size),
        "accumulated batches": str(training.accumulate),
        "image size": wording.image_size(records, candidate),
        "engine": "stock PyTorch" if training.engine == "stock" else engine_text(training.engine),
        "checkpointing": training.checkpointing,
        "optimizer": training.optimizer,
        "learning rate": f"{training.learning_rate:g}",
        "channels ranked by": proxy.importance,
        "least squares": "yes" if proxy.reconstruct else "no",
    }
    return {name: one_line(text) for name, text in settings.items()}


def final_text(final: FinalRecord, measure: Measure) -> str:
    """Return the mean score on the validation part, with the spread of several seeds."""
    spread = final.validation_spread
    if spread is None:
        return measure.text(final.validation_accuracy)
    unit = " %" if measure.percent else ""
    mean = measure.number(final.validation_accuracy)
    return f"{mean} ± {measure.spread_number(spread)}{unit}"


def peak_text(entry: Entry, records: RunRecords) -> str:
    """Return the peak, also as a share of the unpruned network's."""
    share = 100 * entry.peak_bytes / records.unpruned_peak_bytes
    return f"{format_size(entry.peak_bytes)} ({share:.1f} % of the unpruned network's)"


def _recipe(candidate: Candidate, records: RunRecords) -> dict[str, str]:
    """Return the settings in which a candidate's recipe differs from the study's."""
    usual = recipe_settings(records, Candidate())
    own = recipe_settings(records, candidate)
    return {name: text for name, text in own.items() if usual.get(name) != text}


def _category_title(name: str) -> str:
    style = CATEGORY_STYLES.get(name)
    return name.replace("_", " ") if style is None else style.label


def _notes(entry: Entry, records: RunRecords, *, picked: Candidate | None) -> list[str]:
    notes = []
    if picked is not None and picked.digest == entry.candidate.digest:
        notes.append("picked")
    notes += ["knee"] * entry.is_knee + ["on the front"] * entry.on_front
    if entry.baseline is not None:
        notes.append("baseline")
    if entry.final is not None:
        notes.append("trained in full")
    budgets = records.study.search.budget_bytes
    fits = next((size for size in budgets if entry.peak_bytes <= size), None)
    notes.append("fits no budget" if fits is None else f"fits {size_label(fits)}")
    return notes


def _tip(entry: Entry, records: RunRecords) -> Iterator[Pair]:
    metric = records.measure.title
    yield "peak", format_size(entry.peak_bytes)
    if entry.short is not None:
        yield f"{metric}, short", records.measure.text(entry.short)
    if entry.final is not None:
        yield f"{metric}, full", final_text(entry.final, records.measure)
    if entry.candidate.recipe_text:
        yield "recipe", entry.candidate.recipe_text


def _facts(entry: Entry, records: RunRecords) -> Iterator[Pair]:
    metric, full = records.measure.title, sum(channels for _, channels in records.groups)
    if len(entry.names) > 1:
        yield "Also called", ", ".join(entry.names[1:])
    yield "Peak memory", peak_text(entry, records)
    if full:
        kept = sum(entry.candidate.channels.get(name, own) for name, own in records.groups)
        yield "Channels kept", f"{kept:,} of {full:,} ({100 * kept / full:.1f} %)"
    if entry.short is not None:
        yield (
            f"{_capital(metric)}, short",
            f"{records.measure.text(entry.short)} on the selection part",
        )
    yield from _other_objectives(entry, records)
    if entry.trial is not None:
        yield "Trial", _trial_text(entry.trial)
    if entry.final is not None:
        yield from _final_facts(entry.final, records, metric=metric)
    yield "Digest", entry.candidate.digest


def _other_objectives(entry: Entry, records: RunRecords) -> Iterator[Pair]:
    scored = entry.trial or entry.baseline
    for name in records.study.search.objectives:
        if scored is None or name in {"accuracy", "peak_bytes"}:
            continue
        value = scored.values[name]
        text = format_size(value) if name.endswith("bytes") else f"{value:,.6g}"
        yield _capital(objective_title(name, metric=records.metric)), text


def _final_facts(final: FinalRecord, records: RunRecords, *, metric: str) -> Iterator[Pair]:
    yield (
        f"{_capital(metric)}, full",
        f"{final_text(final, records.measure)} on the validation part",
    )
    for number, accuracy in enumerate(final.validation_accuracies):
        seed = f"seed {final.seeds[number]}" if number < len(final.seeds) else f"seed {number + 1}"
        own = records.measure.text(final.accuracies[number])
        yield seed.capitalize(), f"{records.measure.text(accuracy)} (selection part {own})"
    ties = ties_of(final, records.finals)
    if ties is not None:
        yield "Tied with", ", ".join(ties) or "none (Welch's t-test, 5 %)"
    milliseconds = 1000 * final.step_seconds
    yield "Training step", f"{milliseconds:.{decimals([milliseconds])}f} ms"


def _trial_text(trial: TrialRecord) -> str:
    if trial.baseline is not None:
        return f"the baseline {trial.baseline}, not trained again"
    plural = "s" if len(trial.seeds) > 1 else ""
    return f"{format_duration(trial.wall_seconds)}, seed{plural} {', '.join(map(str, trial.seeds))}"


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
