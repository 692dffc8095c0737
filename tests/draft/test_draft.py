from pathlib import Path

import pytest
from PIL import Image

from dse.config import load_study
from dse.draft import Draft, Given, draft_study
from dse.errors import ConfigError, DataError, InfeasibleError, NetworkError
from support.task_studies import write_study
from support.text_data import save_reviews
from support.tiny import NETWORK


def make_images(folder: Path, *, per_label: int = 24, side: int = 20, labels: int = 2) -> Path:
    for number in range(labels):
        place = folder / f"label {number:02d}"
        place.mkdir(parents=True)
        for index in range(per_label):
            colour = (40 + 9 * number, 5 * index, 120)
            Image.new("RGB", (side + index % 3, side), colour).save(place / f"{index}.png")
    return folder


def drafted(folder: Path, network: str = "tiny_network:Tiny", **changes: object) -> Draft:
    (folder / "tiny_network.py").write_text(NETWORK, encoding="utf-8")
    images = folder / "photos"
    if not images.exists():
        make_images(images)
    wanted = {"weights": None, "image_size": None, **changes}
    given = Given(images=images, network=network)
    return draft_study(folder / "my pets.toml", given=given, **wanted)  # type: ignore[arg-type]


def test_a_draft_runs_as_it_is_and_says_what_was_found(tmp_path: Path) -> None:
    draft = drafted(tmp_path)
    file = tmp_path / "my pets.toml"
    assert not file.exists()
    file.write_text(draft.text, encoding="utf-8")
    study = load_study(file)
    assert study == draft.plan.study
    assert study.name == "my_pets"
    assert (study.network.name, study.network.weights) == ("tiny_network:Tiny", "none")
    assert study.data.root == tmp_path / "photos"
    assert 'root = "photos"' in draft.text
    assert study.data.labels == ("label 00", "label 01")
    assert study.data.image_size == 16  # the largest common size within the images' 20 pixels
    assert study.training.batch_size == 4
    assert [str(one) for one in study.search.budgets] == ["25 %", "50 %"]
    peak = draft.plan.unpruned_peak_bytes or 0
    assert draft.plan.budgets == (peak // 4, peak // 2)
    assert draft.plan.notes == ()
    for found in ("short sides is 20 px", "label 00 24, label 01 24", "# train:"):
        assert found in draft.text


def test_an_unreadable_file_does_not_keep_a_draft_from_being_written(tmp_path: Path) -> None:
    images = make_images(tmp_path / "photos")
    (images / "label 00" / "0.png").write_bytes(b"<html>404 not found</html>")
    (images / "label 00" / "notes.txt").touch()
    draft = drafted(tmp_path)
    assert "short sides is 20 px" in draft.text
    assert "1 file: not an image that Pillow reads (.txt)" in draft.plan.data.lines()[3]


def test_a_folder_without_any_readable_image_is_refused(tmp_path: Path) -> None:
    for file in make_images(tmp_path / "photos", per_label=8).rglob("*.png"):
        file.write_bytes(b"<html>404 not found</html>")
    with pytest.raises(DataError, match=r"none of the images in .*photos can be read"):
        drafted(tmp_path)


def test_many_labels_are_not_listed_one_by_one(tmp_path: Path) -> None:
    make_images(tmp_path / "photos", labels=21, per_label=4)
    draft = drafted(tmp_path)
    assert draft.plan.study.data.labels is None
    assert '# labels = ["label 00", "label 01"]' in draft.text
    assert "# 21 labels; the first are label 00 4," in draft.text


def test_torchvision_brings_its_weights_size_and_normalisation(tmp_path: Path) -> None:
    draft = drafted(tmp_path, "torchvision:squeezenet1_1", image_size=64)
    study = draft.plan.study
    assert study.network.weights == "DEFAULT"
    assert study.data.mean == (0.485, 0.456, 0.406)
    assert study.data.image_size == 64
    assert any("will be downloaded" in note for note in draft.plan.notes)
    bare = drafted(tmp_path, "torchvision:squeezenet1_1", image_size=64, weights="none")
    assert bare.plan.study.network.weights == "none"
    with pytest.raises(NetworkError, match=r"--weights IMAGENET9: .* use none, a file or one of"):
        drafted(tmp_path, "torchvision:squeezenet1_1", weights="IMAGENET9")


FIXED = """
from torch import nn

class Fixed(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 2))
        self.head = nn.Linear(64 * 7 * 7, num_classes)

    def forward(self, images):
        return self.head(self.body(images).flatten(1))

def wrong(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 7))

class Seven(Fixed):
    def __init__(self, num_classes):
        super().__init__(7)

    def forward(self, images):
        return {"logits": super().forward(images)}
"""


def test_the_image_size_is_tried(tmp_path: Path) -> None:
    (tmp_path / "fixed_network.py").write_text(FIXED, encoding="utf-8")
    study = drafted(tmp_path, "fixed_network:Fixed").plan.study
    assert study.data.image_size == 32
    with pytest.raises(NetworkError, match=r"doesn't run on images of 64 pixels .*--image-size"):
        drafted(tmp_path, "fixed_network:Fixed", image_size=64)
    with pytest.raises(NetworkError, match="doesn't run on images of 16, 12, 8, 224"):
        drafted(tmp_path, "fixed_network:wrong")
    with pytest.raises(NetworkError, match=r"its output has shape \(2, 7\), not \(2, 2\)"):
        drafted(tmp_path, "fixed_network:Seven", image_size=32)


STIFF = """
import torch
from torch import nn

class Bulky(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Linear(768, 768)  # its outputs are added to the images, so none can go
        self.narrow = nn.Linear(768, 8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images):
        flat = images.flatten(1)
        return self.head(self.narrow(flat + self.body(flat)).relu())

class Tabled(Bulky):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.register_buffer("table", torch.zeros(60_000_000))  # held whatever trains

def narrow(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
"""


def test_budgets_can_be_met_whatever_the_network(tmp_path: Path) -> None:
    (tmp_path / "stiff_network.py").write_text(STIFF, encoding="utf-8")
    plan = drafted(tmp_path, "stiff_network:narrow").plan
    assert plan.study.space.multiple == 1  # its eight channels go one by one
    assert plan.budgets is not None
    assert min(plan.budgets) >= (plan.smallest_peak_bytes or 0)
    assert max(plan.budgets) < (plan.unpruned_peak_bytes or 0)
    bulky = drafted(tmp_path, "stiff_network:Bulky").plan  # recipes save what pruning can't
    assert bulky.budgets is not None
    assert min(bulky.budgets) >= (bulky.smallest_peak_bytes or 0)
    with pytest.raises(InfeasibleError, match=r"save at most \d\.\d % of the training"):
        drafted(tmp_path, "stiff_network:Tabled")


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="no function 'Tony', did you mean 'Tiny'"):
        drafted(tmp_path, "tiny_network:Tony")
    with pytest.raises(DataError, match="does not exist"):
        draft_study(
            tmp_path / "x.toml",
            given=Given(images=tmp_path / "nowhere", network="torchvision:resnet18"),
            weights=None,
            image_size=None,
        )


