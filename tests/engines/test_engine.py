"""The cache of plans."""

from pathlib import Path

import pytest
import torch

from dse.engines import engine
from dse.engines.engine import engine_plan
from dse.step.settings import StepSettings
from support.networks import Residual


def test_a_cached_plan_of_other_code_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = Residual(width=16), torch.zeros(4, 3, 16, 16)
    settings = StepSettings(engine="lean")
    real = engine._planner()
    assert len(real) == 16
    for code in (real, "another", "another"):
        monkeypatch.setattr(engine, "_planner", lambda code=code: code)
        engine_plan(network, images, settings=settings, batch_size=4, cache=tmp_path)
    assert len(list((tmp_path / "plans").iterdir())) == 2
