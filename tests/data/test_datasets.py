from pathlib import Path

import pytest

from dse.data import check_data, load_data
from support.data_sets import config, refusal

FACTORY = """
import torch
from torch.utils.data import TensorDataset

def make():
    images = torch.arange(20 * 3 * 64, dtype=torch.uint8).reshape(20, 3, 8, 8)
    labels = torch.arange(20) % 2
    return TensorDataset(images, labels), TensorDataset(images[:6], labels[:6])

def named():
    train, validation = make()
    train.classes = ["even", "odd"]
    return train, validation

def one(): return make()[0]
def three():
    train, validation = make()
    train.classes = ["even"]
    return train, validation
def fractions():
    train, _ = make()
    return TensorDataset(train.tensors[0], torch.rand(20)), train
def fails(): raise KeyError("gone")
def ends(): raise SystemExit(3)
def late():
    import late_module
    return late_module.make()
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A module of the test's own in its folder; modules stay loaded, so each has its own name."""
    name = f"factory_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(FACTORY, encoding="utf-8")
    return name


def test_a_factory_gives_two_data_sets(tmp_path: Path, module: str) -> None:
    parts = load_data(config(f"{module}:make", tmp_path), seed=0)
    assert parts.labels == ("0", "1")
    assert [len(parts.train), len(parts.selection), len(parts.validation)] == [16, 4, 6]
    assert load_data(config(f"{module}:named", tmp_path), seed=0).labels == ("even", "odd")


def test_a_factory_may_import_modules_beside_it_when_it_is_called(
    tmp_path: Path, module: str
) -> None:
    (tmp_path / "late_module.py").write_text(FACTORY, encoding="utf-8")
    assert load_data(config(f"{module}:late", tmp_path), seed=0).labels == ("0", "1")


def test_a_factory_is_imported_but_not_called_to_check(tmp_path: Path, module: str) -> None:
    summary = check_data(config(f"{module}:fails", tmp_path, labels=("a", "b", "c")))
    assert (summary.classes, summary.train, summary.to_download) == (3, None, False)
    assert check_data(config(f"{module}:make", tmp_path)).classes is None


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("one", "returned a TensorDataset: return (train, validation)"),
        ("three", "a label is outside 0 to 0, for which there are names"),
        ("fractions", "labels are not whole numbers"),
        ("fails", "failed: KeyError: 'gone'"),
        ("ends", "failed: it ends the process (SystemExit: 3)"),
    ],
)
def test_factories_that_go_wrong(
    attribute: str, expected: str, tmp_path: Path, module: str
) -> None:
    assert expected in refusal(config(f"{module}:{attribute}", tmp_path))


def test_factories_that_can_not_be_found(tmp_path: Path, module: str) -> None:
    for when in ("load", "check"):
        wrong = refusal(config(f"{module}:mak", tmp_path), when=when)
        assert "has no function 'mak', did you mean 'make'?" in wrong
        assert "has no function 'number'" in refusal(
            config(f"{module}:number", tmp_path), when=when
        )
        wrong = refusal(config("no_such_module:make", tmp_path), when=when)
        assert "importing 'no_such_module' failed: ModuleNotFoundError" in wrong
        (tmp_path / "broken_module.py").write_text("1 +", encoding="utf-8")
        wrong = refusal(config("broken_module:make", tmp_path), when=when)
        assert "importing 'broken_module' failed: SyntaxError" in wrong
        (tmp_path / "ending_module.py").write_text("raise SystemExit", encoding="utf-8")
        wrong = refusal(config("ending_module:make", tmp_path), when=when)
        assert "importing 'ending_module' failed: it ends the process" in wrong
