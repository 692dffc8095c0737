import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.candidate import Candidate
from dse.deploy.choice import Pick
from dse.deploy.contenders import pools
from dse.deploy.devices import find_device
from dse.deploy.limits import Limit
from dse.deploy.measure import Measure
from dse.deploy.pick import pick, picks_for
from dse.deploy.remedies import LeastDrop, size_above, suggested_flags
from dse.errors import ConfigError, RunError
from dse.results.candidate_records import BaselineRecord, FinalRecord, TrialRecord
from dse.results.front import knee
from dse.results.records import RunRecords
from dse.units import parse_size
from support.runs import make_records, make_study

MIB = 2**20
SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "schemas" / "pick-1.json").read_text("utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@dataclass(frozen=True)
class Step:
    peak_bytes: int
    step_seconds: float = 0.5


def candidate(kept: int | None) -> Candidate:
    return Candidate() if kept is None else Candidate(channels={"stem": kept})


def final(
    kept: int | None, mib: float, selection: float, validation: float | None = None
) -> FinalRecord:
    return FinalRecord(
        label="unpruned" if kept is None else f"trial {kept}",
        trial=kept,
        candidate=candidate(kept),
        peak_bytes=round(mib * MIB),
        accuracies=(selection,),
        validation_accuracies=(selection if validation is None else validation,),
        step_seconds=0.1,
    )


def trial(kept: int, mib: float, accuracy: float) -> TrialRecord:
    return TrialRecord(
        number=kept,
        state="complete",
        params={},
        candidate=candidate(kept),
        peak_bytes=round(mib * MIB),
        accuracy=accuracy,
        values={"accuracy": accuracy, "peak_bytes": mib * MIB},
        fidelity="short",
    )


def run(
    *finals: FinalRecord,
    trials: tuple[TrialRecord, ...] = (),
    whole: tuple[float, float] | None = (60.0, 0.9),
) -> RunRecords:
    """A run with an unpruned baseline of (MiB, accuracy) and what is given."""
    baselines = ()
    if whole is not None:
        mib, accuracy = whole
        baselines = (
            BaselineRecord(
                label="unpruned",
                kind="unpruned",
                ratio=0.0,
                candidate=candidate(None),
                peak_bytes=round(mib * MIB),
                accuracy=accuracy,
                values={"accuracy": accuracy, "peak_bytes": mib * MIB},
            ),
        )
    return replace(
        make_records(trials=0, finals=0), trials=trials, baselines=baselines, finals=finals
    )


def exact(records: RunRecords, **held: int) -> Measure:
    """Measure what was predicted, save where `held` gives bytes by kept channels (k7=...)."""
    predicted: Mapping[str, int] = {
        one.candidate.digest: one.peak_bytes
        for one in (*records.finals, *records.complete, *records.baselines)
    }
    other = {candidate(int(key[1:])).digest: size for key, size in held.items()}

    def measure(one: Candidate) -> Step:
        return Step({**predicted, **other}[one.digest])

    return measure


def inexact(records: RunRecords, excess: float) -> Measure:
    """Measure a multiple of what was predicted."""
    predicted = exact(records)
    return lambda one: Step(round(predicted(one).peak_bytes * excess))


def choose(
    records: RunRecords,
    ram: float | None,
    *,
    max_drop: float = 3.0,
    measure: Measure | None = None,
    knee: bool = False,
) -> Pick:
    found = pick(
        records,
        ram_bytes=None if ram is None else round(ram * MIB),
        measure=measure or exact(records),
        max_drop=max_drop,
        knee=knee,
    )
    VALIDATOR.validate(found.to_json())
    assert found.to_json().keys() == SCHEMA["properties"].keys()
    return found


def test_the_most_accurate_final_that_fits_is_taken() -> None:
    records = run(
        final(None, 60, 0.95), final(1, 20, 0.94), final(2, 10, 0.93), final(3, 30, 0.945)
    )
    found = choose(records, 24)
    assert found.chosen is not None
    assert (found.chosen.trial, found.chosen.fidelity) == (1, "full")
    assert found.notes == ()
    answer = found.to_json()
    assert answer["feasible"] is True
    assert answer["margin_bytes"] == answer["budget_bytes"] - answer["peak_bytes"] == 4 * MIB
    assert answer["measured_peak_bytes"] == 20 * MIB
    assert answer["step_seconds"] == 0.1
    assert answer["unpruned"] == {
        "accuracy": 0.95,
        "selection_accuracy": 0.95,
        "peak_bytes": 60 * MIB,
        "step_seconds": 0.1,
    }
    assert answer["smallest_peak_bytes"] == 10 * MIB
    assert answer["candidate"] == {"version": 1, "channels": {"stem": 1}}


def test_a_refusal_says_why_a_step_needs_more_than_predicted() -> None:
    records = run(final(None, 60, 0.95), final(1, 8.7, 0.94))
    plain = choose(records, 2)
    assert plain.refusal.endswith("the smallest feasible size is --ram 8.7MiB")
    more = choose(records, 2, measure=exact(records, k1=round(11.75 * MIB)))
    assert "is predicted to hold 8.7 MiB, but a real step held 11.8 MiB" in more.refusal
    assert "workspace of kernels" in more.refusal
    assert more.refusal.endswith("the smallest feasible size is --ram 11.8MiB")


def test_the_selection_part_orders_and_the_validation_part_is_shown() -> None:
    records = run(final(None, 60, 0.95), final(1, 20, 0.94, 0.925), final(2, 20, 0.93, 0.95))
    found = choose(records, 24)
    assert found.chosen is not None
    assert found.chosen.trial == 1
    assert found.to_json()["accuracy"] == 0.925
    assert found.to_json()["accuracy_part"] == "validation"


def test_equal_accuracy_goes_to_the_smaller() -> None:
    found = choose(run(final(None, 60, 0.95), final(1, 20, 0.94), final(2, 19, 0.94)), 24)
    assert found.chosen is not None
    assert found.chosen.trial == 2


def test_a_loss_of_exactly_the_limit_is_allowed() -> None:
    records = run(final(None, 60, 0.95), final(1, 20, 0.92))
    assert choose(records, 24, max_drop=3.0).chosen is not None
    assert choose(records, 24, max_drop=2.9).chosen is None


def test_a_larger_loss_on_the_validation_part_passes_on_to_the_next_and_is_reported() -> None:
    records = run(final(None, 60, 0.95), final(1, 20, 0.94, 0.91), final(2, 10, 0.93, 0.94))
    found = choose(records, 24)
    assert found.chosen is not None
    assert found.chosen.trial == 2
    (note,) = found.notes
    assert note.startswith("trial 1 passed over: it loses 1.0 points on the selection part")
    assert note.endswith("but 4.0 on the validation part")


def test_a_measured_excess_passes_on_to_the_next_and_is_reported() -> None:
    records = run(final(None, 60, 0.95), final(1, 24, 0.94), final(2, 10, 0.93))
    found = choose(records, 24, measure=exact(records, k1=24 * MIB + 7))
    assert found.chosen is not None
    assert found.chosen.trial == 2
    (note,) = found.notes
    assert note.startswith("trial 1 passed over: predicted 24.0 MiB")
    assert note.endswith("a real step held 7 bytes more than the budget")


def test_the_reserve_is_taken_off_the_ram() -> None:
    records = run(final(None, 60, 0.95), final(1, 20, 0.94), final(2, 10, 0.93))
    found = pick(
        records, ram_bytes=24 * MIB, reserve_bytes=8 * MIB, measure=exact(records), max_drop=3
    )
    assert found.chosen is not None
    assert found.chosen.trial == 2
    assert found.to_json()["budget_bytes"] == 16 * MIB
    assert found.smallest_ram_bytes == 18 * MIB


def test_where_nothing_fits_the_smallest_size_that_would_is_named_and_does() -> None:
    records = run(final(None, 60, 0.95), final(1, 20, 0.94), final(2, 10, 0.80))
    measure = exact(records, k1=20 * MIB + 100)
    found = choose(records, 5, measure=measure)
    answer = found.to_json()
    assert answer["feasible"] is False
    assert answer["smallest_peak_bytes"] == 20 * MIB + 100
    assert [answer[key] for key in ("trial", "candidate", "accuracy", "margin_bytes")] == [None] * 4
    assert found.refusal == (
        "nothing fits 5.0 MiB with at most 3 points of accuracy lost (--max-drop); "
        "the smallest feasible size is --ram 20.1MiB; the smallest of all, whatever it loses, is "
        "trial 2 with 10.0 MiB"
    )
    again = pick(records, ram_bytes=parse_size("20.1MiB"), measure=measure)
    assert again.chosen is not None
    assert again.chosen.trial == 1


def test_the_unpruned_network_is_taken_where_it_fits_and_is_best() -> None:
    found = choose(run(final(None, 60, 0.95), final(1, 20, 0.94)), 64)
    assert found.chosen is not None
    assert found.chosen.label == "unpruned"
    assert found.to_json()["trial"] is None
    assert found.to_json()["feasible"] is True


def test_without_finals_the_short_fidelity_decides_and_this_is_reported() -> None:
    found = choose(run(trials=(trial(1, 20, 0.88), trial(2, 10, 0.89))), 24)
    assert found.chosen is not None
    assert (found.chosen.trial, found.chosen.fidelity) == (2, "short")
    assert "short fine-tuning" in found.notes[-1]
    answer = found.to_json()
    assert (answer["accuracy"], answer["accuracy_part"]) == (0.89, "selection")
    assert answer["unpruned"]["accuracy"] == 0.9
    assert answer["step_seconds"] == answer["unpruned"]["step_seconds"] == 0.5


def test_finals_without_the_unpruned_network_are_compared_at_short() -> None:
    records = run(final(1, 20, 0.99), trials=(trial(1, 20, 0.88), trial(2, 10, 0.89)))
    found = choose(records, 24)
    assert found.chosen is not None
    assert (found.chosen.trial, found.chosen.fidelity) == (2, "short")


def test_trials_that_were_no_finalists_stand_in_where_no_final_fits() -> None:
    records = run(
        final(None, 60, 0.97), final(1, 20, 0.96), trials=(trial(1, 20, 0.88), trial(2, 10, 0.89))
    )
    found = choose(records, 12)
    assert found.chosen is not None
    assert (found.chosen.trial, found.chosen.fidelity) == (2, "short")
    assert found.unpruned.accuracy == 0.9


def test_fidelities_are_never_mixed() -> None:
    """Trial 2's short 0.99 is not set against trial 1's full 0.96."""
    records = run(
        final(None, 60, 0.97), final(1, 20, 0.96), trials=(trial(1, 20, 0.88), trial(2, 10, 0.99))
    )
    found = choose(records, 24)
    assert found.chosen is not None
    assert found.chosen.trial == 1


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"ram_bytes": 0}, "--ram is 0 bytes: it must be above 0"),
        ({"reserve_bytes": 24 * MIB}, "--reserve 24.0 MiB leaves nothing of --ram 24.0 MiB"),
        ({"max_drop": -1.0}, "--max-drop is -1.0: it must be a number of points, 0 or more"),
        ({"max_drop": math.nan}, "--max-drop is nan"),
    ],
)
def test_senseless_limits_are_refused(given: dict[str, float], complaint: str) -> None:
    records = run(final(None, 60, 0.95))
    with pytest.raises(ConfigError, match=complaint):
        pick(records, measure=exact(records), **{"ram_bytes": 24 * MIB, **given})  # type: ignore[arg-type]


