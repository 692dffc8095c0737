"""The records of a run as pandas frames, with the unit of each figure in its column's name."""

from collections.abc import Sequence

import pandas as pd

from dse.candidate import Candidate, with_recipe
from dse.report.selection import front_trials, knee_trial
from dse.results.candidate_records import BaselineRecord, FinalRecord, TrialRecord
from dse.results.records import RunRecords
from dse.results.ties import ties_of

Cell = str | int | float | bool | None | tuple[str, ...]
Row = dict[str, Cell]

_OWN_COLUMNS = ("accuracy", "peak_bytes")  # objectives whose columns are named otherwise


def score_column(records: RunRecords) -> str:
    """Return the name of the column of the study's metric, such as `accuracy_percent`."""
    name = records.metric.rpartition(":")[2].replace("-", "_")
    return f"{name}_percent" if records.measure.percent else name


def trials_frame(records: RunRecords) -> pd.DataFrame:
    """Return one row for each trial, by number.

    Columns: `state`, `fidelity`, the metric in percent on the selection part, `peak_bytes`, other
    objectives by name, `on_front`, `wall_seconds`, `duplicate_of`, `baseline`, `failure`, the
    recipe, and `ratio.GROUP` (removed share, 0 to 1) for each channel group.
    """
    front = {trial.number for trial in front_trials(records)}
    return _frame(
        [_trial_row(records, one, on_front=one.number in front) for one in records.trials],
        columns=[
            "number",
            "state",
            "fidelity",
            score_column(records),
            "peak_bytes",
            *_other_objectives(records),
            "on_front",
            "wall_seconds",
            "duplicate_of",
            "baseline",
            "failure",
            *_candidate_columns(records),
        ],
        index="number",
        whole=("duplicate_of",),
    )


def front_frame(records: RunRecords) -> pd.DataFrame:
    """Return the trials on the front, smallest peak first, with their full training if any.

    Columns: those of the trials that tell members apart, `is_knee`, and mean and standard
    deviation over the seeds on the validation part.
    """
    score = score_column(records)
    bend = knee_trial(records)
    rows: list[Row] = []
    for trial in front_trials(records):
        final = records.final_of(trial.candidate)
        mean, spread = (
            (None, None) if final is None else (final.validation_accuracy, final.validation_spread)
        )
        rows.append(
            {
                **_trial_row(records, trial, on_front=True),
                "is_knee": trial is bend,
                f"validation_{score}_mean": _shown(records, mean),
                f"validation_{score}_std": _shown_spread(records, spread),
            }
        )
    columns = [
        "number",
        score,
        "peak_bytes",
        *_other_objectives(records),
        "is_knee",
        f"validation_{score}_mean",
        f"validation_{score}_std",
        *_candidate_columns(records),
    ]
    return _frame(rows, columns=columns, index="number")


def finals_frame(records: RunRecords) -> pd.DataFrame:
    """Return what was fine-tuned in full, smallest peak first.

    Columns: `trial`, `peak_bytes`, number of seeds, mean and standard deviation of the metric on
    both parts, `step_seconds`, `tied_with` (labels; missing where no test is possible), the recipe
    and the ratios.
    """
    score = score_column(records)
    figures = [f"{part}_{score}_{what}" for part in _PARTS for what in ("mean", "std")]
    columns = ["label", "trial", "peak_bytes", "seeds", *figures, "step_seconds", "tied_with"]
    return _frame(
        [_final_row(records, final) for final in records.finals],
        columns=[*columns, *_candidate_columns(records)],
        index="label",
        whole=("trial",),
    )


def baselines_frame(records: RunRecords) -> pd.DataFrame:
    """Return the baselines: kind, metric on the selection part, peak, recipe and ratios."""
    score = score_column(records)
    rows: list[Row] = [
        {
            "label": one.label,
            "kind": one.kind,
            score: _shown(records, one.accuracy),
            "peak_bytes": one.peak_bytes,
            **_objective_cells(records, one),
            **_candidate_cells(records, one.candidate),
        }
        for one in records.baselines
    ]
    columns = ["label", "kind", score, "peak_bytes", *_other_objectives(records)]
    return _frame(rows, columns=[*columns, *_candidate_columns(records)], index="label")