@pytest.mark.parametrize(
    "kind", ["multi-label", pytest.param("regression", marks=pytest.mark.slow), "segmentation"]
)
def test_a_study_of_each_task_is_drafted_for_its_data(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the network's module lies
    write_study(tmp_path, kind)  # its data and network
    maps = kind == "segmentation"
    given = Given(
        images=tmp_path / ("" if maps else "images"),
        table=None if maps else tmp_path / "table.csv",
        network=f"task_nets:{'Maps' if maps else 'Vectors'}",
    )
    assert given.kind == kind
    draft = draft_study(tmp_path / "new.toml", given=given, weights=None, image_size=None)
    (tmp_path / "new.toml").write_text(draft.text, "utf-8")
    study = load_study(tmp_path / "new.toml")
    assert study == draft.plan.study
    assert (study.task.kind, study.data.image_size) == (kind, 16)
    assert study.data.table == (None if maps else tmp_path / "table.csv")
    assert f'kind = "{kind}"' in draft.text
    with pytest.raises(ConfigError, match="--table"):
        _ = Given(images=given.images, table=given.table, task=OTHER[kind]).config


OTHER = {
    "multi-label": "segmentation",
    "regression": "classification",
    "segmentation": "regression",
}


@pytest.mark.slow
def test_a_study_of_text_is_drafted_for_a_saved_data_set(tmp_path: Path) -> None:
    save_reviews(tmp_path)
    given = Given(dataset=tmp_path / "reviews", network=f"hf:{tmp_path / 'bert'}")
    draft = draft_study(tmp_path / "reviews.toml", given=given, weights=None, image_size=None)
    (tmp_path / "reviews.toml").write_text(draft.text, "utf-8")
    study = load_study(tmp_path / "reviews.toml")
    assert study == draft.plan.study
    assert study.data.labels == ("no", "yes")
    assert study.data.tokenizer == tmp_path / "bert"
    assert study.network.weights == "none"
    assert "tokens = 128" in draft.text
    assert "image_size" not in draft.text
    assert draft.samples == "2x128 whole numbers (input_ids, attention_mask)"
    for changed, reason in (
        ({"given": Given(dataset=given.dataset)}, "--network is missing|data.tokenizer is missing"),
        ({"image_size": 8}, "--image-size has no use"),
    ):
        wanted = {"given": given, "weights": None, "image_size": None, **changed}
        with pytest.raises((ConfigError, DataError), match=reason):
            draft_study(tmp_path / "x.toml", **wanted)  # type: ignore[arg-type]
