"""The conditions of a run: its data, software, machine, dates and seeds, for the report."""

from collections.abc import Sequence
from pathlib import Path

from dse.report import wording
from dse.report.escape import markdown_escaped
from dse.results.records import RunRecords
from dse.units import format_duration

NOT_RECORDED = "not recorded"
_VERSIONS = ("dse", "python", "torch", "torchvision", "optuna")


def conditions_markdown(records: RunRecords) -> list[str]:
    """Write the table "Conditions" as lines of Markdown; every value is escaped."""
    rows = [f"| {name} | {markdown_escaped(text)} |" for name, text in conditions(records)]
    return ["| Condition | Value |", "| :--- | :--- |", *rows]


def conditions(records: RunRecords) -> list[tuple[str, str]]:
    """List what somebody needs to know to repeat the run: names and values, unescaped.

    A run of an older release did not store all of it; those values are "not recorded".
    """
    data = records.data
    return [
        ("Data path", _data_path(records)),
        ("Outputs", records.outputs_text),
        ("Images", _images(records)),
        ("Pixel values", data.pixel_values if data and data.pixel_values else NOT_RECORDED),
        (
            "Augmentation",
            data.augmentation if data and data.augmentation else records.study.data.augment,
        ),
        ("Versions", _versions(records)),
        *_sessions(records),
        ("Seeds", wording.seeds(records)),
    ]


def _data_path(records: RunRecords) -> str:
    """Return the folder of the data: relative to the study file where it lies near that file."""
    study = records.study
    if study.data.root is None:
        return "none: the study names no folder"
    root, home = Path(study.data.root), Path.home()
    if study.source_dir is not None:
        beside = Path(study.source_dir)
        for above, prefix in ((beside, Path()), (beside.parent, Path(".."))):
            # Everything is below the topmost folder: being relative to it says nothing.
            if above != Path(above.anchor) and root.is_relative_to(above):
                return str(prefix / root.relative_to(above))
    # The home folder is usually called like its user.
    return f"~/{root.relative_to(home)}" if root.is_relative_to(home) else str(root)


def _images(records: RunRecords) -> str:
    if records.data is None or not records.data.parts:
        return NOT_RECORDED
    return ", ".join(f"{part.name} {part.images:,} ({part.origin})" for part in records.data.parts)


def versions(records: RunRecords) -> list[tuple[str, str]]:
    """Return the names and versions of Python and the packages that the last session used."""
    first = [name for name in _VERSIONS if name in records.versions]
    others = [name for name in records.versions if name not in _VERSIONS]
    return [(name, records.versions[name]) for name in (*first, *others)]


def _versions(records: RunRecords) -> str:
    known = [f"{name} {text}" for name, text in versions(records) if name in _VERSIONS]
    return ", ".join(known) or NOT_RECORDED


def _sessions(records: RunRecords) -> list[tuple[str, str]]:
    sessions = records.sessions
    if not sessions:
        return [(name, NOT_RECORDED) for name in ("Date", "Machine", "Threads", "Wall time")]
    machines = [f"{one.processor}, {_count(one.cores, 'core')}" for one in sessions]
    dates = [f"{one.started} to {one.ended or 'no recorded end'}" for one in sessions]
    if len(dates) > 1:
        dates = [
            f"{len(dates)} sessions, the first {dates[0]}",
            f"the last {dates[-1]}",
        ]
    return [
        ("Date", "; ".join(dates)),
        ("Machine", _distinct(machines)),
        ("Threads", _distinct([str(one.threads) for one in sessions])),
        ("Wall time", _wall_time(records)),
    ]


def _wall_time(records: RunRecords) -> str:
    """Add up the sessions' wall time; count those without a recorded end, which are left out."""
    ended = [one.wall_seconds for one in records.sessions if one.wall_seconds is not None]
    text = f"{format_duration(sum(ended))} in {_count(len(ended), 'session')}" if ended else ""
    without = len(records.sessions) - len(ended)
    if not without:
        return text
    more = f"{_count(without, 'session')} without a recorded end (killed, or still running)"
    return f"{text}, and {more}" if text else more


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _distinct(texts: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
