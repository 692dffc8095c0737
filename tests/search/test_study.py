import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import optuna
import pytest
from optuna.trial import TrialState

from dse.config import GroupRule, SpaceConfig, with_flags
from dse.errors import ConfigError, InfeasibleError, RunError, TrainingError
from dse.results.front import hypervolume
from dse.results.records import RunRecords
from dse.sampling.search_space import SearchSpace
from dse.search.load import load_run
from dse.search.storage_urls import sqlite_url
from dse.search.study import run
from support.searches import (
    BATCH,
    CLASSES,
    KIB,
    Recorder,
    formula,
    memory_model,
    search,
    tiny_study,
    trained,
)

LIMIT = 320 * KIB


def archive(out: Path) -> optuna.Study:
    (name,) = optuna.get_all_study_names(sqlite_url(out / "study.db"))
    return optuna.load_study(study_name=name, storage=sqlite_url(out / "study.db"))


def candidates(records: RunRecords) -> list[str]:
    return [trial.candidate.digest for trial in records.complete]


def test_a_run_does_what_its_study_says(tmp_path: Path) -> None:
    observer = Recorder()
    records = search(tmp_path / "run", observer=observer)

    assert len(records.complete) == 6
    assert [baseline.label for baseline in records.baselines] == ["unpruned", "uniform 0.50"]
    model = memory_model()
    full = [group.channels for group in model.groups]
    assert records.unpruned_peak_bytes == model.peaks(full, batch_size=BATCH)
    assert records.smallest_peak_bytes == model.peaks(
        [math.floor(count * 0.1 + 1e-9) for count in full], batch_size=BATCH
    )
    assert records.reference == {
        "accuracy": 1 / CLASSES,
        "peak_bytes": records.unpruned_peak_bytes,
    }
    assert records.groups == tuple((group.name, group.channels) for group in model.groups)

    for trial in records.complete:
        assert trial.accuracy == formula(trial.candidate)
        assert trial.peak_bytes <= LIMIT
        assert trial.values == {"accuracy": trial.accuracy, "peak_bytes": trial.peak_bytes}
        assert trial.fidelity == "short"
        assert trial.seeds == (1000,)
        assert trial.wall_seconds == 2.0
        assert set(trial.params) == {f"ratio:{name}" for name, _ in records.groups}
    assert all(trial.peak_bytes > LIMIT for trial in records.trials if trial.state == "infeasible")

    finals = {final.label: final for final in records.finals}
    assert len(finals) == 3
    assert finals["unpruned"].trial is None
    assert finals["unpruned"].accuracies == (0.97, 0.969)
    for final in records.finals:
        assert len(final.validation_accuracies) == len(final.seeds) == 2
        if final.trial is not None:
            assert records.trials[final.trial].candidate == final.candidate
    assert (tmp_path / "run" / "study.toml").is_file()
    assert load_run(tmp_path / "run") == records

    assert observer.phases == [("baselines", 2), ("search", 6), ("finalists", 6)]
    assert tuple(observer.trials) == records.trials
    assert len(observer.evaluations) == 2 + 6
    last = observer.progress[-1]
    assert last.states == {k: v for k, v in records.trials_by_state.items() if v}
    assert last.remaining_seconds == 0
    volume = hypervolume(
        [[trial.accuracy or 0.0, trial.peak_bytes] for trial in records.complete],
        reference=[1 / CLASSES, records.unpruned_peak_bytes],
        maximise=[True, False],
    )
    assert last.hypervolume == pytest.approx(
        volume / ((1 - 1 / CLASSES) * records.unpruned_peak_bytes)
    )


def test_every_trial_has_its_constraint_and_its_candidate(tmp_path: Path) -> None:
    search(tmp_path / "run", tiny_study(aim=False, relax=False, sampler="random"))
    trials = archive(tmp_path / "run").get_trials()
    assert {TrialState.COMPLETE, TrialState.PRUNED} == {trial.state for trial in trials}
    for trial in trials:
        peak_bytes = trial.user_attrs["peak_bytes"]
        assert trial.constraints == {"peak_bytes": peak_bytes - LIMIT}
        assert trial.user_attrs["candidate"].startswith("{")


def test_going_on_trains_only_what_is_new(finished: Path) -> None:
    out = finished
    first = load_run(out)
    before = trained(out)
    assert search(out) == first
    assert trained(out) == before

    second = search(out, tiny_study(trials=8))
    assert second.trials[: len(first.trials)] == first.trials
    assert len(second.complete) == 8
    after = trained(out)
    assert len(after) == len(set(after))
    draws = [tuple(trial.params.values()) for trial in second.trials]
    assert len(draws) == len(set(draws))


