"""Data sets of Hugging Face's package, saved on disk: real ones, of every task."""

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import Array2D, ClassLabel, Features, List, Value
from PIL import Image

from dse.config import DataConfig, TaskConfig, load_study
from dse.data import DataParts, check_data, inputs_of, load_data
from dse.errors import ConfigError, DataError
from dse.inputs import InputSpec
from dse.tasks.task import TaskRequest
from support.text_data import write_tokenizer

SIDE = 8


@pytest.fixture(autouse=True)
def _without_progress_bars() -> None:
    datasets.disable_progress_bars()


def picture(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def rows(features: dict[str, Any], make: Any, *, count: int = 16) -> datasets.Dataset:
    made = [make(number) for number in range(count)]
    columns = {name: [one[name] for one in made] for name in features}
    return datasets.Dataset.from_dict(columns, features=Features(features))


def saved(root: Path, **splits: datasets.Dataset) -> Path:
    held = splits["alone"] if "alone" in splits else datasets.DatasetDict(splits)
    held.save_to_disk(str(root))
    return root


def loaded(root: Path, kind: str = "classification", **keys: Any) -> DataParts:
    config = DataConfig(name="hf", root=root, **{"image_size": SIDE, **keys})
    found = load_data(config, seed=0, task=TaskRequest(config=TaskConfig(kind=kind)))
    assert inputs_of(config) == found.inputs
    return found


IMAGES = {"image": datasets.Image(), "label": ClassLabel(names=["cat", "dog"])}


def labelled(number: int) -> dict[str, Any]:
    return {"image": picture(number), "label": number % 2}


def test_its_own_splits_and_names_are_respected(tmp_path: Path) -> None:
    root = saved(
        tmp_path / "pets",
        train=rows(IMAGES, labelled),
        test=rows(IMAGES, lambda n: labelled(n + 50), count=6),
        unsupervised=rows(IMAGES, labelled),
    )
    data = loaded(root, mean=None, std=None)
    assert data.labels == ("cat", "dog")
    assert (len(data.train) + len(data.selection), len(data.validation)) == (16, 6)
    images, labels = next(data.validation.batches(6))
    assert labels.tolist() == [0, 1] * 3
    expected = torch.from_numpy(np.asarray(picture(50)).copy()).permute(2, 0, 1)
    assert torch.equal((images[0] * 255).round().byte(), expected)
    assert data.summary is not None
    assert "split 'unsupervised' is not used" in data.summary.notes
    assert data.summary.parts[2].origin == "split 'test'"
    summary = check_data(DataConfig(name="hf", root=root))
    assert (summary.train, summary.classes) == (len(data.train), 2)


def test_without_splits_a_validation_part_is_split_off(tmp_path: Path) -> None:
    root = saved(tmp_path / "alone", alone=rows(IMAGES, labelled))
    data = loaded(root)
    assert len(data.train) + len(data.selection) + len(data.validation) == 16
    assert min(map(len, (data.train, data.selection, data.validation))) > 0


def test_labels_numbers_and_masks_are_targets(tmp_path: Path) -> None:
    features = {
        "image": datasets.Image(),
        "tags": List(ClassLabel(names=["a", "b", "c"])),
        "price": Value("float32"),
        "weight": Value("int32"),
        "mask": datasets.Image(),
    }
    names = [[0, 2], [1], [], [0, 1]]

    def make(number: int) -> dict[str, Any]:
        mask = np.asarray(picture(number))[..., 0] // 86
        given = {"tags": names[number % 4], "price": number / 2, "weight": number}
        return {"image": picture(number), "mask": Image.fromarray(mask), **given}

    root = saved(tmp_path / "all", train=rows(features, make), val=rows(features, make))
    data = loaded(root, "multi-label")
    assert data.labels == ("a", "b", "c")
    assert data.validation.labels[:4].tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]]
    with pytest.raises(DataError, match=r"several columns for the target \(price, weight\)"):
        loaded(root, "regression")
    data = loaded(root, "regression", columns={"target": ["price", "weight"]})
    assert data.labels == ("price", "weight")
    assert data.task.unscaled(data.validation.labels)[3].tolist() == pytest.approx([1.5, 3])
    data = loaded(root, "segmentation", mean=None, std=None)
    assert data.labels == ("0", "1", "2")
    images, masks = next(data.train.batches(4, seed=0))
    assert torch.equal((images[:, 0] * 255).round().long() // 86, masks)


def write_study(folder: Path, network: str, data: str) -> None:
    text = (
        f'name = "s"\n[network]\nname = "{network}"\n[data]\n{data}\n[search]\nbudgets = ["1 MiB"]'
    )
    (folder / "s.toml").write_text(text, "utf-8")


TEXTS = {"review": Value("string"), "label": ClassLabel(names=["no", "yes"]), "id": Value("int64")}


def reviewed(number: int) -> dict[str, Any]:
    return {"review": f"{('bad', 'good')[number % 2]} film", "label": number % 2, "id": number}


def test_text_becomes_tokens_of_one_length(tmp_path: Path) -> None:
    root = saved(tmp_path / "reviews", train=rows(TEXTS, reviewed))
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    data = loaded(root, tokenizer=tokenizer, tokens=4)
    assert data.inputs is not None
    assert data.inputs.shape[1:] == (4,)
    batch, labels = next(data.train.batches(1))
    given = dict(zip(data.inputs.names, batch[0].tolist(), strict=True))
    assert given["input_ids"] == [(3, 2)[int(labels[0])], 4, 0, 0]
    assert given["attention_mask"] == [1, 1, 0, 0]
    with pytest.raises(DataError, match=r"data\.tokenizer is missing: the column review holds tex"):
        loaded(root)
    with pytest.raises(DataError, match="has no token to fill texts up with"):
        loaded(root, tokenizer=write_tokenizer(tmp_path / "other", pad=False))
    with pytest.raises(DataError, match=r"data\.tokenizer: .*none is no folder"):
        loaded(root, tokenizer=tmp_path / "none")
    (tokenizer / "tokenizer.json").write_text("{", "utf-8")
    broken = tokenizer.rename(tmp_path / "broken")
    with pytest.raises(DataError, match="broken can't be read") as error:
        loaded(root, tokenizer=broken)
    assert "\n" not in str(error.value)


def test_the_networks_own_tokenizer_is_the_default(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "bert")
    write_study(tmp_path, "hf:bert", 'name = "hf"\nroot = "reviews"')
    assert load_study(tmp_path / "s.toml").data.tokenizer == tmp_path / "bert"
    given = load_study(tmp_path / "s.toml", overrides=[f"data.tokenizer={tmp_path}"])
    assert given.data.tokenizer == tmp_path


def test_tokens_and_arrays_are_used_as_they_are(tmp_path: Path) -> None:
    token_features = {
        "input_ids": List(Value("int64")),
        "attention_mask": List(Value("int8")),
        "labels": Value("int64"),
    }
    root = saved(
        tmp_path / "tokens",
        train=rows(
            token_features,
            lambda n: {"input_ids": [n, 1, 0], "attention_mask": [1, 1, 0], "labels": n % 3},
            count=24,
        ),
    )
    data = loaded(root)
    assert data.inputs == InputSpec(
        shape=(2, 3),
        kind="int64",
        names=("input_ids", "attention_mask"),
        kinds=("int64", "int64"),
    )
    assert data.labels == ("0", "1", "2")
    signals = {"signal": Array2D((5, 7), "float32"), "label": Value("string")}
    root = saved(
        tmp_path / "signals",
        train=rows(signals, lambda n: {"signal": np.full((5, 7), n / 9), "label": "ab"[n % 2]}),
    )
    data = loaded(root, input=(5, 7))
    assert data.inputs == InputSpec(shape=(5, 7))
    assert data.labels == ("a", "b")


@pytest.mark.parametrize(
    ("keys", "kind", "reason"),
    [
        (
            {"columns": {"input": "img"}},
            "",
            "data.columns.input names 'img', which is missing: did you mean",
        ),
        ({"columns": {"target": "lable"}}, "", "which is missing: did you mean 'label'?"),
        ({"columns": {"target": "image"}}, "", "names 'image', whose type is image: the task ne"),
        ({"columns": {"input": "label"}}, "", "name an image, one text or two, or arrays"),
        ({"columns": {"input": ["image", "other"]}}, "", "takes one image at most"),
        (
            {"columns": {"input": "image", "target": "when"}},
            "",
            "names 'when', whose type is not read: the task needs a class label",
        ),
        (
            {"columns": {"input": "image", "target": ["label", "image"]}},
            "regression",
            "names 'image' as input and target",
        ),
        ({"columns": {"input": "image"}}, "multi-label", "has no column for the target"),
        ({"columns": {"input": "image"}}, "regression", "has no column for the target"),
        ({}, "", "has several columns of image (image, other)"),
    ],
)
def test_columns_that_are_missing_or_wrong_are_named(
    tmp_path: Path, keys: dict[str, Any], kind: str, reason: str
) -> None:
    features = {**IMAGES, "other": datasets.Image(), "when": Value("timestamp[s]")}
    root = saved(
        tmp_path / "pets",
        train=rows(features, lambda n: {**labelled(n), "other": picture(n), "when": n}, count=8),
    )
    with pytest.raises(DataError) as error:
        loaded(root, kind or "classification", **keys)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_both_splits_need_the_same_columns(tmp_path: Path) -> None:
    other = rows(IMAGES, labelled).rename_column("label", "class")
    root = saved(tmp_path / "pets", train=rows(IMAGES, labelled), test=other)
    with pytest.raises(DataError, match="split 'test' has no column 'label', which is read of the"):
        loaded(root)


def test_missing_values_are_named(tmp_path: Path) -> None:
    root = saved(
        tmp_path / "gaps",
        train=rows(IMAGES, lambda n: {**labelled(n), "image": None if n == 5 else picture(n)}),
    )
    with pytest.raises(DataError, match="image 5 can't be used: it is a NoneType"):
        loaded(root)
    root = saved(
        tmp_path / "unlabelled",
        train=rows(IMAGES, lambda n: {**labelled(n), "label": None if n == 5 else 1}),
    )
    with pytest.raises(DataError, match="image 5 has the label None"):
        loaded(root)


def test_folders_that_hold_no_data_set_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="holds no data set that save_to_disk wrote"):
            loaded(root)
    root = saved(tmp_path / "dev", dev=rows(IMAGES, labelled))
    with pytest.raises(DataError, match="has no split to train on \\(it has 'dev'\\)"):
        loaded(root)
    root = saved(tmp_path / "two", train=rows(IMAGES, labelled), train_extra=rows(IMAGES, labelled))
    with pytest.raises(DataError, match="'train', 'train_extra', which all look like the train"):
        loaded(root)
    root = saved(tmp_path / "damaged", alone=rows(IMAGES, labelled))
    (root / "state.json").write_text(json.dumps({"_data_files": 3}), "utf-8")
    with pytest.raises(DataError, match="damaged can't be read") as error:
        loaded(root)
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the package datasets .*pip install 'dse\[datasets"):
        loaded(root)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ('name = "hf"', "is missing: data.name"),
        ('name = "digits"\ncolumns = {input = "a"}', 'has a use only with data.name = "hf"'),
        ('name = "hf"\nroot = "x"\ncolumns = {inputs = "a"}', "must be a table of input and targ"),
        ('name = "hf"\nroot = "x"\ncolumns = {input = []}', "give the name of a column, or a list"),
        ('name = "hf"\nroot = "x"\ncolumns = {input = ["a", "a"]}', "holds 'a' twice"),
        ('name = "hf"\nroot = "x"\ntokens = 1', "data.tokens"),
    ],
)
def test_keys_are_checked_with_the_study(tmp_path: Path, lines: str, reason: str) -> None:
    file = tmp_path / "s.toml"
    text = (
        f'[network]\nname = "torchvision:resnet18"\n[data]\n{lines}\n[search]\nbudgets = ["1 MiB"]'
    )
    file.write_text(f'name = "s"\n{text}', "utf-8")
    with pytest.raises(ConfigError) as error:
        load_study(file)
    assert reason in str(error.value)
