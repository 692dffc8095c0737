"""Samples of any shape, used as they are."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from dse.config import DataConfig
from dse.data import inputs_of, load_data
from dse.errors import DataError
from dse.inputs import InputSpec


class Items(Dataset[Any]):
    def __init__(self, make: Any, count: int = 12) -> None:
        self.items = [(make(number), number % 2) for number in range(count)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Any:
        return self.items[position]


def loaded(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> Any:
    """Parts of a factory whose items `make` builds from their number."""
    module = type(sys)("my_items")
    module.build = lambda: (Items(make), Items(make, 6))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_items", module)
    config = DataConfig(name="my_items:build", root=tmp_path, **keys)
    return config, load_data(config, seed=0)


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((3,), torch.float32, "float32"),
        ((2, 5, 50), torch.float64, "float32"),
        ((6, 5, 7), torch.float16, "float32"),
        ((1, 4, 5, 6), torch.float32, "float32"),
        ((9,), torch.int32, "int64"),
    ],
)
def test_samples_of_any_shape_are_used_as_they_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    kind: str,
) -> None:
    config, data = loaded(
        tmp_path, lambda number: torch.full(shape, number - 4).to(dtype), monkeypatch
    )
    assert data.input_spec == inputs_of(config) == InputSpec(shape=shape, kind=kind)  # type: ignore[arg-type]
    samples, labels = next(data.validation.batches(6))
    assert samples.shape == (6, *shape)
    assert samples.dtype == data.input_spec.dtype
    assert samples.flatten(1)[:, 0].tolist() == [-4, -3, -2, -1, 0, 1]
    assert labels.tolist() == [0, 1] * 3


def test_many_channels_of_bytes_are_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, data = loaded(
        tmp_path, lambda n: np.full((6, 4, 5), 51 * (n % 6), dtype=np.uint8), monkeypatch
    )
    assert data.train.images.dtype == torch.uint8
    samples, _ = next(data.validation.batches(6))
    assert samples[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_a_flipped_array_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, data = loaded(
        tmp_path, lambda _n: np.arange(5, dtype=np.float32)[::-1], monkeypatch, input=(5,)
    )
    samples, _ = next(data.validation.batches(1))
    assert samples.tolist() == [[4, 3, 2, 1, 0]]


def test_tokens_and_their_mask_are_one_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(number: int) -> dict[str, Any]:
        return {"input_ids": torch.arange(5) + number, "attention_mask": torch.arange(5) < 3}

    config, data = loaded(tmp_path, make, monkeypatch)
    spec = inputs_of(config)
    assert spec.names == ("input_ids", "attention_mask")
    assert (spec.shape, spec.kind, spec.kinds) == ((2, 5), "int64", ("int64", "bool"))
    samples, _ = next(data.validation.batches(1))
    assert samples.tolist() == [[[0, 1, 2, 3, 4], [1, 1, 1, 0, 0]]]
    assert spec.example(1)[0, 1].tolist() == [1] * 5


def test_a_shape_that_is_given_must_be_that_of_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = torch.linspace(-3, 3, 20).reshape(1, 4, 5)
    _, data = loaded(tmp_path, lambda n: grey + n, monkeypatch, input=(1, 4, 5))
    samples, _ = next(data.validation.batches(1))
    assert torch.equal(samples[0], grey)  # as they are, not as an image of bytes
    with pytest.raises(DataError, match=r"image 0 has the shape 2x9, and data.input is \[2, 8\]"):
        loaded(tmp_path, lambda _n: torch.zeros(2, 9), monkeypatch, input=(2, 8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: torch.zeros(5 + n // 11), "image 11 has the shape 6, image 0 5"),
        (lambda n: torch.full((2, 5, 1, 1), float("nan") if n == 7 else 0.0), "image 7 .*NaN"),
        (lambda _n: {"a": torch.zeros(3), "b": torch.zeros(4)}, "different shapes"),
        (lambda _n: {1: torch.zeros(3), "1": torch.zeros(3)}, "inputs is named 1: name each"),
        (lambda _n: "some text", "it is a str"),
        (lambda _n: torch.zeros(7, dtype=torch.complex64), "complex numbers"),
    ],
)
def test_items_that_cannot_be_used_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        loaded(tmp_path, make, monkeypatch)
    assert "\n" not in str(caught.value)


def test_a_collate_of_the_data_set_pads_its_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collate(items: list[Any]) -> Any:
        padded = torch.zeros(len(items), 6, dtype=torch.int64)
        for row, (tokens, _) in enumerate(items):
            padded[row, : len(tokens)] = tokens
        return {"input_ids": padded, "labels": torch.tensor([label for _, label in items])}

    monkeypatch.setattr(Items, "collate_fn", staticmethod(collate), raising=False)
    _, data = loaded(tmp_path, lambda n: torch.ones(1 + n % 5, dtype=torch.int64), monkeypatch)
    samples, labels = next(data.validation.batches(6))
    assert samples.sum(1).tolist() == [1, 2, 3, 4, 5, 1]
    assert labels.tolist() == [0, 1] * 3


def test_grey_images_and_rectangles_by_data_input() -> None:
    config = DataConfig(name="digits", input=(1, 10, 14))
    data = load_data(config, seed=0)
    assert data.input_spec.shape == (1, 10, 14)
    samples, _ = next(data.validation.batches(3))
    assert samples.shape == (3, 1, 10, 14)
    assert (data.mean, data.std) == ((0.3052,), (0.3236,))
    three = load_data(DataConfig(name="digits", input=(3, 10, 14)), seed=0)
    colour, _ = next(three.validation.batches(3))
    assert torch.allclose(colour[:, :1], samples, atol=1e-5)
