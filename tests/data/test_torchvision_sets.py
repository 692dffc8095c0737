import gzip
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from dse.data import check_data, load_data
from support.data_sets import config, refusal
from support.images import picture, write_folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name resolves, as on a machine without a network."""

    def fail(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


def write_pets(root: Path) -> Path:
    """Three breeds in the layout of Oxford-IIIT Pets, six images to train and two to test each."""
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    (base / "images").mkdir()
    for split, numbers in (("trainval", range(6)), ("test", range(6, 8))):
        lines = []
        for label, breed in enumerate(("Abyssinian", "beagle", "great_pyrenees")):
            for number in numbers:
                picture(100 * label + number).save(base / "images" / f"{breed}_{number}.jpg")
                lines.append(f"{breed}_{number} {label + 1} 1 1\n")
        (base / "annotations" / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return root


def write_mnist(root: Path) -> Path:
    """Scans of 28x28 in MNIST's own format: 40 to train and 20 to test."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 40), ("t10k", 20)):
        scans = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + scans.tobytes())
        header = struct.pack(">II", 0x801, count)
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return root


@pytest.mark.usefixtures("offline")
def test_a_data_set_with_named_splits_is_read_where_it_lies(tmp_path: Path) -> None:
    data = config("torchvision:OxfordIIITPet", write_pets(tmp_path), selection_share=0.5)
    summary = check_data(data)
    assert summary.labels == ("Abyssinian", "Beagle", "Great Pyrenees")
    assert (summary.train, summary.selection, summary.validation) == (9, 9, 6)
    assert not summary.to_download
    parts = load_data(data, seed=0)
    assert torch.bincount(parts.validation.labels).tolist() == [2, 2, 2]
    chosen = load_data(data.model_copy(update={"labels": ("Great Pyrenees", "Beagle")}), seed=0)
    assert len(chosen.validation) == 4


@pytest.mark.usefixtures("offline")
def test_a_data_set_with_a_train_switch_is_read_where_it_lies(tmp_path: Path) -> None:
    data = config("torchvision:MNIST", write_mnist(tmp_path))
    parts = load_data(data, seed=0)
    assert parts.classes == 10
    assert parts.labels[3] == "3 - three"
    assert [len(parts.train), len(parts.selection), len(parts.validation)] == [30, 10, 20]
    lazy = load_data(data.model_copy(update={"in_memory_limit": 1}), seed=0)
    pairs = zip(parts.train.batches(7, seed=0), lazy.train.batches(7, seed=0), strict=True)
    assert all(torch.equal(x, lazy_x) for (x, _), (lazy_x, _) in pairs)


@pytest.mark.usefixtures("offline")
def test_a_data_set_without_splits_is_split(tmp_path: Path) -> None:
    write_folder(tmp_path / "eurosat" / "2750", {"Forest": 8, "River": 8})
    parts = load_data(config("torchvision:EuroSAT", tmp_path, validation_share=0.25), seed=0)
    assert parts.labels == ("Forest", "River")
    assert len(parts.validation) == 4


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["Flowers102", "CIFAR10", "MNIST", "OxfordIIITPet", "EuroSAT"])
def test_what_is_missing_offline_is_named_with_the_place_to_put_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSE_CACHE", str(tmp_path))
    data = config(f"torchvision:{name}", None)
    assert check_data(data).to_download
    message = refusal(data)
    assert f"data 'torchvision:{name}' is not in {tmp_path}/data and can't be downloaded" in message
    assert "Name or service not known" in message
    assert f"run torchvision.datasets.{name}('{tmp_path}/data'" in message
    assert socket.getdefaulttimeout() is None


def test_a_damaged_download_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(_url: str, filename: str, **_kwargs: object) -> None:
        Path(filename).write_bytes(gzip.compress(b"not the archive"))

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", fetch)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_kwargs: url)
    message = refusal(config("torchvision:CIFAR10", tmp_path))
    assert "(File not found or corrupted.): fix that, or put its files there by hand" in message


def test_only_data_sets_of_labelled_images_can_be_named(tmp_path: Path) -> None:
    for when in ("load", "check"):
        wrong = refusal(config("torchvision:Flower102", tmp_path), when=when)
        assert wrong.endswith("no data set 'Flower102': did you mean 'Flowers102'?")
        wrong = refusal(config("torchvision:FakeData", tmp_path), when=when)
        assert "FakeData is not read from a folder" in wrong
        wrong = refusal(config("torchvision:Kinetics", tmp_path), when=when)
        assert "Kinetics needs frames_per_clip" in wrong
        wrong = refusal(config("torchvision:EMNIST", tmp_path), when=when)
        assert "EMNIST knows none of the splits train, trainval" in wrong
        wrong = refusal(config("torchvision:VisionDataset", tmp_path), when=when)
        assert "no data set 'VisionDataset'" in wrong
