import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
)

from dse.metrics import Confusion, recalls

CONSTANT = Confusion(np.array([[190, 0, 0], [6, 0, 0], [4, 0, 0]]))


@given(st.integers(2, 5), st.data())
def test_metrics_are_scikit_learns(classes: int, data: st.DataObject) -> None:
    position = st.integers(0, classes - 1)
    pairs = data.draw(st.lists(st.tuples(position, position), min_size=1, max_size=40))
    # Balanced accuracy of scikit-learn warns of classes that are predicted but not there.
    pairs += [(one, data.draw(position)) for one in range(classes)]
    true, predicted = (list(column) for column in zip(*pairs, strict=True))
    found = Confusion.of(true, predicted, classes=classes)
    assert found.counts.tolist() == confusion_matrix(true, predicted).tolist()
    assert found.score("accuracy") == pytest.approx(accuracy_score(true, predicted))
    assert found.score("balanced-accuracy") == pytest.approx(
        balanced_accuracy_score(true, predicted)
    )
    assert found.score("macro-f1") == pytest.approx(
        f1_score(true, predicted, average="macro", zero_division=0)
    )
    assert recalls([found.correct], found.images) == pytest.approx(
        recall_score(true, predicted, average=None, zero_division=0)
    )


def test_classes_that_are_not_there_count_for_nothing() -> None:
    true, predicted = [0, 0, 1], [0, 2, 1]
    found = Confusion.of(true, predicted, classes=4)
    assert found.score("balanced-accuracy") == 0.75
    assert found.score("macro-f1") == pytest.approx(
        f1_score(true, predicted, average="macro", zero_division=0)
    )
    assert recalls([found.correct], found.images) == (0.5, 1.0, None, None)


def test_a_constant_answer_looks_good_by_accuracy_alone() -> None:
    assert CONSTANT.score("accuracy") == 0.95
    assert CONSTANT.score("balanced-accuracy") == pytest.approx(1 / 3)
    assert CONSTANT.score("macro-f1") == pytest.approx(2 * 190 / 390 / 3)
    assert recalls([CONSTANT.correct], CONSTANT.images) == (1.0, 0.0, 0.0)


def test_recalls_are_means_over_trainings() -> None:
    assert recalls([(4, 0), (2, 1)], (4, 1)) == (0.75, 0.5)


def test_equal_counts_are_equal() -> None:
    assert Confusion.of([0, 1], [0, 0], classes=2) == Confusion(np.array([[1, 0], [1, 0]]))
    assert Confusion.of([0, 1], [0, 0], classes=2) != CONSTANT


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        (np.ones((2, 3), dtype=np.int64), "must be square, not of shape"),
        (np.zeros((2, 2), dtype=np.int64), "at least one image"),
        (np.array([[1, -1], [0, 2]]), "counts of 0 or more"),
    ],
)
def test_what_is_no_confusion_matrix_is_refused(counts: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Confusion(counts)  # type: ignore[arg-type]


def test_positions_outside_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Confusion.of([0, 2], [0, 0], classes=2)


@pytest.mark.parametrize("correct", [[], [(1, 2)]])
def test_recalls_of_other_classes_are_refused(correct: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="there are 3 classes"):
        recalls(correct, (1, 1, 1))
