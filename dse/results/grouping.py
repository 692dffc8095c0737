"""Groups of runs to compare: those that differ in nothing but their seed belong together."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dse.config.leaves import Keys, leaves
from dse.results.records import RunRecords

# Settings that runs of one method may differ in: names, places, and what changes no result.
_FREE = frozenset(
    {
        ("name",),
        ("description",),
        ("seed",),
        ("source_dir",),
        ("data", "root"),
        ("data", "in_memory_limit"),
        ("network", "weights"),  # a path; `dse.results.comparable` checks the file's name
        ("space", "name"),
        ("space", "description"),
        ("training", "threads"),
    }
)
# What the tuning of the unpruned network finds, for each seed anew.
_TUNED = frozenset({("training", "learning_rate"), ("proxy", "full_epochs")})
_LONGEST_LABEL = 48

Settings = Mapping[Keys, Any]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one method over several seeds.

    Attributes:
        label: name in figures and tables.
        runs: at least one run.
    """

    label: str
    runs: tuple[RunRecords, ...]


def grouped(runs: Sequence[RunRecords]) -> tuple[Group, ...]:
    """Group runs whose studies differ in nothing but seed, names and places.

    A group is named after what tells it from the others: its studies' name, or its own values of
    the settings that differ.

    Args:
        runs: the runs; groups are in the order of their first run.
    """
    found: dict[str, list[RunRecords]] = {}
    for run in runs:
        found.setdefault(_key(settings_of(run)), []).append(run)
    labels = _labels([members[0] for members in found.values()])
    return tuple(
        Group(label=label, runs=tuple(members))
        for label, members in zip(labels, found.values(), strict=True)
    )


def settings_of(run: RunRecords) -> Settings:
    """Return the settings that runs of one method share, by their keys."""
    free = _FREE if run.tuning is None else _FREE | _TUNED
    every = leaves(run.study.model_dump(mode="json", exclude_none=True))
    return {keys: value for keys, value in every.items() if keys not in free}


def differing(settings: Sequence[Settings]) -> tuple[Keys, ...]:
    """Return the keys at which any two differ, in the order of a study file."""
    every = dict.fromkeys(keys for one in settings for keys in one)
    return tuple(keys for keys in every if len({_key(one.get(keys)) for one in settings}) > 1)


def _labels(firsts: Sequence[RunRecords]) -> list[str]:
    names = [run.study.name for run in firsts]
    if len(set(names)) == len(names):
        return names
    settings = [settings_of(run) for run in firsts]
    texts = [_described(one, differing(settings)) for one in settings]
    if len(set(texts)) == len(texts) and max(map(len, texts)) <= _LONGEST_LABEL:
        return texts
    times, seen, numbered = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name} {seen[name]}" if times[name] > 1 else name)
    return numbered


def _described(settings: Settings, keys: Sequence[Keys]) -> str:
    """Return a group's own values of the settings that differ: "sampler tpe, trials 24"."""
    return ", ".join(
        f"{key[-1].replace('_', ' ')} {_value(settings[key])}" for key in keys if key in settings
    )


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _key(value: object) -> str:
    if isinstance(value, Mapping):
        value = sorted((list(keys), one) for keys, one in value.items())
    return json.dumps(value, sort_keys=True)
