"""Data sets of a factory for each task: labels, numbers and masks, collates and transforms."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from dse.config import DataConfig, TaskConfig, TrainingConfig
from dse.data import DataParts, inputs_of, load_data
from dse.data.datasets import dataset_source
from dse.data.opening import _factory_inputs
from dse.data.reading import Reading
from dse.data.targets import TargetReading
from dse.errors import DataError
from dse.finetune.loop import evaluate, finetune
from dse.tasks.task import TaskRequest

SIDE = 8
Make = Callable[[int], Any]


class Items(Dataset[Any]):
    """Items that a function makes of their number, with attributes."""

    def __init__(self, make: Make, count: int, **attributes: Any) -> None:
        self.make, self.count = make, count
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> Any:
        return self.make(position)


def picture(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def loaded(
    monkeypatch: pytest.MonkeyPatch,
    make: Make,
    kind: str,
    *,
    attributes: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
    **keys: Any,
) -> DataParts:
    module = type(sys)("own_items")
    sets = [Items(make, count, **(attributes or {})) for count in (16, 8)]
    module.build = lambda: tuple(sets)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_items", module)
    config = DataConfig(name="own_items:build", root=Path(), **{"image_size": SIDE, **keys})
    _factory_inputs.cache_clear()
    found = load_data(config, seed=0, task=TaskRequest(config=TaskConfig(kind=kind, **task or {})))
    assert inputs_of(config) == found.inputs
    return found


def labels_of(number: int) -> list[int]:
    return [number % 2, int(number % 3 == 0)]


@pytest.mark.parametrize("as_target", [list, tuple, np.array, torch.tensor])
def test_several_labels_are_vectors_of_zeros_and_ones(
    monkeypatch: pytest.MonkeyPatch, as_target: Callable[[Any], Any]
) -> None:
    names = {"classes": ["odd", "third"]}
    data = loaded(
        monkeypatch,
        lambda n: (picture(n), as_target(labels_of(n))),
        "multi-label",
        attributes=names,
        task={"positive_weights": "balanced"},
    )
    assert data.labels == ("odd", "third")
    assert data.validation.labels.tolist() == [labels_of(n) for n in range(8)]
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 2))
    settings = TrainingConfig(batch_size=4, learning_rate=0.01)
    finetune(network, data.train, settings=settings, epochs=1, seed=0, task=data.task)
    found = evaluate(network, data.selection, batch_size=4, task=data.task)
    assert set(found.figures.values) == {"mean-average-precision", "label-f1"}


def test_labels_may_be_chosen_and_those_of_attributes_need_no_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[int] = []

    def make(number: int) -> Any:
        reads.append(number)
        return picture(number), labels_of(number)

    every = np.array([labels_of(n) for n in range(400)])
    dataset = Items(make, 400, classes=["a", "b"], targets=every)
    source = dataset_source(
        dataset,
        None,
        name="own",
        reading=Reading.square(SIDE),
        target=TargetReading(form="labels"),
    )
    assert source.train.values is not None
    assert np.array_equal(source.train.values, every)
    assert len(set(reads)) < 100
    data = loaded(
        monkeypatch, make, "multi-label", attributes={"classes": ["a", "b"]}, labels=("b",)
    )
    assert data.labels == ("b",)
    assert data.validation.labels.tolist() == [[float(n % 3 == 0)] for n in range(8)]


def test_numbers_are_standardised_and_keep_their_own_units(monkeypatch: pytest.MonkeyPatch) -> None:
    data = loaded(monkeypatch, lambda n: (picture(n), 100.0 + n), "regression")
    assert data.labels == ("0",)
    assert float(data.train.labels.mean()) == pytest.approx(0, abs=1e-5)
    unscaled = data.task.unscaled(data.validation.labels)[:, 0].tolist()
    assert unscaled == pytest.approx([100.0 + n for n in range(8)])


def mask_of(number: int) -> Any:
    """The image's own red channel in three steps, so that both can be compared."""
    return np.asarray(picture(number))[..., 0] // 86


