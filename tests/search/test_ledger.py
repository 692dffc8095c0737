import math
from pathlib import Path

import optuna
import pytest

from dse.candidate import Candidate
from dse.errors import RunError, TrainingError
from dse.finetune.evaluation import Evaluation
from dse.search.ledger import Ledger
from dse.search.storage import open_storage
from dse.search.storage_urls import sqlite_url

CANDIDATE = Candidate(channels={"stem": 3})


def evaluation(accuracy: float = 0.5, validation_accuracy: float | None = None) -> Evaluation:
    return Evaluation(
        candidate_digest=CANDIDATE.digest,
        fidelity="short",
        seed=7,
        accuracy=accuracy,
        validation_accuracy=validation_accuracy,
        loss=1.25,
        wall_seconds=3.0,
        step_seconds=0.1,
        images_trained=100,
        images_forward=10,
    )


@pytest.fixture
def archive(tmp_path: Path) -> optuna.Study:
    storage = open_storage(sqlite_url(tmp_path / "study.db"))
    return optuna.create_study(study_name="s", storage=storage)


def test_what_one_process_stores_another_finds(archive: optuna.Study) -> None:
    writer, reader = Ledger(archive), Ledger(archive)
    assert reader.find(CANDIDATE, fidelity="short") is None
    writer.store(CANDIDATE, evaluation(), fidelity="short")
    for ledger in (writer, reader, Ledger(archive)):
        assert ledger.find(CANDIDATE, fidelity="short") == evaluation()
        assert ledger.find(CANDIDATE, fidelity="full") is None
        assert ledger.find(CANDIDATE, fidelity="short", seed_index=1) is None
        assert ledger.find(Candidate(channels={}), fidelity="short") is None


@pytest.mark.parametrize(
    "wrong",
    [evaluation(math.nan), evaluation(math.inf), evaluation(0.5, validation_accuracy=math.nan)],
)
def test_what_is_not_finite_is_not_stored(archive: optuna.Study, wrong: Evaluation) -> None:
    ledger = Ledger(archive)
    with pytest.raises(TrainingError, match="not finite"):
        ledger.store(CANDIDATE, wrong, fidelity="short")
    assert ledger.find(CANDIDATE, fidelity="short") is None


def test_the_images_of_trainings_that_diverged_count(archive: optuna.Study) -> None:
    ledger = Ledger(archive)
    ledger.store(CANDIDATE, evaluation(), fidelity="short")
    ledger.store_diverged(CANDIDATE, 32, fidelity="full")
    ledger.store_diverged(CANDIDATE, 64, fidelity="full", seed_index=1)
    ledger.store_diverged(CANDIDATE, 64, fidelity="full", seed_index=1)  # tried again
    assert Ledger(archive).images_trained() == 100 + 32 + 64
    assert ledger.find(CANDIDATE, fidelity="full") is None


def test_an_entry_of_another_form_is_refused(archive: optuna.Study) -> None:
    archive.set_user_attr(f"evaluation:{CANDIDATE.digest}:short:0", {"accuracy": 1})
    with pytest.raises(RunError):
        Ledger(archive).find(CANDIDATE, fidelity="short")