def test_a_run_whose_unpruned_network_is_not_scored_is_refused() -> None:
    records = run(whole=None)
    with pytest.raises(RunError, match="the unpruned network isn't scored yet"):
        pick(records, ram_bytes=MIB, measure=exact(records))


@given(
    seed=st.integers(0, 50),
    ram=st.floats(1, 80),
    max_drop=st.floats(0, 30),
    finals=st.integers(0, 8),
    excess=st.floats(0.98, 1.05),
)
def test_whatever_is_picked_fits_and_loses_little(
    seed: int, ram: float, max_drop: float, finals: int, excess: float
) -> None:
    records = make_records(seed=seed, trials=25, finals=finals)
    measure = inexact(records, excess)
    found = choose(records, ram, max_drop=max_drop, measure=measure)
    need = max(found.smallest_peak_bytes, math.ceil(found.smallest_peak_bytes * excess))
    if found.chosen is None:
        assert need > (found.budget_bytes or 0)
        return
    chosen = found.chosen
    assert found.budget_bytes is not None
    assert max(chosen.peak_bytes, measure(chosen.candidate).peak_bytes) <= found.budget_bytes
    for mine, whole in (
        (chosen.accuracy, found.unpruned.accuracy),
        (chosen.selection_accuracy, found.unpruned.selection_accuracy),
    ):
        assert 100 * (whole - mine) <= max_drop + 1e-6
    assert chosen.fidelity == found.unpruned.fidelity