@pytest.mark.parametrize(
    "as_mask",
    [
        lambda mask: mask,
        lambda mask: torch.from_numpy(mask.astype("int64"))[None],
        Image.fromarray,
    ],
)
def test_masks_are_augmented_with_their_images(
    monkeypatch: pytest.MonkeyPatch, as_mask: Callable[[Any], Any]
) -> None:
    data = loaded(
        monkeypatch,
        lambda n: {"image": picture(n), "mask": as_mask(mask_of(n))},
        "segmentation",
        task={"class_weights": "balanced"},
        augment="crop-flip",
        mean=None,
        std=None,
    )
    assert data.labels == ("0", "1", "2")
    for images, masks in data.train.batches(4, seed=1):
        assert masks.dtype == torch.int64
        assert torch.equal((images[:, 0] * 255).round().long() // 86, masks)
    network = nn.Conv2d(3, 3, 1)
    settings = TrainingConfig(batch_size=4, learning_rate=0.01)
    finetune(network, data.train, settings=settings, epochs=1, seed=0, task=data.task)
    assert 0 <= evaluate(network, data.validation, batch_size=4, task=data.task).accuracy <= 1


def test_masks_belong_to_samples_of_any_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(number: int) -> Any:
        sample = torch.full((5, 4, 6), float(number))
        return sample, (sample[0] > 6).long()

    data = loaded(monkeypatch, make, "segmentation", attributes={"classes": ["low", "high"]})
    assert data.inputs is not None
    assert data.inputs.shape == (5, 4, 6)
    for samples, masks in data.train.batches(3):
        assert samples.shape[1:] == (5, 4, 6)
        assert torch.equal(samples[:, 0] > 6, masks.bool())


def test_random_transforms_of_a_data_set_move_masks_too_and_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make(number: int) -> Any:
        image, mask = np.asarray(picture(number)), mask_of(number)
        if torch.rand(()) < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        return Image.fromarray(image.copy()), mask.copy()

    data = loaded(monkeypatch, make, "segmentation", mean=None, std=None)
    assert data.train.varies
    first, again = (list(data.train.batches(4, seed=3)) for _ in range(2))
    for (images, masks), (other, _) in zip(first, again, strict=True):
        assert torch.equal((images[:, 0] * 255).round().long() // 86, masks)
        assert torch.equal(images, other)


def test_a_collate_of_the_data_sets_own_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    def collate(items: list[Any]) -> dict[str, Any]:
        """Pad signals to one length, and make targets of text."""
        signals = torch.zeros(len(items), 2, 12)
        for place, (signal, _) in enumerate(items):
            signals[place, :, : signal.shape[1]] = signal
        return {"signal": signals, "target": torch.tensor([float(t) for _, t in items])}

    data = loaded(
        monkeypatch,
        lambda n: (torch.full((2, 5 + n % 7), float(n)), f"{n}.5"),
        "regression",
        attributes={"collate_fn": collate},
        task={"standardise": False},
    )
    assert data.inputs is not None
    assert data.inputs.shape == (2, 12)
    assert data.validation.labels[:, 0].tolist() == [n + 0.5 for n in range(8)]


@pytest.mark.parametrize(
    ("kind", "target", "reason"),
    [
        ("multi-label", [0, 2], "it holds 2: give a 0 or 1 for each label"),
        ("multi-label", "cat", "has the target 'cat': it is str: give a 0 or 1 for each label"),
        ("multi-label", [[0, 1]], "it is int64 of shape (1, 2)"),
        ("multi-label", [], "it is float64 of shape (0,)"),
        ("regression", float("nan"), "it holds NaN, infinity or a number beyond float32"),
        ("regression", 1e39, "it holds NaN, infinity or a number beyond float32"),
        ("regression", None, "it is NoneType: give a number, or a vector of them"),
        ("regression", [[1], [2, 3]], "it is list: give a number"),
        ("segmentation", np.zeros((SIDE, SIDE)), "its mask is float64: give a whole number"),
        ("segmentation", np.full((SIDE, SIDE), 300), "its mask has the value 300"),
        ("segmentation", np.full((SIDE, SIDE), -1), "its mask has the value -1"),
        ("segmentation", np.eye(4, dtype=int), "its mask has 4x4 pixels, and its image 8x8"),
        ("segmentation", picture(0), "its mask has colours (RGB)"),
        ("segmentation", np.indices((2, 8, 8)), "its mask has the shape (3, 2, 8, 8)"),
        ("segmentation", np.zeros((SIDE, SIDE), int), "the masks hold one class"),
        ("segmentation", np.zeros((0, 0), int), "its mask is empty"),
    ],
)
def test_targets_that_do_not_fit_the_task_are_named(
    monkeypatch: pytest.MonkeyPatch, kind: str, target: object, reason: str
) -> None:
    with pytest.raises(DataError) as error:
        loaded(monkeypatch, lambda n: (picture(n), target), kind)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_items_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="image 5 has 3 values to predict, and training image 0 ha"):
        loaded(monkeypatch, lambda n: (picture(n), [0.5] * (3 if n == 5 else 2)), "regression")
    with pytest.raises(DataError, match="names 1 classes, and its items have 2 values"):
        loaded(
            monkeypatch,
            lambda n: (picture(n), labels_of(n)),
            "multi-label",
            attributes={"classes": ["a"]},
        )
    with pytest.raises(DataError, match="has the class 2, and there are 2 labels"):
        loaded(monkeypatch, lambda n: (picture(n), mask_of(n)), "segmentation", labels=("a", "b"))
    tokens = torch.arange(6)
    with pytest.raises(DataError, match=r"image 0 has a mask of shape \(6,\), and itself 6 whole"):
        loaded(monkeypatch, lambda _n: (tokens, tokens % 2), "segmentation")