_PARTS = ("selection", "validation")
_RECIPE = (
    "drop",
    "scheme",
    "batch_size",
    "accumulate",
    "image_size_pixels",
    "checkpointing",
    "engine",
    "optimizer",
    "learning_rate",
    "importance",
    "reconstruct",
)


def _trial_row(records: RunRecords, trial: TrialRecord, *, on_front: bool) -> Row:
    return {
        "number": trial.number,
        "state": trial.state,
        "fidelity": trial.fidelity,
        score_column(records): _shown(records, trial.accuracy),
        "peak_bytes": trial.peak_bytes,
        **_objective_cells(records, trial),
        "on_front": on_front,
        "wall_seconds": trial.wall_seconds,
        "duplicate_of": trial.duplicate_of,
        "baseline": trial.baseline,
        "failure": trial.failure,
        **_candidate_cells(records, trial.candidate),
    }


def _final_row(records: RunRecords, final: FinalRecord) -> Row:
    score = score_column(records)
    return {
        "label": final.label,
        "trial": final.trial,
        "peak_bytes": final.peak_bytes,
        "seeds": len(final.accuracies),
        f"selection_{score}_mean": _shown(records, final.accuracy),
        f"selection_{score}_std": _shown_spread(records, final.spread),
        f"validation_{score}_mean": _shown(records, final.validation_accuracy),
        f"validation_{score}_std": _shown_spread(records, final.validation_spread),
        "step_seconds": final.step_seconds,
        "tied_with": ties_of(final, records.finals),
        **_candidate_cells(records, final.candidate),
    }


def _other_objectives(records: RunRecords) -> list[str]:
    return [name for name in records.study.search.objectives if name not in _OWN_COLUMNS]


def _objective_cells(records: RunRecords, one: TrialRecord | BaselineRecord) -> Row:
    found = one.values  # noqa: PD011  # a record's objectives
    return {name: found.get(name) for name in _other_objectives(records)}


def _candidate_columns(records: RunRecords) -> list[str]:
    return [*_RECIPE, *(f"ratio.{name}" for name, _ in records.groups)]


def _candidate_cells(records: RunRecords, candidate: Candidate) -> Row:
    """Return the recipe with the study's own values filled in, and the ratio of each group."""
    own = with_recipe(records.study, candidate.recipe)
    training, proxy = own.training, own.proxy
    return {
        "drop": candidate.drop or "",
        "scheme": training.scheme,
        "batch_size": training.batch_size,
        "accumulate": training.accumulate,
        "image_size_pixels": own.data.image_size,
        "checkpointing": training.checkpointing,
        "engine": training.engine,
        "optimizer": training.optimizer,
        "learning_rate": training.learning_rate,
        "importance": proxy.importance,
        "reconstruct": proxy.reconstruct,
        **{
            f"ratio.{name}": 1 - candidate.channels.get(name, full) / full
            for name, full in records.groups
        },
    }


def _shown(records: RunRecords, score: float | None) -> float | None:
    return None if score is None else records.measure.shown(score)


def _shown_spread(records: RunRecords, spread: float | None) -> float | None:
    return None if spread is None else records.measure.shown_spread(spread)


def _frame(
    rows: Sequence[Row], *, columns: Sequence[str], index: str, whole: Sequence[str] = ()
) -> pd.DataFrame:
    """Build a frame; whole numbers that may be missing keep their type."""
    frame = pd.DataFrame(list(rows), columns=list(columns)).set_index(index)
    scores = [name for name in columns if "_percent" in name or name.endswith(("_mean", "_std"))]
    return frame.astype({**dict.fromkeys(whole, "Int64"), **dict.fromkeys(scores, "float64")})