@given(st.integers(1, 2**45))
def test_a_named_size_is_never_too_small(size: int) -> None:
    assert 0 <= parse_size(size_above(size)) - size <= 0.1 * MIB + 1


def test_a_loss_that_is_too_large_is_named_and_then_succeeds() -> None:
    records = run(
        final(None, 60, 0.95), final(1, 20, 0.94), final(2, 10, 0.90, 0.8877), final(3, 9, 0.80)
    )
    found = choose(records, 12)
    assert found.chosen is None
    assert found.least is not None
    assert found.to_json()["least_max_drop"] == found.least.max_drop == 6.3  # of 6.23
    assert found.refusal.endswith(
        "the smallest feasible size is --ram 20.0MiB; --max-drop 6.3 would give trial 2 at this "
        "size"
    )
    again = choose(records, 12, max_drop=6.3)
    assert again.chosen is not None
    assert again.chosen.trial == 2
    assert choose(records, 12, max_drop=6.2).chosen is None


def test_the_named_loss_is_of_one_whose_measured_step_fits() -> None:
    records = run(final(None, 60, 0.95), final(2, 10, 0.90), final(3, 9, 0.80))
    measure = exact(records, k2=12 * MIB + 1)
    found = choose(records, 12, measure=measure)
    assert found.least == LeastDrop(label="trial 3", max_drop=15.0)
    assert choose(records, 12, max_drop=15.0, measure=measure).chosen is not None


