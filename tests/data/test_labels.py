"""Labels are those of the items, whatever a data set's attributes say."""

from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from dse.data.datasets import dataset_source
from dse.data.reading import Reading
from dse.data.sources import Source
from dse.data.targets import plain_label
from dse.errors import DataError
from support.images import picture


class Items(Dataset[Any]):
    """Pictures with labels, and attributes that may say something else."""

    def __init__(
        self,
        labels: list[Any],
        *,
        item_label: Callable[[Any], Any] = lambda label: label,
        **attributes: Any,
    ) -> None:
        self.given, self.item_label = labels, item_label
        self.reads = 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, position: int) -> Any:
        self.reads += 1
        return picture(position), self.item_label(self.given[position])


def source(train: Dataset[Any], validation: Dataset[Any] | None = None) -> Source:
    return dataset_source(train, validation or train, name="mine", reading=Reading.square(8))


def refusal(train: Dataset[Any], validation: Dataset[Any] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        source(train, validation)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FOUR = [0, 1, 2, 3] * 10


def test_a_target_transform_is_applied_and_reported() -> None:
    halves = Items(FOUR, item_label=lambda one: int(one >= 2), targets=FOUR, classes=list("abcd"))
    read = source(halves)
    assert read.labels == ("0", "1")
    assert read.train.targets.tolist() == [int(one >= 2) for one in FOUR]
    (note,) = read.notes
    assert note.startswith("labels are those of the items: 'targets' of mine says 1 of image 1,")
    assert note.endswith("so they are numbered, not named")


def test_a_transform_of_one_rare_label_is_seen() -> None:
    labels = [0, 1] * 200 + [2]
    rare = Items(labels, item_label=lambda one: min(one, 1), targets=labels)
    assert source(rare).labels == ("0", "1")


def test_an_attribute_that_agrees_spares_reading_and_keeps_names() -> None:
    many = Items(FOUR * 20, targets=FOUR * 20, classes=list("abcd"))
    assert source(many).labels == tuple("abcd")
    assert many.reads < 500  # of both parts: labels, values and random transforms


def test_an_item_that_disagrees_later_is_refused_by_name() -> None:
    labels = [0, 1] * 200
    odd = Items(labels, targets=labels)
    read = source(odd)
    odd.given = [*labels[:77], 0, *labels[78:]]
    with pytest.raises(DataError, match=r"image 77 has the label 0, but 1 before"):
        read.train.images.fetch(torch.arange(400))


class Colour(Enum):
    RED = 0
    BLUE = 1


@pytest.mark.parametrize(
    "convert",
    [
        torch.tensor,
        np.int64,
        np.uint8,
        np.array,
        float,
        bool,
        Colour,
        lambda one: torch.tensor([one]),
        lambda one: torch.eye(2)[one],
        lambda one: [float(one == 0), float(one == 1)],
    ],
)
def test_labels_of_many_kinds_are_taken(convert: Callable[[int], Any]) -> None:
    assert source(Items([0, 1] * 5, item_label=convert)).train.targets.tolist() == [0, 1] * 5


def test_labels_may_be_names() -> None:
    read = source(Items(["owl", "cat"] * 5))
    assert read.labels == ("cat", "owl")
    assert read.train.targets.tolist() == [1, 0] * 5
    assert source(Items(["owl", "cat"] * 5, classes=["owl", "cat"])).labels == ("owl", "cat")
    assert "image 0 has the label 'yak'" in refusal(Items(["owl", "cat"]), Items(["yak", "cat"]))
    assert "some labels are names and others numbers" in refusal(Items(["owl", 1]))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (None, "has the label None: labels are not whole numbers"),
        (0.5, "labels are not whole numbers"),
        (torch.ones(3), "labels are not whole numbers"),
        ([1, 1, 0], "it is 2 labels at once"),
        ({"box": 1}, "labels are not whole numbers"),
        (-1, "has the label -1: leave such images out"),
    ],
)
def test_labels_that_can_not_be_learned_are_refused_by_name(label: object, expected: str) -> None:
    message = refusal(Items([0, 1, label]))
    assert "image 2" in message
    assert expected in message


def test_numbers_without_names_stand_for_themselves() -> None:
    read = source(Items([1, 5, 5, 1]))
    assert read.labels == ("1", "5")
    assert read.train.targets.tolist() == [0, 1, 1, 0]
    assert "the training images have the labels 1, 5" in refusal(Items([1, 5]), Items([1, 7]))


def test_names_follow_class_to_idx_and_wrappers() -> None:
    named = Items([0, 1] * 4, classes=["b", "a"], class_to_idx={"a": 0, "b": 1})
    assert source(named).labels == ("a", "b")
    assert source(Subset(named, range(4))).labels == ("a", "b")
    assert source(ConcatDataset([named, named])).labels == ("a", "b")


def test_a_validation_set_that_numbers_its_classes_otherwise_is_understood() -> None:
    train = Items([0, 1, 2] * 3, classes=["a", "b", "c"])
    read = source(train, Items([0, 1], classes=["b", "c"]))
    assert read.validation is not None
    assert read.validation.targets.tolist() == [1, 2]
    assert "names a class 'd'" in refusal(train, Items([0, 1], classes=["b", "d"]))


def test_attributes_that_fail_leave_the_items_to_decide() -> None:
    class Failing(Items):
        @property
        def targets(self) -> list[int]:
            raise RuntimeError("not now")

        @property
        def classes(self) -> list[str]:
            raise KeyError("nor that")

    assert source(Failing([0, 1] * 3)).labels == ("0", "1")


def test_empty_data_sets_are_refused() -> None:
    assert "the training set is empty" in refusal(Items([]))


def test_a_label_is_a_number_or_a_name() -> None:
    assert plain_label(np.str_("cat")) == "cat"
    with pytest.raises(TypeError, match="not whole numbers"):
        plain_label(b"cat")
