import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.data.split import stratified
from dse.errors import DataError

LABELS = ("cat", "dog", "owl")


@given(
    counts=st.lists(st.integers(2, 30), min_size=3, max_size=3),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_each_label_is_split_by_its_share(counts: list[int], share: float, seed: int) -> None:
    targets = np.repeat([0, 1, 2, -1], [*counts, 5])
    stays, taken = stratified(targets, LABELS, share=share, seed=seed, purpose="selection")
    assert not set(stays) & set(taken)
    assert set(stays) | set(taken) == set(np.flatnonzero(targets >= 0))
    assert list(stays) == sorted(stays)
    for number, count in enumerate(counts):
        took = int((targets[taken] == number).sum())
        assert 1 <= took < count
        assert abs(took - share * count) <= 1


def test_splits_are_the_same_every_time_and_differ_by_seed_and_purpose() -> None:
    targets = np.repeat([0, 1, 2], 20)

    def taken(*, seed: int = 0, purpose: str = "validation") -> list[int]:
        _, positions = stratified(targets, LABELS, share=0.5, seed=seed, purpose=purpose)
        return list(positions)

    assert taken() == taken()
    assert taken() != taken(seed=1)
    assert taken() != taken(purpose="selection")


def test_a_labels_split_does_not_depend_on_the_other_labels() -> None:
    targets = np.repeat([0, 1, 2], 20)
    _, whole = stratified(targets, LABELS, share=0.3, seed=0, purpose="validation")
    alone = np.where(targets == 1, 0, -1)
    _, dogs = stratified(alone, ("dog",), share=0.3, seed=0, purpose="validation")
    assert [one for one in whole.tolist() if targets[one] == 1] == dogs.tolist()


def test_a_label_with_one_image_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="label 'owl' has 1 image, too few to split off a"):
        stratified(np.array([0, 0, 1, 1, 2]), LABELS, share=0.5, seed=0, purpose="validation")


@given(count=st.integers(4, 40), gone=st.integers(0, 39), seed=st.integers(0, 99))
def test_with_keys_one_image_less_moves_at_most_one_other(count: int, gone: int, seed: int) -> None:
    def taken(keys: list[str]) -> set[str]:
        targets = np.zeros(len(keys), np.int64)
        _, found = stratified(
            targets, ("cat",), share=0.4, seed=seed, purpose="selection", keys=keys
        )
        return {keys[one] for one in found}

    keys = [f"{number}.png" for number in range(count)]
    lost = keys[gone % count]
    before, after = taken(keys), taken([key for key in keys if key != lost])
    assert len((before - {lost}) ^ after) <= 1
