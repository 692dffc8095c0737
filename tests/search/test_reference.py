"""The unpruned network's recipe is tuned first, once, and is then everyone's."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dse.candidate import Candidate
from dse.config import JointConfig, ReferenceConfig, Study
from dse.errors import TrainingError
from dse.finetune.evaluation import Evaluation
from dse.results.reference import Tuning
from dse.search.load import load_run
from dse.search.study import carry_out
from support.searches import Formula, Recorder, resolver, tiny_study, trained

BEST_RATE = 0.1  # the study has 0.05


class Learner(Formula):
    """Loses accuracy with the rate's distance from the best, and gains some with length."""

    def __init__(self, log: Path, *, gain: float = 0.0, study: Study | None = None) -> None:
        super().__init__(log)
        self.gain, self.study = gain, study

    def under(self, study: Study) -> "Learner":
        return Learner(self.log, gain=self.gain, study=study)

    def evaluate(self, candidate: Candidate, **others: Any) -> Evaluation:
        assert self.study is not None
        rate = candidate.learning_rate or self.study.training.learning_rate
        if rate > 10:
            error = TrainingError("the loss is nan")
            error.images_trained = 8
            raise error
        found = super().evaluate(candidate, **others)
        epochs = self.study.proxy.full_epochs if others["fidelity"] == "full" else 1.0
        worse = 0.1 * abs(math.log(rate / BEST_RATE)) - self.gain * math.log2(epochs)
        accuracy = max(0.0, min(0.999, found.accuracy - worse))
        values = found.to_json() | {"accuracy": accuracy, "loss": 1 - accuracy}
        if found.validation_accuracy is not None:
            values["validation_accuracy"] = accuracy
        return Evaluation.from_json(values)


def tuning_study(joint: JointConfig | None = None, **reference: Any) -> Study:
    study = tiny_study(trials=2)
    fixed = {"learning_rates": (0.5, 1.0, 2.0, 4.0), "epochs": (1.0,), "seeds": 1}
    space = study.space.model_copy(update={"joint": joint})
    return study.model_copy(
        update={"reference": ReferenceConfig(**{**fixed, **reference}), "space": space}
    )


def run(out: Path, study: Study, *, gain: float = 0.0, observer: Recorder | None = None) -> Any:
    return carry_out(
        study,
        out=out,
        storage=None,
        observer=observer or Recorder(),
        resolve=resolver(lambda: Learner(out.parent / "trained.txt", gain=gain)),
    )


def test_the_best_rate_becomes_that_of_the_run(tmp_path: Path) -> None:
    observer = Recorder()
    records = run(tmp_path / "run", tuning_study(), observer=observer)
    assert records.tuning is not None
    assert records.tuning.learning_rate == pytest.approx(BEST_RATE)
    assert records.study.training.learning_rate == pytest.approx(BEST_RATE)
    assert [one.learning_rate for one in records.tuning.attempts] == [0.025, 0.05, 0.1, 0.2]
    assert observer.phases[0] == ("reference", 4)
    assert any("learns best at rate 0.1" in text for text in observer.messages)
    assert load_run(tmp_path / "run").study == records.study
    # Scored at the run's own rate, the unpruned network loses nothing to the distance from it.
    assert records.unpruned is not None
    assert records.unpruned.accuracy == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("factors", "rates", "chosen"),
    [
        ((0.5, 1.0), [0.025, 0.05, 0.1, 0.2], 0.1),  # a step past the best shows that it is
        ((8.0, 16.0), [0.1, 0.2, 0.4, 0.8], 0.1),
        ((0.25, 0.5), [0.0125, 0.025, 0.05, 0.1], 0.1),  # two steps at most
        ((2.0, 32.0), [0.025, 0.1, 1.6], 0.1),  # a step is four times the rate at most
        ((1.0,), [0.05], 0.05),
    ],
)
def test_a_ladder_goes_on_past_an_end_that_is_the_best(
    tmp_path: Path, factors: tuple[float, ...], rates: list[float], chosen: float
) -> None:
    observer = Recorder()
    records = run(tmp_path / "run", tuning_study(learning_rates=factors), observer=observer)
    assert [one.learning_rate for one in records.tuning.attempts] == pytest.approx(rates)
    assert records.study.training.learning_rate == pytest.approx(chosen)
    assert len([one for one in observer.evaluations if "rate" in one]) == len(rates)


def test_what_was_trained_while_tuning_is_not_trained_again(tmp_path: Path) -> None:
    run(tmp_path / "run", tuning_study())
    whole = f"{Candidate().digest}:short:0"
    assert trained(tmp_path / "run").count(whole) == 4
    before = trained(tmp_path / "run")
    records = run(tmp_path / "run", tuning_study())
    assert trained(tmp_path / "run") == before
    assert records.study.training.learning_rate == pytest.approx(BEST_RATE)


