"""The studies behind the paper's figures are complete, whatever folders they are given."""

from pathlib import Path

import pytest

from dse.config import load_study

STUDIES = sorted((Path(__file__).parents[1] / "studies" / "paper").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_each_is_named_like_its_file_and_in_the_papers_regime(path: Path) -> None:
    recovers = "[recovery]" in path.read_text(encoding="utf-8")
    roots = ["recovery.root=images"] if recovers else []
    study = load_study(path, overrides=["data.root=images", *roots])
    assert study.name == f"paper_{path.stem}"
    assert study.description
    assert study.training.scheme == "last"
    assert study.training.accumulate == 1
    assert study.training.checkpointing == "none"
    assert study.proxy.full_seeds == 5
    assert recovers == (study.space.joint is None)  # the search is against the rule without it
    assert study.recovery is None or study.recovery.aim == "imitate"
