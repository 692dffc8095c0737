import json

from dse.data.summary import DataSummary, PartSummary, PassedOver, part_summary, printable


def summary(classes: int = 2, **changed: object) -> DataSummary:
    labels = tuple(f"class{number}" for number in range(classes))
    parts = tuple(
        PartSummary(name=name, origin="somewhere", per_label=tuple(range(first, first + classes)))
        for name, first in (("train", 20), ("selection", 10), ("validation", 5))
    )
    known = {"name": "folder", "place": "pets", "labels": labels, "classes": classes}
    return DataSummary.model_validate(known | {"parts": parts} | changed)


def test_it_says_parts_classes_and_what_was_passed_over() -> None:
    passed_over = (PassedOver(reason="hidden", files=1200, examples=(".a", ".b", ".c")),)
    lines = summary(passed_over=passed_over, notes=("one thing",)).lines()
    assert lines == (
        "data folder in pets: 2 classes, 73 images",
        "  train 41 (somewhere), selection 21 (somewhere), validation 11 (somewhere)",
        "  classes (train/selection/validation): class0 20/10/5, class1 21/11/6",
        "  passed over: 1,200 files: hidden, such as .a, .b",
        "  one thing",
    )


def test_of_many_classes_it_names_the_smallest_and_the_largest() -> None:
    line = summary(classes=40).lines()[2]
    assert line.startswith("  40 classes (train/selection/validation): fewest class0 20/10/5, ")
    assert line.endswith("class39 59/49/44")


def test_it_is_the_same_after_json_and_counts_nothing_before_the_data_are_there() -> None:
    whole = summary()
    assert DataSummary.model_validate_json(json.dumps(whole.model_dump())) == whole
    unseen = DataSummary(name="torchvision:MNIST", place="/data", to_download=True)
    assert unseen.lines() == ("data torchvision:MNIST in /data: to be downloaded",)
    assert unseen.images is None


def test_one_image_is_not_several() -> None:
    one = DataSummary(
        name="folder",
        parts=(PartSummary(name="train", origin="train/", per_label=(1,)),),
        labels=("cat",),
    )
    assert one.lines()[0] == "data folder: 1 image"


def test_names_that_no_terminal_can_show_are_escaped() -> None:
    assert printable("caf\udce9\x1b[31m\nb") == r"caf\xe9\x1b[31m\nb"
    assert all(line.isprintable() for line in summary(labels=("a\nb", "\x00")).lines())


def test_a_part_counts_its_images_by_label() -> None:
    assert part_summary("train", "here", [2, 0, 2], classes=4).per_label == (1, 0, 2, 0)
