"""Candidates that are given up at their rung, and those that go on."""

from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.candidate import Candidate
from dse.finetune.rung import Rung
from dse.sampling.climb import FEWEST, Climbed, can_matter, expected
from dse.search.ledger import Ledger
from dse.search.trainer import Trainer
from support.searches import Formula, search, tiny_study, trained
from support.small_study import small_proxy, small_study

shares = st.floats(0, 1)
climbs = st.lists(st.builds(Climbed, st.integers(1, 100), shares, shares), max_size=12)


@given(rung=shares, peak=st.integers(1, 100), climbed=climbs)
def test_what_is_given_up_could_not_have_led_by_any_gain_seen(
    rung: float, peak: int, climbed: list[Climbed]
) -> None:
    if can_matter(rung, peak, climbed):
        return
    assert len(climbed) >= FEWEST
    best = max(one.accuracy for one in climbed if one.peak_bytes <= peak)
    assert all(rung + (one.accuracy - one.rung) < best for one in climbed)


@given(rung=shares, climbed=climbs.filter(len))
def test_more_memory_is_never_in_its_favour(rung: float, climbed: list[Climbed]) -> None:
    kept = [can_matter(rung, peak, climbed) for peak in range(1, 101)]
    assert kept == sorted(kept, reverse=True)
    assert 0 <= expected(rung, climbed) <= 1


def test_a_candidate_alone_at_its_size_goes_on_whatever_it_scores() -> None:
    climbed = [Climbed(50, 0.5, 0.9)] * FEWEST
    assert can_matter(0.0, 49, climbed)
    assert not can_matter(0.0, 50, climbed)
    assert can_matter(0.5, 50, climbed)


def test_a_rung_scores_half_way_and_may_end_the_training() -> None:
    proxy = small_proxy(small_study())
    candidate = Candidate(channels={"first": 4})
    plain = proxy.evaluate(candidate, fidelity="full")
    seen: list[float] = []

    def judge(accuracy: float) -> bool:
        seen.append(accuracy)
        return True

    on = proxy.evaluate(candidate, fidelity="full", rung=Rung(0.5, judge))
    assert seen == [on.rung_accuracy]
    # Being looked at changes nothing of what is learnt.
    assert (on.accuracy, on.loss, on.images_trained) == (
        plain.accuracy,
        plain.loss,
        plain.images_trained,
    )
    assert on.images_forward == plain.images_forward + len(proxy.pruner.data.selection)
    stopped = proxy.evaluate(candidate, fidelity="full", rung=Rung(0.5, lambda _accuracy: False))
    assert stopped.stopped
    assert stopped.accuracy == stopped.rung_accuracy == on.rung_accuracy
    assert stopped.images_trained == pytest.approx(plain.images_trained / 2, abs=16)


def test_a_run_gives_up_and_never_tries_again(tmp_path: Path) -> None:
    study = tiny_study(sampler="random", trials=30, climb=0.5, aim=False, relax=False)
    records = search(tmp_path / "run", study)
    counts = records.trials_by_state
    assert counts["stopped"] > 0
    drawn = [one for one in records.trials if one.baseline is None]
    assert sum(one.state in ("complete", "stopped") for one in drawn) == 30
    for one in drawn:
        if one.state == "stopped":
            assert one.accuracy is None
            assert one.fidelity == "short"
    digests = [line for line in trained(tmp_path / "run") if ":stopped:" in line]
    assert len(digests) == len(set(digests)) == counts["stopped"]
    before = len(trained(tmp_path / "run"))
    assert search(tmp_path / "run", study).trials == records.trials
    assert len(trained(tmp_path / "run")) == before
    front = search(tmp_path / "front", tiny_study(sampler="front", trials=12, climb=0.5))
    assert sum(front.trials_by_state.values()) >= 12


def test_what_was_given_up_is_trained_whole_where_it_must_be(tmp_path: Path) -> None:
    archive = optuna.create_study()
    evaluator = Formula(tmp_path / "log.txt")
    trainer = Trainer(
        Ledger(archive),
        build=lambda: evaluator,
        predict=lambda _candidate: 0,
        on_progress=lambda _share: None,
    )
    candidate = Candidate(channels={"first": 3})
    refuse, accept = Rung(0.5, lambda _accuracy: False), Rung(0.5, lambda _accuracy: True)
    given_up = trainer.score(candidate, fidelity="short", rung=refuse)
    assert given_up.stopped
    assert trainer.score(candidate, fidelity="short", rung=accept) == given_up
    whole = trainer.score(candidate, fidelity="short", rung=accept, whole=True)
    assert not whole.stopped
    assert whole.accuracy > given_up.accuracy
    assert trainer.score(candidate, fidelity="short", rung=refuse) == whole