@pytest.mark.parametrize("climb", [None, 0.5])
def test_the_chosen_recipe_is_not_trained_again_by_the_run(
    tmp_path: Path, climb: float | None
) -> None:
    study = tuning_study(learning_rates=(2.0,), epochs=(1.0, 2.0))
    search = study.search.model_copy(update={"climb": climb})
    records = run(tmp_path / "run", study.model_copy(update={"search": search}), gain=0.007)
    assert records.study.proxy.full_epochs == 4  # twice the study's own
    lines = trained(tmp_path / "run")
    times = {name: lines.count(f"{Candidate().digest}:{name}") for name in ("short:0", "full:0")}
    assert times == {"short:0": 1, "full:0": 2}  # one for each length
    assert lines.count(f"{Candidate().digest}:full:1") == 1
    assert len(records.final_of(Candidate()).validation_accuracies) == 2


def test_each_training_is_reported_once(tmp_path: Path) -> None:
    observer = Recorder()
    run(tmp_path / "run", tuning_study(seeds=3), observer=observer)
    tried = [label for label in observer.evaluations if label.startswith("unpruned, rate")]
    assert len(tried) == observer.phases[0][1] == 4 + 2 * 2


def test_a_run_that_was_stopped_while_tuning_goes_on(tmp_path: Path) -> None:
    class Stopping(Recorder):
        def on_evaluation(self, label: str, accuracy: float, progress: Any) -> None:
            super().on_evaluation(label, accuracy, progress)
            if len(self.evaluations) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", tuning_study(), observer=Stopping())
    assert len(trained(tmp_path / "run")) == 2
    run(tmp_path / "run", tuning_study())
    assert trained(tmp_path / "run").count(f"{Candidate().digest}:short:0") == 4


@pytest.mark.parametrize(("gain", "epochs", "tried"), [(0.007, 8.0, 3), (0.001, 2.0, 2)])
def test_a_longer_training_is_taken_where_it_gains(
    tmp_path: Path, gain: float, epochs: float, tried: int
) -> None:
    study = tuning_study(learning_rates=(2.0,), epochs=(1.0, 2.0, 4.0))
    records = run(tmp_path / "run", study, gain=gain)
    assert records.study.proxy.full_epochs == epochs
    assert [one.fidelity for one in records.tuning.attempts] == ["short", *["full"] * tried]
    final = records.final_of(Candidate())
    assert len(final.validation_accuracies) == study.proxy.full_seeds


def test_the_best_two_rates_are_tried_with_more_seeds(tmp_path: Path) -> None:
    records = run(tmp_path / "run", tuning_study(seeds=3))
    seeds = {one.learning_rate: len(one.accuracies) for one in records.tuning.attempts}
    assert sorted(seeds.values()) == [1, 1, 3, 3]
    assert seeds[0.1] == 3
    assert " ± " in next(one.text() for one in records.tuning.attempts if one.learning_rate == 0.1)


def test_rates_that_diverge_are_passed_over_and_if_all_do_it_is_reported(tmp_path: Path) -> None:
    records = run(tmp_path / "run", tuning_study(learning_rates=(2.0, 1000.0)))
    assert records.study.training.learning_rate == pytest.approx(BEST_RATE)
    assert records.tuning.attempts[-1].text() == "rate 50, 1 epoch: diverged"
    observer = Recorder()
    records = run(
        tmp_path / "other", tuning_study(learning_rates=(1000.0, 2000.0)), observer=observer
    )
    assert any("at every learning rate from 12.5 to 100" in text for text in observer.messages)
    assert records.study.training.learning_rate == 0.05


def test_the_reference_is_tried_at_every_rate_that_a_candidate_may_have(tmp_path: Path) -> None:
    joint = JointConfig(learning_rate=(0.09, 0.3))
    records = run(tmp_path / "run", tuning_study(joint, learning_rates=(1.0,)))
    assert [one.learning_rate for one in records.tuning.attempts] == [0.05, 0.09, 0.3]
    assert records.study.training.learning_rate == pytest.approx(0.09)
    assert records.joint["learning_rate"] == (0.09, 0.3)


def test_a_training_that_cannot_start_is_not_blamed_on_its_rate(tmp_path: Path) -> None:
    def refuse(_count: int) -> None:
        raise TrainingError("too few images for a batch")

    observer = Recorder()
    evaluator = Formula(tmp_path / "trained.txt", before=refuse)
    with pytest.raises(TrainingError):
        carry_out(
            tuning_study(),
            out=tmp_path / "run",
            storage=None,
            observer=observer,
            resolve=resolver(lambda: evaluator),
        )
    assert evaluator.count > 1
    notes = [text for text in observer.messages if "not tuned" in text]
    assert notes == ["the unpruned network's recipe is not tuned: too few images for a batch"]


@pytest.mark.parametrize("change", [{"tune": False}, {}])
def test_a_recipe_that_is_held_fixed_is_the_studys(
    tmp_path: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not change:  # a run that was begun before there was a tuning
        never: Callable[[object], Tuning] = lambda self: Tuning(  # noqa: E731  # one use
            learning_rate=self.study.training.learning_rate,  # type: ignore[attr-defined]
            full_epochs=self.study.proxy.full_epochs,  # type: ignore[attr-defined]
        )
        with monkeypatch.context() as patch:
            patch.setattr("dse.search.reference.Tuner.tuned", never)
            run(tmp_path / "run", tuning_study())
    observer = Recorder()
    records = run(tmp_path / "run", tuning_study(**change), observer=observer)
    assert records.tuning is None
    assert records.study.training.learning_rate == 0.05
    assert "reference" not in [name for name, _ in observer.phases]