@given(
    seed=st.integers(0, 50),
    ram=st.floats(1, 80),
    finals=st.integers(0, 8),
    seeds=st.integers(1, 3),
    excess=st.floats(0.98, 1.05),
)
def test_what_a_refusal_names_succeeds(
    seed: int, ram: float, finals: int, seeds: int, excess: float
) -> None:
    records = make_records(seed=seed, trials=25, finals=finals, seeds=seeds)
    measure = inexact(records, excess)
    found = choose(records, ram, max_drop=0.0, measure=measure)
    if found.chosen is not None:
        assert found.least is None
        return
    larger = pick(records, ram_bytes=found.smallest_ram_bytes, max_drop=0.0, measure=measure)
    assert larger.chosen is not None
    if found.least is not None:
        laxer = choose(records, ram, max_drop=found.least.max_drop, measure=measure)
        assert laxer.chosen is not None


@given(
    seed=st.integers(0, 50),
    finals=st.integers(0, 8),
    excess=st.floats(0.98, 1.3),
    odd=st.integers(0, 99),
)
def test_the_suggested_flags_succeed(seed: int, finals: int, excess: float, odd: int) -> None:
    records = make_records(seed=seed, trials=25, finals=finals)
    measure = inexact(records, excess)
    flags = suggested_flags(
        tuple(pools(records)),
        budgets=[budget + odd for budget in records.study.search.budget_bytes],  # as of shares
        max_drop=3.0,
        measure=measure,
    ).split()
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    found = pick(
        records,
        ram_bytes=parse_size(given["--ram"]),
        max_drop=float(given.get("--max-drop", 3.0)),
        measure=measure,
    )
    assert found.chosen is not None


