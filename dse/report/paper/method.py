"""A paragraph on the method of a run, with the study's own figures, as LaTeX."""

from collections.abc import Sequence
from pathlib import Path

from dse.measures import Measure, objective_title
from dse.names import (
    BASELINE_METHODS,
    CRITERIA,
    SAMPLERS,
    SCHEMES,
    SEARCH_CONVENTIONS,
    scheme_kind,
)
from dse.report import wording
from dse.report.escape import latex_escaped
from dse.report.paper.latex import code
from dse.report.selection import baseline_hypervolume, front_trials, hypervolume_shares
from dse.results.candidate_records import FinalRecord
from dse.results.records import RunRecords
from dse.units import format_duration, format_size

_SETTINGS = {"importance": "the ranking of channels", "reconstruct": "least squares"}
_LIBRARIES = {
    "torchvision": "torchvision2016",
    "timm": "wightman2019timm",
    "hf": "wolf2020transformers",
}


def method_paragraph(records: RunRecords) -> str:
    """Return the paragraph; everything that users wrote is escaped."""
    return " ".join(
        [
            *study_sentences(records),
            *_search(records),
            *_baselines(records),
            *_results(records),
            _software(records),
        ]
    )


def study_sentences(records: RunRecords) -> list[str]:
    """Return sentences on what is fine-tuned, what a candidate is, and how memory is counted."""
    return [*_network(records), *_memory(records)]


def _network(records: RunRecords) -> list[str]:
    study = records.study
    library = study.network.name.partition(":")[0]
    cite = rf"~\cite{{{_LIBRARIES[library]}}}" if library in _LIBRARIES else ""
    data = records.data
    images = ""
    if data is not None and data.parts:
        counts = ", ".join(f"{part.images:,} for {part.name}" for part in data.parts)
        images = f"; images: {counts}"
    scheme = SCHEMES.get(scheme_kind(study.training.scheme))
    what = f" ({scheme})" if scheme else ""
    root = study.data.root
    source = study.data.name if root is None else f"{study.data.name} {Path(root).name}"
    return [
        (
            f"We fine-tune {code(study.network.name)}{cite} (weights: "
            f"{code(study.network.weights_name)}) on {_text(source)} "
            f"({_text(wording.task(records))}{images}). Training: {_text(wording.regime(records))}"
            f"{what}, with a learning rate of {study.training.learning_rate:g}"
            f"{' that was tuned on the unpruned network' if records.tuning is not None else ''}."
        )
    ]


def _memory(records: RunRecords) -> list[str]:
    study = records.study
    low, high = study.space.ratio
    rules = ", some groups by rules of their own" if study.space.group else ""
    multiple = f", multiples of {study.space.multiple}" if study.space.multiple > 1 else ""
    fitted = (
        ", and the layers that read pruned channels are fitted by least squares"
        if study.proxy.reconstruct
        else ""
    )
    return [
        (
            "A candidate keeps a part of the channels of each of the network's "
            f"{len(records.groups)} channel groups (pruning ratios from {low:g} to "
            f"{high:g}{rules}{multiple}); channels are ranked by "
            f"{_criterion(study.proxy.importance)}{fitted}."
        ),
        *_joint(records),
        (
            f"Its memory is counted by the convention {code(records.convention)}: "
            f"{_text(SEARCH_CONVENTIONS[records.convention])}. The unpruned network needs "
            f"{_size(records.unpruned_peak_bytes)}."
        ),
    ]


def _joint(records: RunRecords) -> list[str]:
    if not records.joint:
        return []
    names = _list([_SETTINGS.get(name, name.replace("_", " ")) for name in records.joint])
    return [f"The search also varies {_text(names)}."]


def _search(records: RunRecords) -> list[str]:
    study, counts = records.study, records.trials_by_state
    kind = SAMPLERS.get(study.search.sampler, "")
    how = f" ({_text(kind)})" if kind else ""
    goals = _list([objective_title(one, metric=records.metric) for one in study.search.objectives])
    budgets = _list([wording.size_label(one) for one in study.search.budget_bytes])
    spent = [f"{len(records.trained)} were trained"]
    if entered := sum(trial.baseline is not None for trial in records.trials):
        spent[0] += f" ({entered} of them baselines that were entered as trials)"
    if counts["infeasible"]:
        spent.append(f"{counts['infeasible']} exceeded every budget and were not")
    if counts["duplicate"]:
        spent.append(f"{counts['duplicate']} repeated another")
    if counts["failed"]:
        spent.append(f"{counts['failed']} failed")
    return [
        (
            rf"A search with Optuna~\cite{{akiba2019optuna}}, sampler "
            rf"{code(study.search.sampler)}{how}, optimises {_text(goals)} within budgets of "
            f"{_text(budgets)}."
        ),
        (
            f"Of {sum(counts.values())} trials {_list(spent)}; training took "
            f"{wording.epochs(study.proxy.short_epochs)} with one seed, and the "
            f"{records.measure.title} was measured on the selection part, which is not trained on."
        ),
    ]


