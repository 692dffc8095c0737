"""Comparisons: groups, hypervolumes, histories, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse.candidate import Candidate
from dse.errors import RunError
from dse.report.selection import hypervolume_shares
from dse.results.comparison import Comparison, compare, points_of
from dse.results.grouping import Group, grouped
from dse.results.records import RunRecords
from dse.results.reference import Tuning
from dse.results.seeds import mean_interval, ratio_interval
from support.several import made_run, two_methods


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(grouped(two_methods()))


def changed(run: RunRecords, table: str, **values: Any) -> RunRecords:
    """The run as if its study had other settings in a table."""
    own = getattr(run.study, table).model_copy(update=values)
    return replace(run, study=run.study.model_copy(update={table: own}))


def test_runs_that_differ_in_their_seed_alone_are_one_group(comparison: Comparison) -> None:
    assert [group.label for group in comparison.groups] == ["sampler front", "sampler tpe"]
    assert [len(group.runs) for group in comparison.groups] == [4, 4]
    assert comparison.notes[0].startswith("the runs trained ")


def test_names_and_places_make_no_group_but_name_it() -> None:
    one, other = made_run(seed=0), made_run(seed=1)
    study = other.study.model_copy(update={"name": "other", "description": "again"})
    moved = changed(replace(other, study=study), "training", threads=3)
    assert [group.label for group in grouped([one, moved])] == ["digits"]
    faster = changed(moved, "training", learning_rate=0.5)
    assert [group.label for group in grouped([one, faster])] == ["digits", "other"]


def test_tuned_settings_make_no_group() -> None:
    tuning = Tuning(learning_rate=0.5, full_epochs=3.0)
    runs = [
        changed(
            changed(replace(made_run(seed=seed), tuning=tuning), "training", learning_rate=rate),
            "proxy",
            full_epochs=epochs,
        )
        for seed, rate, epochs in ((0, 0.1, 2.0), (1, 0.4, 3.0))
    ]
    assert len(grouped(runs)) == 1
    compare(grouped(runs), fidelity="full")


def test_long_labels_are_numbered() -> None:
    runs = [made_run(seed=0, uniform_baselines=(one / 7, one / 3)) for one in (0.5, 0.75)]
    runs = [changed(run, "space", floor=floor) for floor, run in enumerate(runs, start=1)]
    assert [group.label for group in grouped(runs)] == ["digits 1", "digits 2"]


def test_hypervolumes_are_those_of_the_report(comparison: Comparison) -> None:
    for group in comparison.groups:
        for run, share in zip(group.runs, comparison.hypervolumes(group), strict=True):
            assert share == pytest.approx(hypervolume_shares(run)[-1])
        estimate = comparison.hypervolume(group)
        shares = comparison.hypervolumes(group)
        assert estimate.mean == pytest.approx(shares.mean())
        assert estimate.interval == mean_interval(shares.tolist())


def test_histories_end_where_hypervolumes_are(comparison: Comparison) -> None:
    for group in comparison.groups:
        histories = comparison.histories(group)
        counts = [len(run.complete) for run in group.runs]
        assert histories.shape == (len(group.runs), min(counts))
        assert np.all(np.diff(histories, axis=1) >= 0)
        shortest = counts.index(min(counts))
        assert histories[shortest, -1] == pytest.approx(comparison.hypervolumes(group)[shortest])


def test_a_stopped_candidate_counts_as_trained() -> None:
    run = made_run()
    first = next(trial for trial in run.trials if trial.state == "complete")
    stopped = replace(first, state="stopped", accuracy=None, values={})
    trials = tuple(stopped if trial is first else trial for trial in run.trials)
    group = Group(label="a", runs=(replace(run, trials=trials), made_run(seed=1)))
    history = compare([group]).histories(group)[0]
    assert history[0] == 0
    assert history[1] > 0


def test_another_reference_point_scales_all(comparison: Comparison) -> None:
    smaller = compare(comparison.groups, reference_peak_bytes=32 * 2**20)
    run = comparison.groups[0].runs[0]
    points = points_of(run, fidelity="short")
    assert smaller.hypervolumes(smaller.groups[0])[0] != pytest.approx(
        comparison.hypervolumes(comparison.groups[0])[0]
    )
    # Only what is smaller than the reference counts, and a point at it adds nothing.
    tiny = compare(comparison.groups, reference_peak_bytes=int(points[:, 0].min()))
    assert tiny.hypervolumes(tiny.groups[0])[0] == 0
    assert tiny.ratio(tiny.groups[1]) is None or tiny.hypervolumes(tiny.groups[0]).any()


def test_the_ratio_is_to_the_first_group(comparison: Comparison) -> None:
    first, second = comparison.groups
    assert comparison.ratio(first) is None
    ratio = comparison.ratio(second)
    ours, theirs = (comparison.hypervolumes(one) for one in (second, first))
    assert ratio is not None
    assert ratio.mean == pytest.approx(ours.mean() / theirs.mean())
    assert ratio.interval == ratio_interval(ours.tolist(), theirs.tolist())


def test_bands_are_quartiles_only_of_four_runs_or_more(comparison: Comparison) -> None:
    assert comparison.band_percents == (25, 75)
    assert compare(grouped(two_methods(seeds=3))).band_percents == (0, 100)


def test_the_best_within_a_budget_is_the_best_that_fits(comparison: Comparison) -> None:
    group = comparison.groups[0]
    size = comparison.budgets[0]
    for run, best in zip(group.runs, comparison.best_within(group, size), strict=True):
        fitting = [one.accuracy or 0 for one in run.complete if one.peak_bytes <= size]
        assert best == max(fitting)
    assert np.isnan(comparison.best_within(group, 1)).all()


def test_full_scores_the_searchs_own_finalists(comparison: Comparison) -> None:
    full = compare(comparison.groups, fidelity="full")
    run = full.groups[0].runs[0]
    points = points_of(run, fidelity="full")
    own = [one for one in run.finals if one.trial is not None]
    assert len(points) == len(own)
    assert len(own) < len(run.finals)  # the unpruned network is no finding of the search
    assert set(points[:, 1]) == {one.validation_accuracy for one in own}


REFUSED: list[tuple[str, Callable[[RunRecords], RunRecords]]] = [
    ("their network", lambda run: changed(run, "network", name="torchvision:resnet18")),
    ("the network's options", lambda run: changed(run, "network", options={"width": 2})),
    ("the network's weights", lambda run: changed(run, "network", weights="w.safetensors")),
    ("their data", lambda run: changed(run, "data", name="folder", root="/photos")),
    ("their images' size", lambda run: changed(run, "data", image_size=64)),
    ("the preparation of their images", lambda run: changed(run, "data", crop=0.9)),
    ("their metric", lambda run: changed(run, "search", metric="macro-f1")),
    ("the device that memory is counted for", lambda run: changed(run, "training", device="cuda")),
    ("the length of their training at short", lambda run: changed(run, "proxy", short_epochs=9.0)),
    ("their memory convention", lambda run: replace(run, convention="allocator")),
    ("their number of classes", lambda run: replace(run, classes=99)),
    *(
        (
            what,
            lambda run, key=key, value=value: replace(
                run, fingerprint={**run.fingerprint, key: value}
            ),
        )
        for what, key, value in (
            ("the shape of the network", "network", "4567"),
            ("the labels of their data", "data.labels", ["7", "8"]),
            ("their numbers of training, selection and validation images", "data images", [1]),
        )
    ),
]


@pytest.mark.parametrize(("what", "change"), REFUSED)
def test_what_means_something_else_is_refused_in_one_line(
    what: str, change: Callable[[RunRecords], RunRecords]
) -> None:
    other = change(made_run(seed=1, folder="other"))
    with pytest.raises(RunError) as caught:
        compare([Group(label="a", runs=(made_run(), other))])
    message = str(caught.value)
    assert message.startswith("runs/front-0 and runs/other can't be compared: they differ in ")
    assert what in message
    assert "\n" not in message


def test_what_an_older_release_did_not_store_is_flagged() -> None:
    old = replace(made_run(seed=1), fingerprint={})
    notes = compare([Group(label="a", runs=(made_run(), old))]).notes
    assert any("older release" in note for note in notes)


def test_mixed_settings_seeds_recipes_and_versions_are_flagged() -> None:
    one = replace(made_run(folder="one"), versions={"torch": "2.14"})
    other = changed(made_run(folder="other", sampler="tpe"), "data", augment="flip")
    other = replace(other, versions={"torch": "2.15"}, unpruned_peak_bytes=2**20)
    notes = "\n".join(compare([Group(label="a", runs=(one, other))]).notes)
    for part in (
        "runs of 'a' have the same seed, which repeats nothing: runs/one and runs/other",
        "runs of 'a' differ in more than their seed: data.augment, search.sampler",
        "the unpruned network needs 1.0 MiB to 64.0 MiB",
        "augment their training images differently",
        "different versions of torch: 2.14, 2.15",
    ):
        assert part in notes


@pytest.mark.parametrize("size", [0, -1])
def test_a_reference_point_without_memory_is_refused(comparison: Comparison, size: int) -> None:
    with pytest.raises(RunError, match="give 1 or more"):
        compare(comparison.groups, reference_peak_bytes=size)


def test_too_few_the_same_and_empty_runs_are_refused() -> None:
    run = made_run()
    empty = replace(made_run(seed=1), trials=(), finals=())
    unfinished = replace(made_run(seed=1), finals=())
    for runs, fidelity, message in (
        ((run,), "short", "at least two runs"),
        ((run, replace(run, folder=Path("runs/../runs/front-0"))), "short", "is given twice"),
        ((run, empty), "short", "has trained no candidate yet"),
        ((run, unfinished), "full", "trained in full yet"),
    ):
        with pytest.raises(RunError, match=message):
            compare([Group(label="a", runs=runs)], fidelity=fidelity)  # type: ignore[arg-type]


def test_a_baseline_that_no_sampler_drew_does_not_count_at_full() -> None:
    run = made_run()
    final = replace(run.finals[0], trial=None, label="b", candidate=Candidate(channels={"stem": 1}))
    more = replace(run, finals=(final, *run.finals))
    points, again = (points_of(one, fidelity="full") for one in (run, more))
    assert np.array_equal(points, again)