def test_the_loss_has_an_interval_over_several_seeds_alone() -> None:
    several = make_records(seeds=3, finals=4)
    found = choose(several, 24, max_drop=30)
    assert found.drop is not None
    assert found.drop_interval is not None
    assert found.drop_interval[0] < found.drop < found.drop_interval[1]
    assert found.to_json()["seeds"] == 3
    assert choose(make_records(seeds=1, finals=4), 24, max_drop=30).drop_interval is None


def test_imbalance_the_lowest_recall_and_classes_never_right_are_reported() -> None:
    records = make_records(finals=4, images={"common": 190, "rare": 6, "rarer": 4})
    found = choose(records, 24, max_drop=30)
    assert any("set search.metric" in note for note in found.notes)
    assert any(
        "none of the validation images of 1 of 3 classes right" in note for note in found.notes
    )
    assert found.to_json()["worst_recall"] == {
        "label": "rarer",
        "recall": 0.0,
        "images": 4,
        "part": "validation",
    }


def test_another_metric_is_named_and_needs_no_warning_of_imbalance() -> None:
    study = make_study()
    search = study.search.model_copy(update={"metric": "macro-f1"})
    records = make_records(
        finals=4,
        study=study.model_copy(update={"search": search}),
        images={"common": 190, "rare": 6, "rarer": 4},
    )
    found = choose(records, 1)
    assert found.to_json()["metric"] == "macro-f1"
    assert "points of macro F1 lost" in found.refusal
    assert not any("search.metric" in note for note in found.notes)


# --- ties, knee, several sizes ----------------------------------------------------------------


def seeded(kept: int | None, mib: float, *accuracies: float) -> FinalRecord:
    return replace(
        final(kept, mib, accuracies[0]), accuracies=accuracies, validation_accuracies=accuracies
    )


TIED = run(
    seeded(None, 60, 0.97, 0.975, 0.965),
    seeded(1, 30, 0.968, 0.974, 0.966),
    seeded(2, 20, 0.967, 0.972, 0.964),
    seeded(3, 10, 0.95, 0.951, 0.949),
)


def test_the_smallest_of_the_tied_is_chosen_and_the_others_are_named() -> None:
    found = choose(TIED, 64)
    assert found.chosen is not None
    assert (found.chosen.trial, found.leader and found.leader.label) == (2, "unpruned")
    answer = found.to_json()
    assert [one["label"] for one in answer["tied"]] == ["trial 1", "unpruned"]
    assert found.notes[0].startswith("unpruned is ahead by 0.2 points on the selection part, but")


def test_a_tied_one_whose_step_exceeds_the_budget_is_not_chosen() -> None:
    found = choose(TIED, 64, measure=exact(TIED, k2=65 * MIB))
    assert found.chosen is not None
    assert found.chosen.trial == 1
    assert found.tied is not None
    assert [one.label for one in found.tied] == ["unpruned"]


def test_with_one_seed_there_is_no_verdict() -> None:
    found = choose(run(final(None, 60, 0.95), final(1, 20, 0.949)), 64)
    assert found.tied is None
    assert found.chosen is found.leader


@given(seed=st.integers(0, 50), ram=st.floats(5, 80), seeds=st.integers(2, 4))
def test_the_choice_is_the_smallest_of_the_tied(seed: int, ram: float, seeds: int) -> None:
    records = make_records(seed=seed, trials=25, finals=6, seeds=seeds)
    found = choose(records, ram, max_drop=20)
    if found.chosen is None:
        return
    assert found.leader is not None
    assert found.leader.selection_accuracy >= found.chosen.selection_accuracy
    for one in found.tied or ():
        assert found.chosen.peak_bytes <= one.peak_bytes <= round(ram * MIB)


@given(
    seed=st.integers(0, 50),
    rams=st.tuples(st.floats(1, 80), st.floats(1, 80)),
    seeds=st.integers(1, 3),
    excess=st.floats(0.98, 1.05),
)
def test_a_larger_ram_never_gives_a_worse_pick(
    seed: int, rams: tuple[float, float], seeds: int, excess: float
) -> None:
    """Up to ties, for which the smaller network is preferred."""
    records = make_records(seed=seed, trials=25, finals=6, seeds=seeds)
    measure = inexact(records, excess)
    small, large = (choose(records, ram, max_drop=20, measure=measure) for ram in sorted(rams))
    if small.leader is None:
        return
    assert large.leader is not None
    if small.leader.fidelity == "full":
        assert large.leader.fidelity == "full"
    if large.leader.fidelity == small.leader.fidelity:
        assert large.leader.selection_accuracy >= small.leader.selection_accuracy
    if seeds == 1:
        assert large.chosen is not None
        assert large.chosen.label == large.leader.label


