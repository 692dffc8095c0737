"""What a study's search, its plan and its baselines stand on."""

import pytest

from dse.candidate import Candidate
from dse.config import JointConfig, NetworkConfig
from dse.errors import MemoryModelError
from dse.inputs import InputSpec
from dse.memory.model import MemoryModel
from dse.methods.baseline import compare
from dse.methods.workbench import Workbench, memory_recipe
from dse.names import Mode
from dse.networks.study_network import network_without_weights
from support.small_study import TRAINING, small_study


def bench(**joint: object) -> Workbench:
    study = small_study()
    if joint:
        space = study.space.model_copy(update={"joint": JointConfig(**joint)})
        study = study.model_copy(update={"space": space})
    return Workbench(
        study=study,
        network=network_without_weights(
            study, classes=3, inputs=InputSpec.image(study.data.image_size)
        ),
        classes=3,
    )


@pytest.fixture(autouse=True)
def _cache(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_CACHE", str(tmp_path))


def test_recipes_of_one_memory_share_a_model() -> None:
    own = bench()
    assert own.model() is own.model(Candidate(channels={"first": 4}, batch_size=4))
    assert own.model() is own.model(Candidate(learning_rate=0.5))
    assert own.model() is not own.model(Candidate(scheme="last"))
    assert own.model(Candidate(accumulate=2)) is own.model(Candidate(accumulate=8))
    assert own.model(mode="inference") is own.model(Candidate(optimizer="adam"), "inference")
    assert memory_recipe(Candidate(batch_size=2, accumulate=8)) == Candidate(accumulate=2)


def test_the_space_holds_the_recipes_that_vary() -> None:
    assert len(bench(scheme=("full", "last")).space.recipes) == 2
    assert [one.name for one in bench().space.free] == [one.name for one in bench().groups]


def test_a_store_is_read_before_anything_is_compiled_and_is_given_what_is() -> None:
    kept: dict[tuple[Candidate, Mode], MemoryModel] = {}

    class Kept:
        def load(self, recipe: Candidate, mode: Mode) -> MemoryModel | None:
            return kept.get((recipe, mode))

        def save(self, recipe: Candidate, mode: Mode, model: MemoryModel) -> None:
            kept[recipe, mode] = model

    first = bench()
    first = Workbench(study=first.study, network=first.network, classes=3, store=Kept())
    model = first.model(Candidate(batch_size=4))
    assert list(kept) == [(Candidate(), "training")]
    again = Workbench(study=first.study, network=first.network, classes=3, store=Kept())
    assert again.model() is model


def test_baselines_check_batches_of_one_image_as_a_search_does() -> None:
    study = small_study(
        training=TRAINING.model_copy(update={"batch_size": 1}),
        network=NetworkConfig(name="support.networks:pooled_early"),
    )
    with pytest.raises(MemoryModelError, match=r"training\.batch_size holds 1"):
        compare("uniform", study)
