from pathlib import Path

import pytest
import torch

from dse.config import DataConfig, PretrainConfig
from dse.data import DataParts, LazyImages, check_data, load_data, source_parts, survey_data
from dse.errors import DataError, UnreadableImageError
from support.images import write_folder

DIGITS = DataConfig(name="digits", labels=("5", "6", "7", "8", "9"))
PARTS = ("train", "selection", "validation")


def images(parts: DataParts, name: str) -> torch.Tensor:
    held = getattr(parts, name).images
    assert isinstance(held, torch.Tensor)
    return held


def test_digits_are_scaled_coloured_and_split() -> None:
    parts = load_data(DIGITS, seed=0)
    assert parts.labels == ("5", "6", "7", "8", "9")
    assert parts.classes == 5
    assert [len(getattr(parts, name)) for name in PARTS] == [452, 149, 295]
    assert images(parts, "train").shape == (452, 3, 32, 32)
    assert images(parts, "train").dtype == torch.uint8
    for name in PARTS:
        counts = torch.bincount(getattr(parts, name).labels).float()
        assert counts.min() > 0.9 * counts.max()


def test_digits_are_normalised_by_their_own_mean_and_deviation() -> None:
    parts = load_data(DataConfig(name="digits"), seed=0)
    every = torch.cat([x for name in PARTS for x, _ in getattr(parts, name).batches(256)])
    assert len(every) == 1797
    assert float(every.mean()) == pytest.approx(0, abs=1e-3)
    assert float(every.std()) == pytest.approx(1, abs=1e-3)


def test_parts_are_disjoint_and_the_same_every_time() -> None:
    parts = load_data(DIGITS, seed=0)
    again = load_data(DIGITS, seed=0)
    other = load_data(DIGITS, seed=1)
    # Two pairs of the scans are equal; no other image may stand in two parts.
    seen = [one.numpy().tobytes() for name in PARTS for one in images(parts, name)]
    assert len(set(seen)) >= len(seen) - 2
    for name in PARTS:
        assert torch.equal(images(parts, name), images(again, name))
        assert torch.equal(getattr(parts, name).labels, getattr(again, name).labels)
        assert not torch.equal(images(parts, name), images(other, name))


def test_labels_come_in_the_given_order() -> None:
    forward = load_data(DataConfig(name="digits", labels=("3", "8")), seed=0)
    backward = load_data(DataConfig(name="digits", labels=("8", "3")), seed=0)
    assert backward.labels == ("8", "3")
    assert torch.equal(forward.train.labels, 1 - backward.train.labels)
    assert torch.equal(images(forward, "train"), images(backward, "train"))


def test_source_labels_are_those_named_or_all_the_rest() -> None:
    rest = source_parts(DIGITS, PretrainConfig(), seed=0)
    assert rest.labels == ("0", "1", "2", "3", "4")
    assert source_parts(DIGITS, PretrainConfig(labels=("4", "0")), seed=0).labels == ("4", "0")
    everything = DataConfig(name="digits", labels=tuple("012345678"))
    with pytest.raises(DataError, match="leaves 1 label to pretrain on"):
        source_parts(everything, PretrainConfig(), seed=0)
    with pytest.raises(DataError, match="no label 'ten': it has 0, 1, 2"):
        source_parts(DIGITS, PretrainConfig(labels=("0", "ten")), seed=0)


def folder(root: Path, **changed: object) -> DataConfig:
    return DataConfig.model_validate({"name": "folder", "root": root, "image_size": 8} | changed)


def test_a_folder_without_a_validation_part_is_split(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 10})
    parts = load_data(folder(tmp_path, validation_share=0.2, selection_share=0.5), seed=0)
    assert [len(getattr(parts, name)) for name in PARTS] == [12, 12, 6]
    assert torch.bincount(parts.validation.labels).tolist() == [4, 2]
    assert parts.mean == (0.485, 0.456, 0.406)


def test_a_folders_own_validation_part_is_used_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 8, "dog": 8, "owl": 8})
    write_folder(tmp_path / "val", {"cat": 3, "dog": 2, "owl": 1})
    parts = load_data(folder(tmp_path, labels=("owl", "cat")), seed=0)
    assert parts.labels == ("owl", "cat")
    assert [len(getattr(parts, name)) for name in PARTS] == [12, 4, 4]
    assert torch.bincount(parts.validation.labels).tolist() == [1, 3]


def test_what_exceeds_the_limit_is_read_lazily_to_the_same_end(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 12, "dog": 12})
    exactly = 24 * 3 * 8 * 8
    held = load_data(folder(tmp_path, augment="crop-flip", in_memory_limit=exactly), seed=0)
    lazy = load_data(folder(tmp_path, augment="crop-flip", in_memory_limit=exactly - 1), seed=0)
    for name in PARTS:
        assert isinstance(getattr(held, name).images, torch.Tensor)
        assert isinstance(getattr(lazy, name).images, LazyImages)
        batches = (getattr(parts, name).batches(5, seed=1) for parts in (held, lazy))
        for (x, y), (lazy_x, lazy_y) in zip(*batches, strict=True):
            assert torch.equal(x, lazy_x)
            assert torch.equal(y, lazy_y)


def test_only_training_batches_are_augmented(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 12, "dog": 12})
    parts = load_data(folder(tmp_path, augment="flip"), seed=0)
    assert [getattr(parts, name).augment for name in PARTS] == ["flip", "none", "none"]


def test_unknown_labels_are_refused_with_the_nearest(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 4, "dog": 4})
    for read in (check_data, lambda config: load_data(config, seed=0)):
        with pytest.raises(DataError, match="data 'folder' has no label 'cta': did you mean 'cat'"):
            read(folder(tmp_path, labels=("cta", "dog")))


def test_a_broken_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 4, "dog": 4})
    (tmp_path / "dog" / "002.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "cat" / "001.png").write_bytes(b"<html>404 not found</html>")
    check_data(folder(tmp_path))
    for config in (folder(tmp_path), folder(tmp_path, in_memory_limit=1)):
        for read in (load_data, survey_data):
            with pytest.raises(
                UnreadableImageError, match=r"cat/001\.png: can't be read"
            ) as caught:
                read(config, seed=0)
            assert {path.name for path in caught.value.paths} == {"001.png", "002.png"}


def test_checking_tells_what_there_is(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 20, "dog": 10})
    config = folder(tmp_path, validation_share=0.2, selection_share=0.5)
    summary = check_data(config)
    read = summary.model_copy(update={"checked": True, "pixel_values": "bytes, from 0 to 255"})
    assert load_data(config, seed=0).summary == read == survey_data(config, seed=0)
    assert (summary.name, summary.place, summary.labels) == (
        "folder",
        str(tmp_path),
        ("cat", "dog"),
    )
    assert (summary.train, summary.selection, summary.validation) == (12, 12, 6)
    assert (summary.classes, summary.images, summary.to_download) == (2, 30, False)
    digits = check_data(DIGITS, pretrain=PretrainConfig())
    assert (digits.name, digits.place, digits.labels) == ("digits", "", DIGITS.labels)
    assert [digits.train, digits.selection, digits.validation] == [452, 149, 295]


def test_checking_checks_source_labels_too() -> None:
    with pytest.raises(DataError, match="no label 'ten'"):
        check_data(DIGITS, pretrain=PretrainConfig(labels=("0", "ten")))