@pytest.mark.parametrize("sampler", ["front", "nsga2", "random"])
def test_a_run_in_two_parts_finds_what_one_run_finds(tmp_path: Path, sampler: str) -> None:
    settings = {"sampler": sampler, "budgets": (600 * KIB,), "finalists": 1}
    one = search(tmp_path / "one" / "run", tiny_study(trials=6, **settings))
    parts = tmp_path / "parts" / "run"
    search(parts, tiny_study(trials=3, **settings))
    assert candidates(search(parts, tiny_study(trials=6, **settings))) == candidates(one)


def test_another_seed_draws_other_ratios(tmp_path: Path, whole: Path) -> None:
    other = tiny_study(trials=2).model_copy(update={"seed": 1})
    drawn, before = (
        {ratio for trial in records.trials for ratio in trial.params.values()}
        for records in (search(tmp_path / "run", other), load_run(whole))
    )
    assert not drawn & before


def test_draws_are_aimed_at_the_ends_and_the_budgets_and_keep_their_parameters(whole: Path) -> None:
    records = load_run(whole)
    trials = archive(whole).get_trials()
    aimed = [trial.user_attrs["target_bytes"] for trial in trials]
    assert aimed[:3] == [LIMIT, 200 * KIB, records.smallest_peak_bytes]
    assert len(set(aimed)) == len(aimed)
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.9)), memory_model().groups)
    for trial, record, target_bytes in zip(trials, records.trials, aimed, strict=True):
        assert record.params == trial.params
        assert 0.9 * target_bytes < record.peak_bytes <= target_bytes
    # What was drawn is not what was evaluated.
    assert any(
        space.candidate(trial.params) != record.candidate
        for trial, record in zip(trials, records.trials, strict=True)
    )


def test_baselines_are_trials_that_cost_nothing_and_are_entered_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = tiny_study(trials=2, budgets=(600 * KIB,), uniform_baselines=(0.5, 0.75, 0.95))
    records = search(out, study)
    seeded = [trial for trial in records.trials if trial.baseline is not None]
    # 0.95 is outside the space, and the unpruned network over every budget
    assert [trial.baseline for trial in seeded] == ["uniform 0.50", "uniform 0.75"]
    assert len(records.complete) == 2 + len(seeded)
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.9)), memory_model().groups)
    by_label = {baseline.label: baseline for baseline in records.baselines}
    for trial in seeded:
        assert trial.baseline is not None
        same = by_label[trial.baseline]
        assert (trial.candidate, trial.accuracy, trial.peak_bytes, trial.wall_seconds) == (
            same.candidate,
            same.accuracy,
            same.peak_bytes,
            0.0,
        )
        assert space.candidate(trial.params) == trial.candidate
    assert len(trained(out)) == len(set(trained(out)))
    assert {final.label for final in records.finals} - {"unpruned"} <= {
        *by_label,
        *(f"trial {trial.number}" for trial in records.trials if trial.baseline is None),
    }
    again = search(
        out, study.model_copy(update={"search": study.search.model_copy(update={"trials": 3})})
    )
    assert [trial.baseline for trial in again.trials].count("uniform 0.50") == 1
    assert again.trials[: len(records.trials)] == records.trials


def test_every_operator_can_be_switched_off(tmp_path: Path) -> None:
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.9)), memory_model().groups)
    off = tiny_study(aim=False, relax=False, gate=False, sampler="random", trials=8)
    records = search(tmp_path / "off" / "run", off)
    assert records.trials_by_state["complete"] == len(records.trials) == 8
    assert any(trial.peak_bytes > LIMIT for trial in records.trials)
    for trial in records.trials:
        assert trial.candidate == space.candidate(trial.params)
    assert all(final.peak_bytes <= LIMIT for final in records.finals if final.trial is not None)
    for trial in archive(tmp_path / "off" / "run").get_trials():
        assert "target_bytes" not in trial.user_attrs
        assert trial.constraints["peak_bytes"] == trial.user_attrs["peak_bytes"] - LIMIT


