"""One method on one real study, from the command line too."""

import json
from pathlib import Path

import jsonschema
import pytest

from dse.cli import main
from dse.config import NetworkConfig
from dse.methods.baseline import compare
from support.small_study import small_study

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "schemas" / "baseline-1.json").read_text("utf-8")
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("method", ["uniform", "last", "image-size", "micro-batch"])
def test_alternatives_are_trained_at_the_chosen_fidelity(method: str) -> None:
    base = small_study()
    search = base.search.model_copy(update={"uniform_baselines": (0.5,)})
    study = base.model_copy(update={"search": search})
    labels: list[str] = []
    found = compare(
        method, study, fidelity="short", on_outcome=lambda one: labels.append(one.alternative.label)
    )
    assert labels == ["unpruned", *(one.alternative.label for one in found.outcomes)]
    for one in (found.unpruned, *found.outcomes):
        assert len(one.accuracies) == 1
        assert 0 < (one.accuracy or 0) <= 1
    assert found.reductions(found.unpruned) == (0.0, 0.0)
    assert all(found.reductions(one)[1] > 0 for one in found.outcomes)
    jsonschema.validate(found.to_json(), SCHEMA)


def test_side_branches_are_trained_and_counted() -> None:
    study = small_study(network=NetworkConfig(name="support.networks:Blocks"))
    found = compare("lite-residual", study, fidelity="short")
    (outcome,) = found.outcomes
    assert outcome.alternative.candidate.scheme == "lite-residual"
    assert (outcome.accuracy or 0) > 0
    assert outcome.breakdown.categories["weights"] > found.unpruned.breakdown.categories["weights"]


def test_full_fidelity_reads_the_validation_part_with_every_seed() -> None:
    found = compare("last", small_study(), fidelity="full")
    assert [len(one.accuracies) for one in (found.unpruned, *found.outcomes)] == [2, 2]


def test_the_command_prints_a_table_or_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["baseline", "peak-greedy", "digits", "--set", "data.image_size=16"]
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    jsonschema.validate(answer, SCHEMA)
    assert answer["unpruned"]["total_reduction"] == 0
    assert answer["alternatives"][-1]["total_reduction"] > 0.8
    assert answer["alternatives"][0]["accuracy"] is None
    assert main(arguments) == 0
    assert "peak-greedy on digits: scheme full, batch 32" in capsys.readouterr().out


def test_wrong_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "magic", "digits"]) == 2
    assert "unknown baseline method 'magic'" in capsys.readouterr().err
    assert main(["baseline", "last", "digits", "--fidelity", "long"]) == 2
    assert "--fidelity 'long' is not known" in capsys.readouterr().err