def test_the_knee_is_that_of_the_trials_that_fit() -> None:
    curve = {1: (5, 0.5), 2: (10, 0.86), 3: (20, 0.88), 4: (40, 0.89)}
    records = run(trials=tuple(trial(n, mib, acc) for n, (mib, acc) in curve.items()))
    found = choose(records, None, knee=True, max_drop=50)
    assert found.chosen is not None
    assert (found.chosen.trial, found.rule) == (2, "knee")
    answer = found.to_json()
    assert (answer["ram_bytes"], answer["budget_bytes"], answer["margin_bytes"]) == (None,) * 3
    strict = choose(records, None, knee=True, max_drop=2.5)
    assert strict.rule == "accuracy"
    assert "trial 2, the knee of the front, passed over: it loses 4.0 points" in strict.notes
    assert any("has no knee" in note for note in strict.notes)
    tight = choose(records, 9, knee=True, max_drop=50)
    assert (tight.chosen and tight.chosen.trial, tight.rule) == (1, "accuracy")


def test_a_knee_that_was_trained_in_full_is_shown_with_those_figures() -> None:
    curve = {1: (5, 0.5), 2: (10, 0.86), 3: (20, 0.88)}
    trials = tuple(trial(n, mib, acc) for n, (mib, acc) in curve.items())
    found = choose(run(final(None, 60, 0.95), final(2, 10, 0.94), trials=trials), None, knee=True)
    assert found.chosen is not None
    assert (found.chosen.trial, found.chosen.fidelity) == (2, "full")
    assert found.unpruned.accuracy == 0.95


@given(seed=st.integers(0, 50), ram=st.none() | st.floats(1, 80), max_drop=st.floats(0, 60))
def test_a_knee_fits_and_loses_little(seed: int, ram: float | None, max_drop: float) -> None:
    records = make_records(seed=seed, trials=25, finals=4)
    found = choose(records, ram, knee=True, max_drop=max_drop)
    if found.chosen is None:
        assert ram is not None
        return
    assert ram is None or found.chosen.peak_bytes <= round(ram * MIB)
    assert (found.drop or 0) <= max_drop + 1e-6
    if ram is None and max_drop > 50 and found.rule == "knee":
        points = [(one.peak_bytes, one.accuracy) for one in records.complete]
        row = knee(points, maximise=(False, True))
        assert row is not None
        assert found.chosen.trial == records.complete[row].number


def test_several_sizes_and_devices_measure_each_candidate_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[str] = []

    def counted(one: Candidate) -> Step:
        measured.append(one.digest)
        return exact(TIED)(one)

    monkeypatch.setattr("dse.deploy.pick.measure_of", lambda _: counted)
    device = find_device("raspberry-pi-zero-2-w")
    limits = [Limit(ram=15 * MIB), Limit(ram=64 * MIB), Limit.of_device(device), Limit(ram=MIB)]
    picks = picks_for(TIED, limits, max_drop=3.0)
    assert [one.chosen and one.chosen.trial for one in picks] == [3, 2, 2, None]
    assert picks[2].budget_bytes == device.free.size
    assert picks[2].to_json()["device"] == device.name
    assert len(measured) == len(set(measured))
    monkeypatch.setattr(
        "dse.deploy.pick.planned_sizes", lambda records: lambda one: exact(records)(one).peak_bytes
    )
    tiny = picks_for(TIED, [Limit.of_device(find_device("esp32-s3"))], max_drop=3.0)[0]
    assert tiny.refusal.startswith("nothing fits esp32-s3 (256.0 KiB of its RAM is free) with")
    assert tiny.refusal.partition("; --max-drop")[0].endswith("size is 10.0MiB")
