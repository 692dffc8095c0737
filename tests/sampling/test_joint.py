"""Which recipes a study's joint space holds."""

import math

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from dse.candidate import Candidate
from dse.config import JointConfig, Range, SpaceConfig, Study
from dse.engines.engine import takes_plans
from dse.errors import ConfigError, NetworkError
from dse.inputs import InputSpec
from dse.networks.several_inputs import SeveralInputs
from dse.sampling.joint import JointChoice, joint_choices, joint_ranges
from dse.sampling.search_space import SearchSpace
from support.networks import Blocks, Residual
from support.searches import memory_model
from support.small_study import small_study


class Flattening(nn.Module):
    """Runs on images of one size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 10 * 10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.first(x).flatten(1))
        return out


def study_with(joint: JointConfig | None, *, image_size: int = 16, batch_size: int = 16) -> Study:
    study = small_study(space=SpaceConfig(ratio=(0.0, 0.9), joint=joint))
    return study.model_copy(
        update={
            "data": study.data.model_copy(update={"image_size": image_size}),
            "training": study.training.model_copy(update={"batch_size": batch_size}),
        }
    )


def values(choices: tuple[JointChoice, ...]) -> dict[str, tuple[object, ...]]:
    return {one.name: one.values for one in choices}


def test_without_a_joint_space_nothing_varies() -> None:
    assert joint_choices(study_with(None), Residual()) == ()
    assert joint_choices(study_with(JointConfig(auto=False)), Residual()) == ()


def test_auto_varies_what_is_usual_and_the_network_has() -> None:
    found = values(joint_choices(study_with(JointConfig(auto=True)), Residual()))
    assert found == {
        "scheme": ("full", "norm", "bias", "last"),
        "batch_size": (16, 8, 4),
        "image_size": (16, 8),
        "engine": ("stock", "lean", "lean:least"),
        "optimizer": ("sgd-momentum", "sgd"),
    }
    with_blocks = values(joint_choices(study_with(JointConfig(auto=True)), Blocks()))
    assert with_blocks["checkpointing"] == ("none", "blocks")
    (rate,) = joint_ranges(study_with(JointConfig(auto=True)))
    assert (rate.low, rate.own, rate.high) == (0.025, 0.1, 0.4)


def test_plans_vary_only_where_they_can_be_made() -> None:
    study = study_with(JointConfig(auto=True))
    found = values(joint_choices(study, Residual(), takes_plans=lambda: False))
    assert found["engine"] == ("stock", "lean")
    assert takes_plans(Residual(), InputSpec.image(16).example(2))
    several = InputSpec(shape=(2, 4), names=("a", "b"), kinds=("float32", "float32"))
    assert not takes_plans(SeveralInputs(nn.Bilinear(4, 4, 2), several), several.example(2))


def test_images_and_batches_that_are_fixed_do_not_vary() -> None:
    found = values(joint_choices(study_with(JointConfig(fixed_images=True)), Residual()))
    assert found.keys() == {"scheme", "engine", "optimizer"}
    with pytest.raises(ValueError, match="stands beside fixed_images"):
        JointConfig(fixed_images=True, batch_size=(4,))


def test_blocks_are_updated_from_several_on_with_biases_or_without() -> None:
    found = values(joint_choices(study_with(JointConfig()), mobilenet_v2(num_classes=3)))
    assert found["scheme"] == (
        "full", "norm", "bias", "last",
        "from:features.5", "from:features.10", "from:features.14",
        "bias+from:features.5", "bias+from:features.10", "bias+from:features.14",
        "bias-from:features.10",
        "only:features.9,features.11,features.13,features.15,features.17",
    )  # fmt: skip


def test_auto_leaves_image_sizes_out_on_which_the_network_cannot_run() -> None:
    found = values(joint_choices(study_with(JointConfig(auto=True), image_size=12), Flattening()))
    assert "image_size" not in found


def test_rectangles_and_samples_that_are_no_images_keep_their_size() -> None:
    study = study_with(JointConfig(auto=True))
    oblong = study.data.model_copy(update={"input": (3, 12, 16)})
    found = values(joint_choices(study.model_copy(update={"data": oblong}), Residual()))
    assert "image_size" not in found
    listed = study_with(JointConfig(image_size=(8,))).model_copy(update={"data": oblong})
    with pytest.raises(NetworkError, match=r"square images of any size, and data.input is \[3, 12"):
        joint_choices(listed, Residual())


def test_a_listed_image_size_that_cannot_be_is_refused_by_its_value() -> None:
    study = study_with(JointConfig(image_size=(8,)), image_size=12)
    with pytest.raises(NetworkError, match=r"space\.joint\.image_size holds 8, on which .* \(Runt"):
        joint_choices(study, Flattening())


def test_what_is_listed_goes_before_auto_and_the_studys_own_comes_first() -> None:
    joint = JointConfig(auto=True, scheme=("last",), optimizer=("adam",), learning_rate=(0.01, 0.2))
    found = values(joint_choices(study_with(joint), Residual()))
    assert found["scheme"] == ("full", "last")
    assert found["optimizer"] == ("sgd-momentum", "adam")
    assert found["learning_rate"] == (0.1, 0.01, 0.2)
    assert "image_size" in found


def test_a_dimension_of_the_studys_own_value_alone_does_not_vary() -> None:
    assert joint_choices(study_with(JointConfig(scheme=("full",))), Residual()) == ()


def test_smaller_batches_are_added_up_to_the_studys() -> None:
    (batch,) = joint_choices(study_with(JointConfig(batch_size=(4, 8))), Residual())
    assert batch.changes == (
        {},
        {"batch_size": 4, "accumulate": 4},
        {"batch_size": 8, "accumulate": 2},
    )


def joint_space() -> SearchSpace:
    study = study_with(JointConfig(auto=True, reconstruct=(True,), learning_rate=(0.2,)))
    return SearchSpace.resolve(
        study.space, memory_model().groups, joint=joint_choices(study, Residual())
    )


def test_every_recipe_is_drawn_named_and_found_again() -> None:
    space = joint_space()
    assert len(space.recipes) == 4 * 3 * 2 * 3 * 2 * 2 * 2 == len(set(space.recipes))
    assert space.recipes[0] == Candidate()
    kept = [choice.channels // 2 for choice in space.choices]
    for number, recipe in enumerate(space.recipes):
        drawn = space.parameters(kept, recipe=number)
        assert drawn.keys() == space.names
        candidate = space.candidate(drawn)
        assert candidate.recipe == recipe
        assert list(candidate.kept(space.choices)) == kept
        assert space.recipe_number(candidate) == number
    assert space.recipe_number(Candidate(scheme="norm", batch_size=5)) is None


def test_features_tell_recipes_apart_that_may_differ_in_accuracy() -> None:
    space = joint_space()
    assert not space.features[0].any()
    rows = dict(zip(space.recipes, space.features.tolist(), strict=True))
    alike = {recipe.model_copy(update={"engine": None}): row for recipe, row in rows.items()}
    assert len({tuple(row) for row in rows.values()}) == len(alike) == len(rows) // 3
    assert all(rows[recipe] == row for recipe, row in alike.items())


def test_a_rate_between_two_is_drawn_written_and_found_again() -> None:
    study = study_with(JointConfig(optimizer=("adam",), learning_rate=Range(low=0.01, high=0.3)))
    space = SearchSpace.resolve(
        study.space,
        memory_model().groups,
        joint=joint_choices(study, Residual()),
        ranges=joint_ranges(study),
    )
    own = space.candidate({"learning_rate": 0.1})
    assert own.learning_rate is None
    drawn = {"optimizer": "adam", "learning_rate": 0.2}
    candidate = space.candidate(drawn)
    assert candidate.learning_rate == 0.01  # 0.1 of SGD with momentum is 0.005 of Adam
    assert space.recipe_number(candidate) == 1
    (shift,) = space.shifts(candidate)
    assert shift == pytest.approx(math.log(2))
    kept = [choice.channels for choice in space.choices]
    again = space.parameters(kept, recipe=1, shifts=(shift,))
    assert space.candidate(again) == candidate
    beyond = candidate.model_copy(update={"learning_rate": 0.05})
    assert space.recipe_number(beyond) is None
    with pytest.raises(ValueError, match="must be above low"):
        Range(low=0.2, high=0.1)


def test_the_leanest_recipes_have_the_smallest_images_and_every_batch() -> None:
    lean = joint_space().lean_recipes
    assert {(one.image_size, one.batch_size) for one in lean} == {(8, None), (8, 8), (8, 4)}
    assert {(one.scheme, one.engine, one.optimizer) for one in lean} == {
        ("last", "lean:least", "sgd")
    }
    assert len(lean) == 3 * 2 * 2


def test_where_nothing_is_pruned_ranking_and_fitting_are_not_mentioned() -> None:
    space = joint_space()
    for number in range(len(space.recipes)):
        drawn = space.parameters([choice.channels for choice in space.choices], recipe=number)
        candidate = space.candidate(drawn)
        assert candidate.channels == {}
        assert candidate.reconstruct is None
        assert space.recipe_number(candidate) is not None


def space_of_engines() -> SearchSpace:
    joint = JointConfig(engine=("lean:least", "lean:1MiB"), checkpointing=("blocks",))
    study = study_with(joint)
    return SearchSpace.resolve(
        study.space, memory_model().groups, joint=joint_choices(study, Residual())
    )


def test_checkpointing_is_only_combined_with_the_stock_engine() -> None:
    space = space_of_engines()
    found = {(one.engine, one.checkpointing) for one in space.recipes}
    assert found == {
        (None, None),
        (None, "blocks"),
        ("lean:least", None),
        ("lean:1 MiB", None),
    }
    assert len(space.recipes) == len(space.features) == len(space.recipe_indices) == 4
    drawn = {**space.parameters([1] * len(space.choices)), "engine": "lean:least"}
    assert space.recipe({**drawn, "checkpointing": "blocks"}) == Candidate(engine="lean:least")


def test_a_lean_engine_that_cannot_run_in_the_studys_precision_is_refused() -> None:
    study = study_with(JointConfig(engine=("lean",)))
    half = study.training.model_copy(update={"precision": "bf16-mixed"})
    study = study.model_copy(update={"training": half})
    with pytest.raises(ConfigError, match=r"space\.joint\.engine"):
        joint_choices(study, Residual())
    auto = study.space.model_copy(update={"joint": JointConfig(auto=True)})
    assert "engine" not in values(joint_choices(study.model_copy(update={"space": auto}), Blocks()))


def test_a_study_with_adapters_has_other_ranks_and_lists_are_taken_as_they_are() -> None:
    study = study_with(JointConfig())
    training = study.training.model_copy(update={"scheme": "lora:8,alpha=12"})
    study = study.model_copy(update={"training": training})
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 6), nn.ReLU(), nn.Linear(6, 3))
    (scheme, *_) = joint_choices(study, network)
    assert scheme.values == (
        "lora:8,alpha=12", "full", "bias", "last", "lora:4,alpha=12", "lora:16,alpha=12"
    )  # fmt: skip
    assert scheme.features is not None
    by_value = dict(zip(scheme.values, scheme.features, strict=True))
    assert by_value["lora:4,alpha=12"] < by_value["lora:8,alpha=12"] < by_value["lora:16,alpha=12"]
    listed = study.model_copy(
        update={"space": SpaceConfig(ratio=(0.0, 0.9), joint=JointConfig(lora_rank=(2, 8)))}
    )
    assert values(joint_choices(listed, network)) == {
        "scheme": ("lora:8,alpha=12", "lora:2", "lora:8")
    }
