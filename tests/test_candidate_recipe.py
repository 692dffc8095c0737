"""The study with a candidate's recipe applied."""

import pytest

from dse.candidate import Candidate, with_recipe
from dse.errors import CandidateError
from support.small_study import small_study


def test_channels_change_nothing_of_the_recipe() -> None:
    study = small_study()
    assert with_recipe(study, Candidate(channels={"first": 4})) is study


def test_each_field_takes_the_place_of_the_studys() -> None:
    candidate = Candidate(
        scheme="last",
        batch_size=4,
        accumulate=4,
        image_size=20,
        checkpointing="blocks",
        optimizer="adam",
        learning_rate=0.5,
        importance="taylor",
        reconstruct=True,
    )
    study = with_recipe(small_study(), candidate)
    training = study.training
    assert (training.scheme, training.batch_size, training.accumulate) == ("last", 4, 4)
    assert (training.checkpointing, training.optimizer) == ("blocks", "adam")
    assert training.learning_rate == 0.5
    assert study.data.image_size == 20
    assert (study.proxy.importance, study.proxy.reconstruct) == ("taylor", True)
    assert study.data.labels == small_study().data.labels


def test_nesterovs_form_stays_with_its_optimizer() -> None:
    base = small_study()
    study = base.model_copy(
        update={"training": base.training.model_copy(update={"nesterov": True})}
    )
    assert not with_recipe(study, Candidate(optimizer="adam")).training.nesterov
    assert with_recipe(study, Candidate(scheme="last")).training.nesterov


def test_a_recipe_in_words() -> None:
    assert Candidate(channels={"first": 4}).recipe_text == ""
    whole = Candidate(
        scheme="last",
        batch_size=8,
        accumulate=2,
        image_size=24,
        checkpointing="blocks",
        learning_rate=0.01,
        importance="fisher",
        reconstruct=True,
    )
    assert whole.recipe_text == (
        "last, batch 8, 2 batches added up, 24\N{MULTIPLICATION SIGN}24 px, checkpointed, "
        "rate 0.01, ranked by fisher, least squares"
    )


def test_blocks_that_are_left_out_are_sorted_and_have_a_digest_of_their_own() -> None:
    first, second = Candidate(drop="b.10, b.2"), Candidate(drop="b.2,b.10")
    assert first == second
    assert first.digest == second.digest != Candidate().digest
    assert Candidate.from_json(first.canonical_json()).drop == "b.2,b.10"
    with pytest.raises(CandidateError, match=r"names 'b\.2' twice"):
        Candidate.from_json('{"version": 1, "drop": "b.2,b.2"}')