def test_all_objectives_reach_the_storage_in_the_studys_order(tmp_path: Path) -> None:
    objectives = ("peak_bytes", "macs_forward", "accuracy", "inference_peak_bytes", "parameters")
    records = search(tmp_path / "run", tiny_study(trials=3, objectives=objectives))
    directions = [direction.name for direction in archive(tmp_path / "run").directions]
    assert directions == ["MINIMIZE", "MINIMIZE", "MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert all(tuple(trial.values) == objectives for trial in records.complete)
    assert set(records.reference) == set(objectives)


def test_a_space_that_holds_nothing_but_baselines_ends_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.search.loop.GATED_IN_A_ROW", 30)
    # One group of few channels is free: every draw must meet a baseline.
    study = tiny_study(
        trials=3, sampler="random", budgets=(1024 * KIB,), uniform_baselines=(0.5, 0.75)
    )
    rules = (
        GroupRule(pattern="first", ratio=(0.4, 0.74), multiple=8),
        GroupRule(pattern="*", fixed=0.0),
    )
    space = SpaceConfig(ratio=(0.0, 0.9), group=rules)
    study = study.model_copy(update={"space": space})
    out = tmp_path / "run"
    observer = Recorder()
    records = search(out, study, observer=observer)
    assert len(records.complete) == 2  # 16 and 8 of 32 channels, and no others
    assert [trial.baseline for trial in records.complete] == ["uniform 0.50", "uniform 0.75"]
    assert len(trained(out)) == len(set(trained(out)))
    digests = {trial.number: trial.candidate.digest for trial in records.complete}
    duplicates = [trial for trial in records.trials if trial.state == "duplicate"]
    assert len(duplicates) >= 30
    for trial in duplicates:
        assert trial.duplicate_of is not None
        assert digests[trial.duplicate_of] == trial.candidate.digest
    assert len([one for one in observer.messages if "largest budget" in one]) == 1
    assert "ends after 0 of 3 candidates" in observer.messages[-1]
    assert len([line for line in trained(out) if ":short:" in line]) == 3  # the baselines alone


def test_an_impossible_budget_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(InfeasibleError, match=r"search.budgets.*smallest network"):
        search(out, tiny_study(budgets=(1000,)))
    assert trained(out) == []
    # nothing was begun, so the folder is free for the corrected study
    assert len(search(out).complete) == 6


def test_a_budget_of_images_ends_the_search_with_baselines_counted(tmp_path: Path) -> None:
    observer = Recorder()
    study = tiny_study(images=500)  # 100 for each training
    records = search(tmp_path / "run", study, observer=observer)
    assert len(records.complete) == 3  # and 2 baselines
    assert len(records.finals) == 3  # are trained all the same
    assert observer.messages == [
        "the search ends after 3 candidates: 500 images were trained, of search.images = 500"
    ]


def test_trainings_that_diverged_count_towards_the_images(tmp_path: Path) -> None:
    study = tiny_study(images=500)
    records = search(tmp_path / "run", study, before=diverging(3, 5))
    assert len(records.complete) == 1  # of 2 baselines and 3 trainings
    assert len(search(tmp_path / "run", study).complete) == 1


def test_a_level_hypervolume_ends_the_search_and_keeps_it_ended(tmp_path: Path) -> None:
    observer = Recorder()
    study = tiny_study(trials=40, sampler="random", level_window=3, level_gain=0.02)
    records = search(tmp_path / "run", study, observer=observer)
    volumes = [one.hypervolume for one in observer.progress if one.phase == "search"]
    states = [trial.state for trial in observer.trials]
    trained_volumes = [
        volume for volume, state in zip(volumes, states, strict=True) if state == "complete"
    ]
    assert 3 < len(trained_volumes) < 40
    assert trained_volumes[-1] - trained_volumes[-4] < 0.02
    for last in range(3, len(trained_volumes) - 1):
        assert trained_volumes[last] - trained_volumes[last - 3] >= 0.02
    assert "less than search.level_gain = 0.02" in observer.messages[0]
    assert search(tmp_path / "run", study).trials == records.trials
    off = study.model_copy(
        update={"search": study.search.model_copy(update={"level_window": None, "trials": 12})}
    )
    assert len(search(tmp_path / "run", off).complete) >= 12


def test_the_timeout_ends_the_search_but_not_the_finalists(tmp_path: Path) -> None:
    records = search(tmp_path / "run", tiny_study(timeout=1e-9))
    assert records.trials == ()
    assert [final.label for final in records.finals] == ["unpruned"]
    assert len(search(tmp_path / "run").complete) == 6


def diverging(*counts: int) -> Callable[[int], None]:
    def before(count: int) -> None:
        if count in counts:
            error = TrainingError(f"loss is nan in training {count}")
            error.images_trained = 100
            raise error

    return before


def test_a_diverging_candidate_fails_alone_and_is_never_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    records = search(out, before=diverging(4, 5, 7))  # 1 and 2 are the baselines
    failed = [trial for trial in records.trials if trial.state == "failed"]
    assert len(failed) == len(records.complete) == 3  # six candidates, as the study asks for
    (first, *_) = (t for t in archive(out).get_trials() if t.state is TrialState.FAIL)
    assert first.user_attrs["message"] == "loss is nan in training 4"
    assert first.constraints["peak_bytes"] <= 0
    assert all(trial.accuracy is None for trial in failed)
    assert [trial.failure for trial in failed] == [
        f"loss is nan in training {count}" for count in (4, 5, 7)
    ]


def test_three_diverging_candidates_in_a_row_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"3 candidates in a row .* nan in training 5"):
        search(tmp_path / "run", before=diverging(3, 4, 5))
    assert load_run(tmp_path / "run").trials_by_state["failed"] == 3


