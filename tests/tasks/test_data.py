"""Targets from tables and masks: what is read, split, trained on and refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dse.config import DataConfig, TaskConfig, TrainingConfig
from dse.data import load_data
from dse.errors import DataError
from dse.finetune.loop import evaluate, finetune
from dse.tasks.task import TaskRequest

RNG = np.random.default_rng(0)
HEADER = "file,dark,large"


def table(folder: Path, *rows: str, header: str = HEADER) -> DataConfig:
    (folder / "t.csv").write_text("\n".join([header, *rows]), "utf-8")
    for row in rows:
        name = folder / row.partition(",")[0]
        if "missing" not in row:
            Image.fromarray(RNG.integers(0, 255, (8, 8, 3)).astype("uint8")).save(name)
    return DataConfig(name="folder", root=folder, table=folder / "t.csv", image_size=8)


def request(kind: str) -> TaskRequest:
    return TaskRequest(config=TaskConfig(kind=kind))


def rows(count: int = 24) -> list[str]:
    return [f"{n:02d}.png,{n % 2},{int(n % 3 == 0)}" for n in range(count)]


def test_a_table_of_labels_is_split_and_trained_on(tmp_path: Path) -> None:
    data = load_data(table(tmp_path, *rows()), seed=0, task=request("multi-label"))
    assert data.labels == ("dark", "large")
    assert data.train.labels.shape == (len(data.train), 2)
    assert len(data.train) + len(data.selection) + len(data.validation) == 24
    again = load_data(table(tmp_path, *rows()), seed=0, task=request("multi-label"))
    assert torch.equal(data.train.labels, again.train.labels)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    settings = TrainingConfig(batch_size=4, learning_rate=0.01)
    trace = finetune(network, data.train, settings=settings, epochs=2, seed=0, task=data.task)
    assert trace.losses[-1] < 5
    assert 0 <= evaluate(network, data.selection, batch_size=4, task=data.task).accuracy <= 1


def test_columns_of_numbers_are_standardised_by_the_training_part(tmp_path: Path) -> None:
    numbers = [f"{n:02d}.png,{100 + n},{n / 10}" for n in range(24)]
    data = load_data(table(tmp_path, *numbers), seed=0, task=request("regression"))
    assert torch.allclose(data.train.labels.mean(0), torch.zeros(2), atol=1e-4)
    assert float(data.task.unscaled(data.validation.labels)[:, 0].min()) >= 99.9


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("24.png,2,0", "column 'dark': '2' is not 0 or 1"),
        ("24.png,x,0", "column 'dark': 'x' is not 0 or 1"),
        ("24.png,1", "it has 2 cells, and the header 3"),
        ("missing.png,1,0", "there is no image 'missing.png'"),
        ("00.png,1,0", "'00.png' stands in line 2 already"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(DataError, match="line 26") as error:
        load_data(table(tmp_path, *rows(), row), seed=0, task=request("multi-label"))
    assert reason in str(error.value)


def masks(folder: Path, *, values: int = 3, size: tuple[int, int] = (10, 12)) -> DataConfig:
    for name in ("images", "masks"):
        (folder / name).mkdir(exist_ok=True)
    for n in range(16):
        mask = RNG.integers(0, values, size).astype("uint8")
        mask[0] = 255
        Image.fromarray(np.stack([mask * 60] * 3, -1)).save(folder / "images" / f"{n}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{n}.png")
    return DataConfig(name="folder", root=folder, image_size=8, augment="crop-flip")


def test_masks_are_moved_with_their_images(tmp_path: Path) -> None:
    config = masks(tmp_path, size=(8, 8)).model_copy(update={"mean": None, "std": None})
    data = load_data(config, seed=0, task=request("segmentation"))
    assert data.labels == ("0", "1", "2")
    for images, targets in data.train.batches(4, seed=1):
        assert targets.dtype == torch.int64
        known = targets != 255
        assert torch.equal((images[:, 0] * 255 / 60).round().long()[known], targets[known])
    network = nn.Conv2d(3, 3, 1)
    settings = TrainingConfig(batch_size=4, learning_rate=0.1)
    finetune(network, data.train, settings=settings, epochs=2, seed=0, task=data.task)
    found = evaluate(network, data.validation, batch_size=4, task=data.task)
    assert set(found.figures.values) == {"mean-iou", "pixel-accuracy"}


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    config = masks(tmp_path)
    Image.new("RGB", (12, 10)).save(tmp_path / "masks" / "3.png")
    with pytest.raises(DataError, match=r"3\.png has colours"):
        load_data(config, seed=0, task=request("segmentation"))
    Image.new("L", (5, 5)).save(tmp_path / "masks" / "3.png")
    with pytest.raises(DataError, match=r"3\.png has 5x5 pixels, and its image 12x10"):
        load_data(config, seed=0, task=request("segmentation"))
    (tmp_path / "masks" / "3.png").unlink()
    with pytest.raises(DataError, match="has no mask of its name"):
        load_data(config, seed=0, task=request("segmentation"))


def test_masks_of_black_and_white_are_not_taken_for_one_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hold only 0 and 255"):
        load_data(masks(tmp_path, values=1), seed=0, task=request("segmentation"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("file\n1.png\n", "has no column beside 'file'"),
        ("file,dark\n,1\n", "line 2: '' is no file's name"),
        ("file,dark\na\0.png,1\n", "is no file's name"),
        ("file,dark\n../t.csv,1\n", "lies outside"),
        ("file,dark,dark\n", "two columns 'dark'"),
        ("file,dark\n", "has no rows"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    config = table(tmp_path)
    (tmp_path / "t.csv").write_text(text, "utf-8")
    with pytest.raises(DataError) as error:
        load_data(config, seed=0, task=request("multi-label"))
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("weights", [[1.0, -2.0], "balance", [], [True], [float("nan")], 3])
def test_weights_are_positive_numbers(weights: object) -> None:
    with pytest.raises(ValueError, match='"balanced" or a positive number for each label'):
        TaskConfig(class_weights=weights)  # type: ignore[arg-type]
