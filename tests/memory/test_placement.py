"""The greedy rule against TensorFlow Lite Micro's own examples and a transcription of its steps."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.memory import placement
from dse.memory.placement import place, place_rows

LIVES = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda life: tuple(sorted(life)))
BUFFERS = st.lists(st.tuples(st.integers(1, 6), LIVES), min_size=1, max_size=40)

Buffer = tuple[int, tuple[int, int]]  # size, first and last moment


def placed(buffers: Sequence[Buffer]) -> list[int]:
    sizes, lives = zip(*buffers, strict=True)
    first, last = np.array(lives).T
    return place(np.array([sizes]), first=first, last=last)[0].tolist()


def together(one: Buffer, other: Buffer) -> bool:
    return one[1][0] <= other[1][1] and other[1][0] <= one[1][1]


def step_by_step(buffers: Sequence[Buffer]) -> list[int]:
    """Largest first, the last added of equals first; each into the first gap among neighbours."""
    offsets: dict[int, int] = {}
    for index in sorted(range(len(buffers)), key=lambda i: (-buffers[i][0], -i)):
        size, _ = buffers[index]
        neighbours = sorted(
            (offset, offset + buffers[other][0])
            for other, offset in offsets.items()
            if together(buffers[index], buffers[other])
        )
        offset = 0
        for start, end in neighbours:
            if start - offset >= size:
                break
            offset = max(offset, end)
        offsets[index] = offset
    return [offsets[index] for index in range(len(buffers))]


@given(buffers=BUFFERS)
def test_no_two_buffers_overlap_in_time_and_space(buffers: list[Buffer]) -> None:
    offsets = placed(buffers)
    for i, one in enumerate(buffers):
        for j in range(i):
            apart = offsets[i] + one[0] <= offsets[j] or offsets[j] + buffers[j][0] <= offsets[i]
            assert apart or not together(one, buffers[j])


@given(buffers=BUFFERS)
def test_offsets_are_those_of_the_rule(buffers: list[Buffer]) -> None:
    assert placed(buffers) == step_by_step(buffers)


@pytest.mark.parametrize(
    ("buffers", "offsets"),
    [
        ([(10, (0, 1)), (20, (2, 3))], [0, 0]),
        (
            [(10, (0, 1)), (20, (1, 2)), (30, (2, 3)), (40, (3, 4)), (50, (0, 1))],
            [50, 70, 40, 0, 0],
        ),
        ([(100, (0, 1)), (50, (2, 3)), (20, (1, 2))], [0, 0, 100]),
    ],
)
def test_examples_of_greedy_memory_planner_test(buffers: list[Buffer], offsets: list[int]) -> None:
    assert placed(buffers) == offsets


def test_of_equal_buffers_the_last_is_placed_first() -> None:
    assert placed([(8, (0, 1)), (8, (0, 1)), (8, (0, 1))]) == [16, 8, 0]


@given(st.lists(st.lists(st.integers(1, 9), min_size=5, max_size=5), min_size=1, max_size=6))
def test_candidates_are_placed_one_by_one(sizes: list[list[int]]) -> None:
    first, last = np.array([0, 1, 1, 2, 0]), np.array([2, 1, 3, 3, 0])
    many = place(np.array(sizes), first=first, last=last)
    for row, own in zip(many, sizes, strict=True):
        assert (place(np.array([own]), first=first, last=last)[0] == row).all()


def test_nothing_to_place() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert place(np.zeros((3, 0), dtype=np.int64), first=nothing, last=nothing).shape == (3, 0)


@pytest.mark.skipif(not placement.COMPILED, reason="numba, of the extra `fast`, isn't installed")
def test_machine_code_places_as_python_does() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, (20, 60))
    first = rng.integers(0, 20, 60)
    last = first + rng.integers(0, 20, 60)
    rows = [[0] * 60 for _ in sizes]
    scratch = [[0] * 60 for _ in range(3)]
    order = np.argsort(-sizes[:, ::-1], axis=1, kind="stable")
    place_rows((59 - order).tolist(), sizes.tolist(), first.tolist(), last.tolist(), scratch, rows)
    assert (place(sizes, first=first, last=last) == rows).all()