def _baselines(records: RunRecords) -> list[str]:
    kinds = {one.kind: None for one in records.baselines if one.kind != "unpruned"}
    named = []
    for kind in kinds:
        text = _text(BASELINE_METHODS.get(kind, kind))
        cite = r"~\cite{yoosefi2023activation}" if kind == "peak-greedy" else ""
        named.append(f"{code(kind)} ({text}){cite}")
    if not named:
        return []
    return [f"Baselines that need no search: {_list(named)}."]


def _results(records: RunRecords) -> list[str]:
    found = []
    if records.complete:
        share = 100 * float(hypervolume_shares(records)[-1])
        alone = baseline_hypervolume(records)
        beside = "" if alone is None else rf" (the baselines alone: {100 * alone:.1f}\,\%)"
        found.append(
            f"The front has {len(front_trials(records))} members and dominates "
            rf"{share:.1f}\,\% of the box between the ideal point and chance at the unpruned "
            rf"network's cost{beside}; hypervolumes~\cite{{guerreiro2021hypervolume}} are computed "
            r"with moocore~\cite{moocore}."
        )
    return found + _finals(records)


def _finals(records: RunRecords) -> list[str]:
    """Describe the full trainings, and the best finalist within each budget."""
    if not records.finals:
        return []
    metric, epochs = records.measure.title, wording.epochs(records.study.proxy.full_epochs)
    found = [
        (
            f"{len(records.finals)} candidates were fine-tuned in full ({epochs}, "
            f"{wording.final_seeds(records)}) and scored on a validation part that the search "
            "never sees; figures are means and sample standard deviations over the seeds."
        )
    ]
    unpruned = records.unpruned
    whole = records.final_of(unpruned.candidate) if unpruned is not None else None
    if whole is not None:
        found.append(
            f"The unpruned network has {metric} {_score(whole, records.measure)} at "
            f"{_size(whole.peak_bytes)}."
        )
    for budget in records.study.search.budget_bytes:
        finals = [one for one in records.pickable_finals if one is not whole]
        within = [one for one in finals if one.peak_bytes <= budget]
        if within:
            # Chosen on the selection part, so that the validation part only scores it.
            best = max(within, key=lambda one: (one.accuracy, -one.peak_bytes))
            found.append(
                f"Within {_text(wording.size_label(budget))} the best on the selection part is "
                f"{_text(best.label)}: {_score(best, records.measure)} at {_size(best.peak_bytes)}."
            )
    return found


def _software(records: RunRecords) -> str:
    names = ("dse", "python", "torchvision", "optuna")
    versions = [f"{name} {records.versions[name]}" for name in names if name in records.versions]
    torch = f"~{_text(records.versions['torch'])}" if "torch" in records.versions else ""
    used = rf"Everything ran on PyTorch{torch}~\cite{{ansel2024pytorch}}"
    if "torch-pruning" in records.versions:  # releases that pruned with it
        version = records.versions["torch-pruning"]
        versions.append(rf"Torch-Pruning {version}~\cite{{fang2023depgraph}}")
    if versions:
        used += f" with {_list([one if 'cite' in one else _text(one) for one in versions])}"
    machines = dict.fromkeys(
        f"{one.processor}, {one.threads} thread{'' if one.threads == 1 else 's'}"
        for one in records.sessions
    )
    if machines:
        used += f", on {_text('; '.join(machines))}"
    seconds = [one.wall_seconds for one in records.sessions if one.wall_seconds is not None]
    if seconds and len(seconds) == len(records.sessions):
        used += f", in {format_duration(sum(seconds))}"
    return f"{used}. The study's seed is {records.study.seed}."


def _criterion(name: str) -> str:
    meaning = CRITERIA.get(name)
    return code(name) + (f" ({_text(meaning)})" if meaning else "")


def _score(final: FinalRecord, measure: Measure) -> str:
    spread = final.validation_spread
    beside = "" if spread is None else rf" $\pm$ {measure.spread_number(spread)}"
    unit = r"\,\%" if measure.percent else ""
    return f"{measure.number(final.validation_accuracy)}{beside}{unit}"


def _size(size_bytes: float) -> str:
    return _text(format_size(size_bytes)).replace(" ", "~")


def _list(phrases: Sequence[str]) -> str:
    """Join phrases: "a, b and c"."""
    *front, last = phrases
    return f"{', '.join(front)} and {last}" if front else last


def _text(text: str) -> str:
    return latex_escaped(text)
