"""Keys about adapters become part of the scheme's text."""

import pytest
from pydantic import ValidationError

from dse.candidate import Candidate, with_recipe
from dse.config import JointConfig, TrainingConfig
from dse.config.lora import LoraSettings, read_lora
from support.small_study import small_study


def test_keys_become_part_of_the_scheme() -> None:
    training = TrainingConfig(
        scheme="bias+lora", lora_rank=4, lora_alpha=16.0, lora_targets=("qkv", "proj")
    )
    assert training.scheme == "bias+lora:4,alpha=16,targets=proj,qkv"
    assert training.lora_rank is None
    assert TrainingConfig.model_validate(training.model_dump()) == training
    settings = read_lora("lora:4,alpha=16,targets=proj,qkv")
    assert settings == LoraSettings(4, 16.0, ("proj", "qkv"))
    assert settings.scale == 4.0


def test_a_key_takes_the_place_of_what_the_text_has() -> None:
    text = "lora:4,alpha=16,targets=qkv"
    assert TrainingConfig(scheme=text, lora_rank=2).scheme == "lora:2,alpha=16,targets=qkv"
    assert TrainingConfig(scheme="lora").scheme == "lora:8"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lora_rank": 4}, 'needs the scheme "lora", not "full"'),
        ({"scheme": "lora", "lora_rank": 5000}, "has the rank '5000'"),
        ({"scheme": "lora", "lora_rank": 0}, "greater than or equal to 1"),
        ({"scheme": "lora", "lora_targets": ("a b",)}, "has the target 'a b'"),
        ({"scheme": "lora", "lora_targets": ()}, "has the target ''"),
    ],
)
def test_keys_that_dont_fit_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainingConfig.model_validate(keys)
    assert message in str(caught.value)


def test_a_candidate_may_leave_the_adapters_of_the_study() -> None:
    study = small_study(training=TrainingConfig(scheme="lora", lora_rank=4))
    assert with_recipe(study, Candidate(scheme="bias")).training.scheme == "bias"
    assert with_recipe(study, Candidate(scheme="lora")).training.scheme == "lora:8"


def test_ranks_of_a_joint_space_are_schemes() -> None:
    joint = JointConfig(scheme=("last", "lora:4,alpha=16"), lora_rank=(2, 4))
    assert joint.scheme == ("last", "lora:2,alpha=16", "lora:4,alpha=16")
    assert JointConfig(lora_rank=(2, 4)).scheme == ("lora:2", "lora:4")
    assert JointConfig.model_validate(joint.model_dump()) == joint
    with pytest.raises(ValidationError, match="has the rank '5000'"):
        JointConfig(lora_rank=(5000,))
