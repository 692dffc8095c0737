"""Whether figures of several runs may stand side by side, and what to know where they may."""

import json
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from dse.errors import RunError
from dse.names import TrainedFidelity
from dse.results.grouping import Group, differing, settings_of
from dse.results.records import RunRecords
from dse.units import distinct_sizes

_LONGEST_VALUE = 60
_VERSIONS = ("dse", "torch", "moocore", "optuna")


def check_comparable(runs: Sequence[RunRecords], *, fidelity: TrainedFidelity) -> None:
    """Refuse runs whose data, network, metric or memory convention differ.

    Args:
        runs: the runs.
        fidelity: the training whose accuracies are compared.

    Raises:
        RunError: if figures of two runs mean different things; the message names both runs and the
            values that differ.
    """
    for what, read in _same(fidelity):
        # Runs of older releases don't know everything of themselves.
        known = [(run, value) for run in runs if (value := read(run)) is not None]
        for run, value in known[1:]:
            if value != known[0][1]:
                raise RunError(
                    f"{known[0][0].folder} and {run.folder} can't be compared: they differ in "
                    f"{what} ({_shown(known[0][1])} and {_shown(value)})"
                )


def _same(fidelity: TrainedFidelity) -> list[tuple[str, Callable[[RunRecords], Any]]]:
    """Return what must be the same in all runs, with how to read it."""
    return [
        ("their network", lambda run: run.study.network.name),
        ("the network's options", lambda run: dict(run.study.network.options)),
        ("the network's weights", lambda run: run.study.network.weights_name),
        ("the shape of the network", _fingerprint("network")),
        ("their data", lambda run: run.study.data.name),
        ("the labels of their data", _fingerprint("data.labels")),
        ("their numbers of training, selection and validation images", _images),
        ("the files of their data", _fingerprint("data files (by name and size)")),
        ("their images' size", _image_size),
        ("the preparation of their images", _preparation),
        ("their number of classes", lambda run: run.classes),
        ("their metric", lambda run: run.metric),
        ("their memory convention", lambda run: run.convention),
        ("the device that memory is counted for", lambda run: run.study.training.device),
        (f"the length of their training at {fidelity}, in epochs", _length(fidelity)),
    ]


def _fingerprint(key: str) -> Callable[[RunRecords], Any]:
    return lambda run: run.fingerprint.get(key)


def _images(run: RunRecords) -> object:
    return run.fingerprint.get("data images")


def _image_size(run: RunRecords) -> object:
    return run.study.data.input or run.study.data.image_size


def _preparation(run: RunRecords) -> object:
    data = run.study.data
    return {"mean": data.mean, "std": data.std, "interpolation": data.interpolation} | {
        "crop": data.crop
    }


def _length(fidelity: TrainedFidelity) -> Callable[[RunRecords], Any]:
    """Return how to read the length of a training; "tuned" if each run found its own."""

    def read(run: RunRecords) -> object:
        proxy = run.study.proxy
        if fidelity == "short":
            return proxy.short_epochs
        return "tuned" if run.tuning is not None else proxy.full_epochs

    return read


def cautions(groups: Sequence[Group]) -> tuple[str, ...]:
    """Return one line for each thing that a reader of the comparison should know."""
    runs = [run for group in groups for run in group.runs]
    found = []
    for group in groups:
        found += _same_seeds(group)
        if mixed := differing([settings_of(run) for run in group.runs]):
            names = ", ".join(".".join(keys) for keys in mixed)
            found.append(f"runs of {group.label!r} differ in more than their seed: {names}")
    counts = [len(run.trained) for run in runs]
    if min(counts) != max(counts):
        found.append(
            f"the runs trained {min(counts)} to {max(counts)} candidates: final hypervolumes "
            "compare searches of different cost"
        )
    peaks = [run.unpruned_peak_bytes for run in runs]
    if min(peaks) != max(peaks):
        low, high = distinct_sizes(min(peaks), max(peaks))
        found.append(
            f"the unpruned network needs {low} to {high}, because the runs train it differently"
        )
    if len({(run.study.data.augment, str(run.study.data.transforms)) for run in runs}) > 1:
        found.append("the runs augment their training images differently")
    for name in _VERSIONS:
        versions = sorted({run.versions[name] for run in runs if name in run.versions})
        if len(versions) > 1:
            found.append(f"the runs used different versions of {name}: {', '.join(versions)}")
    if any(not run.fingerprint for run in runs):
        found.append(
            "some runs were made by an older release that did not store what identifies data and "
            "network: only their studies were compared"
        )
    return tuple(found)


def _same_seeds(group: Group) -> list[str]:
    pairs = [
        f"{one.folder} and {other.folder}"
        for one, other in combinations(group.runs, 2)
        if one.study.seed == other.study.seed
    ]
    if not pairs:
        return []
    return [f"runs of {group.label!r} have the same seed, which repeats nothing: {pairs[0]}"]


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
