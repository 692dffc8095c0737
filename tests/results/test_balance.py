import pytest

from dse.results.balance import (
    ClassImages,
    imbalance_warning,
    is_imbalanced,
    majority_share,
    missed_warning,
)

RARE = ClassImages(
    labels=("common", "rare", "rarer"),
    train=(100, 3, 2),
    selection=(33, 1, 1),
    validation=(57, 2, 1),
)
EVEN = ClassImages(labels=("a", "b"), train=(9, 8), selection=(3, 3), validation=(4, 5))


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ((50, 50), False),
        ((74, 26), False),
        ((75, 25), True),  # always the larger: half-way from chance to all right
        ((190, 6, 4), True),
        ((40, 40, 20), False),
        ((100,) * 9 + (36,), False),
        ((100,) * 9 + (29,), True),  # fewer than a third of the mean, 92.9
        ((10, 10, 0), True),
        ((5,), True),  # one class: the constant answer is always right
    ],
)
def test_imbalance(images: tuple[int, ...], *, expected: bool) -> None:
    assert is_imbalanced(images) is expected


def test_one_line_says_what_a_constant_answer_scores_and_which_key_to_set() -> None:
    assert majority_share(RARE.validation) == 57 / 60
    line = imbalance_warning(RARE, metric="accuracy")
    assert line is not None
    assert "\n" not in line
    assert "'rarer' has 1 of 60 validation images" in line
    assert "always answers 'common' scores 95.0 % accuracy" in line
    assert 'set search.metric = "balanced-accuracy" or "macro-f1"' in line


def test_an_imbalanced_part_alone_is_enough() -> None:
    one_sided = ClassImages(labels=("a", "b"), train=(9, 1), selection=(3, 3), validation=(4, 5))
    assert imbalance_warning(one_sided, metric="accuracy") is not None


@pytest.mark.parametrize("metric", ["balanced-accuracy", "macro-f1"])
def test_other_metrics_count_every_class_alike(metric: str) -> None:
    assert imbalance_warning(RARE, metric=metric) is None  # type: ignore[arg-type]


def test_even_classes_and_unknown_ones_are_not_mentioned() -> None:
    assert imbalance_warning(EVEN, metric="accuracy") is None
    assert imbalance_warning(None, metric="accuracy") is None


def test_classes_that_are_never_right_are_named() -> None:
    line = missed_warning("trial 3", (0.9, 0.0, 0.0), RARE, part="validation")
    assert line == (
        "trial 3 gets none of the validation images of 2 of 3 classes right: 'rare' (2), 'rarer' "
        "(1)"
    )
    assert missed_warning("trial 3", (0.9, 0.1, None), RARE, part="validation") is None


def test_of_many_such_classes_five_are_named() -> None:
    labels = tuple(f"c{number}" for number in range(9))
    many = ClassImages(labels=labels, train=(9,) * 9, selection=(3,) * 9, validation=(4,) * 9)
    line = missed_warning("unpruned", (0.0,) * 8 + (1.0,), many, part="selection")
    assert line is not None
    assert line.endswith("'c4' (3) and 3 more")
