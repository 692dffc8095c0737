"""A name on the command line is a network, a study file or a shipped study."""

from pathlib import Path

import pytest

from dse.errors import ConfigError
from dse.footprint.target import Target, read_target
from dse.shipped import shipped
from dse.step.settings import StepSettings


def test_a_network_alone_gets_the_documented_defaults() -> None:
    target = read_target("support.networks:Blocks")
    assert target == Target(network="support.networks:Blocks")
    assert (target.classes, target.batch_size, target.image_size) == (1000, 8, 224)
    assert target.settings == StepSettings()


def test_a_shipped_study_gives_its_settings() -> None:
    target = read_target("digits", changes=["training.batch_size=5", "training.scheme=last"])
    assert (target.classes, target.batch_size, target.settings.scheme) == (5, 5, "last")
    assert target.space is not None
    assert read_target("digits", classes=3).classes == 3


def test_a_study_file_is_distinguished_from_a_network_by_existing(tmp_path: Path) -> None:
    study = tmp_path / "a:b"
    study.write_bytes(shipped("studies")["digits"].read_bytes())
    target = read_target(str(study))
    assert (target.classes, target.search_path) == (5, tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mobilenet_v2", (), "write torchvision:mobilenet_v2"),
        ("a:b", ("data.root=x",), "a:b is not a study"),
        ("missing.toml", (), "missing.toml"),
    ],
)
def test_what_is_no_target_is_refused(name: str, changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_target(name, changes=changes)
