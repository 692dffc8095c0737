"""Compiled models are found again, and never taken for another's."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dse.atomic import replaced_whole
from dse.errors import MemoryModelError
from dse.memory import cache
from dse.memory.cache import compiled_model, model_digest
from dse.memory.model import MemoryModel
from dse.pruning.groups import find_groups
from dse.step.settings import StepSettings
from support.networks import Residual, SqueezeExcite

EXAMPLE = torch.zeros(2, 3, 12, 12)
STEP = StepSettings()


def test_a_model_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = SqueezeExcite()
    groups = find_groups(network, EXAMPLE)
    first = compiled_model(network, EXAMPLE, settings=STEP, groups=groups, cache=tmp_path)
    (path,) = (tmp_path / "memory").iterdir()
    monkeypatch.setattr(MemoryModel, "compile", None)
    again = compiled_model(network, EXAMPLE, settings=STEP, groups=groups, cache=tmp_path)
    assert again.digest == first.digest
    monkeypatch.undo()
    path.write_bytes(b"damaged")
    repaired = compiled_model(network, EXAMPLE, settings=STEP, groups=groups, cache=tmp_path)
    assert repaired.digest == first.digest


def test_a_flipped_bit_is_never_used(tmp_path: Path) -> None:
    groups = find_groups(SqueezeExcite(), EXAMPLE)
    model = compiled_model(SqueezeExcite(), EXAMPLE, settings=STEP, groups=groups, cache=tmp_path)
    (path,) = (tmp_path / "memory").iterdir()
    sound = path.read_bytes()
    refused = 0
    for place in range(0, len(sound), max(1, len(sound) // 150)):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 16]) + sound[place + 1 :])
        try:
            assert MemoryModel.load(path).digest == model.digest  # it holds nothing that counts
        except MemoryModelError:
            refused += 1
    assert refused > 100


def test_two_processes_may_write_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = compiled_model(Residual(), EXAMPLE, settings=STEP, groups=(), cache=tmp_path)
    path = tmp_path / "model.npz"
    with replaced_whole(path) as others:
        others.write_bytes(b"half of what another process wri")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        model.save(path)
        assert others.read_bytes().endswith(b"wri")
        assert MemoryModel.load(path).digest == model.digest
        others.unlink()
        model.save(others)
    assert MemoryModel.load(path).digest == model.digest
    assert list(tmp_path.glob("*.partial*")) == []


def test_a_file_of_another_release_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez_compressed(path, header=np.array(json.dumps({"version": 1})))
    with pytest.raises(MemoryModelError, match="has version 1, this release reads"):
        MemoryModel.load(path)


def test_what_is_damaged_is_compiled_anew_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        compiled_model(Residual(), EXAMPLE, settings=STEP, groups=(), cache=tmp_path)
        (path,) = (tmp_path / "memory").iterdir()
        path.write_bytes(path.read_bytes()[:-1])
    (record,) = caplog.records
    assert record.getMessage().endswith("it is compiled anew")


def test_a_cache_that_can_not_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = compiled_model(Residual(), EXAMPLE, settings=STEP, groups=(), cache=tmp_path / "file")
    assert model.peaks([], batch_size=2) > 0


def test_everything_that_matters_changes_the_digest() -> None:
    network = SqueezeExcite()
    groups = find_groups(network, EXAMPLE)

    def digest(
        network: nn.Module = network,
        example: torch.Tensor = EXAMPLE,
        settings: StepSettings = STEP,
        *,
        free: bool = True,
    ) -> str | None:
        return model_digest(network, example, settings=settings, groups=groups if free else ())

    wide = torch.zeros(2, 3, 16, 16)
    other = [
        digest(Residual(), free=False),
        digest(example=wide),
        digest(settings=replace(STEP, scheme="last")),
        digest(settings=replace(STEP, checkpointing="blocks")),
        digest(free=False),
    ]
    assert len({digest(), *other}) == len(other) + 1
    assert digest() == digest(SqueezeExcite())


def test_other_code_of_the_package_changes_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_digest(Residual(), EXAMPLE, settings=STEP, groups=())
    assert len(cache.package_digest()) == 64
    monkeypatch.setattr(cache, "package_digest", lambda: "another")
    assert model_digest(Residual(), EXAMPLE, settings=STEP, groups=()) != before


def test_a_class_without_source_is_not_kept(tmp_path: Path) -> None:
    typed = type("Typed", (nn.Sequential,), {"__module__": "__main__at_a_prompt__"})
    network = typed(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 2))
    assert model_digest(network, EXAMPLE, settings=STEP, groups=()) is None
    compiled_model(network, EXAMPLE, settings=STEP, groups=(), cache=tmp_path)
    assert not (tmp_path / "memory").exists()
