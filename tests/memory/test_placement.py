"""The greedy rule against TensorFlow Lite Micro's own examples and a transcription of its steps."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.memory.placement import place

LIVES = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda life: tuple(sorted(life)))
BUFFERS = st.lists(st.tuples(st.integers(1, 6), LIVES), min_size=1, max_size=40)

Buffer = tuple[int, tuple[int, int]]  # size, first and last moment


def placed(buffers: Sequence[Buffer]) -> list[int]:
    sizes, lives = zip(*buffers, strict=True)
    first, last = zip(*lives, strict=True)
    return place(sizes, first=first, last=last)


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


def test_nothing_to_place() -> None:
    assert place([], first=[], last=[]) == []