def test_the_unpruned_network_that_diverges_in_full_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="unpruned at fidelity full: loss is nan"):
        search(tmp_path / "run", before=diverging(9))


def test_a_diverging_finalist_is_left_out_and_named(tmp_path: Path) -> None:
    observer = Recorder()
    records = search(tmp_path / "run", before=diverging(12), observer=observer)
    assert len(records.finals) == 2
    assert len(observer.messages) == 1
    assert "failed and is left out: loss is nan in training 12" in observer.messages[0]


def test_an_accuracy_that_is_not_finite_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.searches.formula", lambda _candidate: math.nan)
    with pytest.raises(TrainingError, match=r"baseline unpruned: .* accuracy nan is not finite"):
        search(tmp_path / "run")


def test_a_bug_beside_the_training_fails_the_trial_and_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def bug(*_args: object, **_settings: object) -> NoReturn:
        raise ZeroDivisionError("oh")

    with monkeypatch.context() as broken:
        broken.setattr("dse.search.loop.climbed_before", bug)
        with pytest.raises(ZeroDivisionError):
            search(out)
    (trial,) = (t for t in archive(out).get_trials() if t.state is TrialState.FAIL)
    assert trial.user_attrs["message"] == "ZeroDivisionError: oh"
    assert len(search(out).complete) == 5  # the failed one is of the study's six


def test_other_settings_are_refused_by_name(finished: Path) -> None:
    out = finished
    other = tiny_study(budgets=(300 * KIB,))
    with pytest.raises(RunError, match=r'search\.budgets = \["200 KiB", "320 KiB"\], now it is'):
        search(out, other)
    with pytest.raises(RunError, match=r"seed = 0, now it is 7.*--out"):
        search(out, with_flags(tiny_study(), trials=None, timeout=None, seed=7))
    with pytest.raises(RunError, match=r"search\.metric = .accuracy., now it is .macro-f1."):
        search(out, tiny_study(metric="macro-f1"))


def test_a_changed_network_is_refused(finished: Path) -> None:
    out = finished
    text = (out / "run.json").read_text(encoding="utf-8")
    (out / "run.json").write_text(text.replace("residual", "another"), encoding="utf-8")
    with pytest.raises(RunError, match="network = another, now it is residual"):
        search(out)


def test_flags_take_the_place_of_the_studys_values() -> None:
    study = with_flags(tiny_study(), trials=99, timeout=3.5, seed=5)
    assert (study.search.trials, study.search.timeout, study.seed) == (99, 3.5, 5)
    assert with_flags(study, trials=None, timeout=None, seed=None) == study


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ({"timeout": 0.0}, r"--timeout 0: search\.timeout must be greater than 0"),
        ({"seed": 2**32}, r"--seed 4294967296: seed must be less than 4294967296"),
        ({"trials": 0}, r"--trials 0: search\.trials must be greater than or equal to 1"),
    ],
)
def test_flags_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, flag: dict[str, float], message: str
) -> None:
    given = {"trials": None, "timeout": None, "seed": None, **flag}
    with pytest.raises(ConfigError, match=message):
        run(tiny_study(), out=tmp_path / "run", **given)
    assert list(tmp_path.iterdir()) == []


def test_another_storage_is_remembered_and_shared(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "shared.db")
    here, there = tmp_path / "here", tmp_path / "there"
    first = search(here, storage=url)
    assert not (here / "study.db").exists()
    assert load_run(here) == first
    assert search(here) == first  # without naming the storage again
    # The same study in another folder takes part in the same search.
    count = len(trained(here))
    assert search(there, storage=url).trials == first.trials
    assert len(trained(there)) == count
    with pytest.raises(RunError, match="keeps its trials in sqlite:"):
        search(here, storage=sqlite_url(tmp_path / "third.db"))


def test_an_unreachable_storage_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^storage sqlite:.* can't be opened: No such file"):
        search(tmp_path / "run", storage="sqlite:////nowhere/study.db")
