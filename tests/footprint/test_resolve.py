"""Command-line flags override the candidate, which overrides the study."""

import json
from pathlib import Path
from typing import Any

import pytest

from dse.candidate import kept_channels
from dse.config import SpaceConfig
from dse.errors import CandidateError, ConfigError, DseError
from dse.footprint.request import FootprintRequest, StepOverrides
from dse.footprint.resolve import ResolvedStep, kept_at_ratio, resolve
from dse.networks.build import build_network
from dse.networks.examples import example_input
from dse.pruning.groups import find_groups

BLOCKS = "support.networks:Blocks"


def resolved(target: str = BLOCKS, **options: Any) -> ResolvedStep:
    overrides = StepOverrides(**{"image_size": 14, **options.pop("overrides", {})})
    return resolve(FootprintRequest(target=target, classes=3, overrides=overrides, **options))


def candidate_file(folder: Path, **content: Any) -> Path:
    path = folder / "candidate.json"
    path.write_text(json.dumps({"version": 1, **content}))
    return path


def test_flags_override_the_candidate_which_overrides_the_study(tmp_path: Path) -> None:
    file = candidate_file(tmp_path, batch_size=4, scheme="last", accumulate=2)
    changes = (
        "training.batch_size=5",
        "training.scheme=bias",
        "training.accumulate=3",
        "training.weight_decay=0.5",
    )
    step = resolved(
        "digits", candidate_file=file, changes=changes, overrides={"accumulate": 6, "scheme": ""}
    )
    settings = step.settings
    assert (settings.weight_decay, step.batch_size) == (0.5, 4)
    assert (settings.scheme, settings.accumulate) == ("", 6)  # an empty flag is given, too


def test_the_data_of_a_study_are_shown_unless_the_outputs_are_given() -> None:
    notes: list[str] = []
    resolve(FootprintRequest(target="digits"), on_note=notes.append)
    assert notes[0].startswith("data digits: 5 classes, ")
    assert "classes (train/selection/validation): 5 " in notes[2]
    notes.clear()
    resolve(FootprintRequest(target="digits", classes=3), on_note=notes.append)
    assert notes == []


@pytest.mark.parametrize("switch", ["foreach", "fused"])
def test_a_flag_can_turn_a_setting_off(switch: str) -> None:
    changes = ("training.fused=false", f"training.{switch}=true")  # they exclude each other
    assert getattr(resolved("digits", changes=changes).settings, switch)
    off = resolved("digits", changes=changes, overrides={switch: False})
    assert not getattr(off.settings, switch)


def test_nesterov_stays_with_the_optimizer_it_was_set_for() -> None:
    changes = ("training.optimizer=sgd-momentum", "training.nesterov=true")
    assert resolved("digits", changes=changes).settings.nesterov
    again = resolved("digits", changes=changes, overrides={"optimizer": "sgd-momentum"})
    assert again.settings.nesterov
    assert not resolved(
        "digits", changes=changes, overrides={"optimizer": "adam"}
    ).settings.nesterov


def test_groups_are_found_only_where_they_are_of_use(tmp_path: Path) -> None:
    assert resolved().groups == ()
    for options in ({"explain": True}, {"ratio": 0.0}, {"ram_bytes": 1}):
        assert resolved(**options).groups
    file = candidate_file(tmp_path, channels={"first.0": 5})
    step = resolved(candidate_file=file)
    names = [group.name for group in step.groups]
    assert step.kept[names.index("first.0")] == 5
    half = resolved(candidate_file=file, ratio=0.5)
    assert half.kept == tuple(group.channels // 2 for group in half.groups)


def test_a_ratio_leaves_fixed_groups_as_the_space_fixes_them() -> None:
    groups = find_groups(build_network(BLOCKS, classes=3), example_input(2, 14))
    first, *others = groups
    rule = {"pattern": first.name, "fixed": 0.75}
    space = SpaceConfig.model_validate({"ratio": [0.0, 0.9], "group": [rule]})
    kept = kept_at_ratio(0.5, groups, space=space)
    assert kept == (kept_channels(first.channels, 0.75), *(group.channels // 2 for group in others))


@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), -0.1, 1.0])
def test_a_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="--ratio is"):
        resolved(ratio=ratio)


def test_a_candidate_that_does_not_fit_names_its_file(tmp_path: Path) -> None:
    file = candidate_file(tmp_path, channels={"nothing": 5})
    with pytest.raises(CandidateError, match=r"--candidate .*candidate\.json: .*'nothing'"):
        resolved(candidate_file=file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu"}, "--device cpu changes nothing"),
        ({"device": "cuda:99", "measure": True}, "--device = 'cuda:99'"),
        ({"measure": True, "overrides": {"mode": "inference"}}, "leave out --mode inference"),
        ({"probe": True}, "--probe runs operators again"),
        ({"overrides": {"foreach": True, "fused": True}}, "not both"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DseError, match=message):
        resolved(**options)


def test_flags_change_the_adapters_of_the_scheme() -> None:
    flags = {"lora_rank": 4, "lora_alpha": 8.0}
    step = resolved(overrides={"scheme": "lora", "image_size": 14, **flags})
    assert step.settings.scheme == "lora:4,alpha=8"
    changes = ("training.scheme=lora", "training.lora_rank=2")
    assert resolved("digits", changes=changes, overrides=flags).settings.scheme == "lora:4,alpha=8"
    with pytest.raises(ConfigError, match='--lora-rank needs the scheme "lora", not "full"'):
        resolved(overrides={"lora_rank": 4})
