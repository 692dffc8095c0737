"""A search learns from earlier runs of the same network."""

from dataclasses import replace
from pathlib import Path

import pytest

from dse.errors import ConfigError
from dse.results.records import RunRecords
from dse.sampling.front_sampler import Evaluated
from dse.sampling.search_space import SearchSpace
from dse.search.earlier_runs import check_earlier, earlier_rows
from dse.search.study import carry_out
from support.searches import (
    TRAINED,
    Formula,
    Recorder,
    memory_model,
    resolver,
    search,
    tiny_study,
)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunRecords:
    study = tiny_study(sampler="front", trials=12, uniform_baselines=(0.3, 0.5, 0.7))
    return search(tmp_path_factory.mktemp("earlier") / "first", study)


def warmed(out: Path, *earlier: RunRecords, trials: int = 2, seed: int = 7) -> RunRecords:
    study = tiny_study(sampler="front", trials=trials, uniform_baselines=(0.3, 0.5, 0.7))
    evaluator = Formula(out.parent / TRAINED)
    return carry_out(
        study.model_copy(update={"seed": seed}),
        out=out,
        storage=None,
        observer=Recorder(),
        resolve=resolver(lambda: evaluator),
        earlier=earlier,
    )


def space() -> SearchSpace:
    return SearchSpace.resolve(tiny_study().space, memory_model().groups)


def test_draws_learn_from_an_earlier_run_and_its_trials_are_no_trials_of_this_one(
    tmp_path: Path, first: RunRecords
) -> None:
    cold = warmed(tmp_path / "cold" / "run")
    warm = warmed(tmp_path / "warm" / "run", first)
    assert warm.warm_starts == {f"first {first.study.meaning_digest[:8]}": 16}
    assert cold.warm_starts == {}
    assert len(warm.trials) == len(cold.trials)
    drawn = [
        [one.candidate.digest for one in run.trials if one.baseline is None] for run in (cold, warm)
    ]
    assert drawn[0] != drawn[1]
    best = [max(one.accuracy or 0 for one in run.complete) for run in (cold, warm)]
    assert best[1] >= best[0]


def test_a_resumed_run_still_knows_what_it_learned(tmp_path: Path, first: RunRecords) -> None:
    started = warmed(tmp_path / "run", first, trials=1)
    resumed = warmed(tmp_path / "run", trials=3)
    again = warmed(tmp_path / "run", first, trials=4)
    assert started.warm_starts == resumed.warm_starts == again.warm_starts
    assert len(again.complete) > len(started.complete)


def test_rows_are_read_by_run_and_those_outside_the_space_are_left_out(first: RunRecords) -> None:
    text = first.baselines[0].candidate.canonical_json()
    other = '{"version": 1, "channels": {}, "recipe": {"scheme": "last"}}'
    written = {
        "earlier:a 1:x": [text, 10, 0.5],
        "earlier:b: c 2:y": [other, 20, 0.4],
        "baseline:uniform": {},
    }
    rows = earlier_rows(written)
    assert set(rows) == {"a 1", "b: c 2"}
    assert rows["a 1"] == [(text, 10, 0.5)]
    assert Evaluated(space(), chance=0.3, earlier=rows.values()).earlier is None


def test_another_network_another_sampler_and_empty_runs_are_refused(first: RunRecords) -> None:
    check_earlier(first, space(), sampler="front")
    wider = replace(first, groups=((first.groups[0][0], 999), *first.groups[1:]))
    with pytest.raises(ConfigError, match="other channel groups"):
        check_earlier(wider, space(), sampler="front")
    with pytest.raises(ConfigError, match=r"other channel groups \(0\)"):
        check_earlier(replace(first, groups=()), space(), sampler="front")
    with pytest.raises(ConfigError, match="'tpe' doesn't learn"):
        check_earlier(first, space(), sampler="tpe")
    with pytest.raises(ConfigError, match="no scored baselines and trials"):
        check_earlier(replace(first, trials=()), space(), sampler="front")


def test_a_run_with_enough_candidates_of_its_own_forgets_the_earlier_ones(
    tmp_path: Path, first: RunRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = warmed(tmp_path / "cold" / "run", trials=1)
    monkeypatch.setattr("dse.sampling.propose.OUTGROWN", 4)  # the baselines alone
    warm = warmed(tmp_path / "warm" / "run", first, trials=1)
    drawn = [
        [one.candidate.digest for one in run.trials if one.baseline is None] for run in (cold, warm)
    ]
    assert drawn[0] == drawn[1]
