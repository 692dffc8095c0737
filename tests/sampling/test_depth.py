"""Depth as a dimension of a search."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dse.config import JointConfig
from dse.sampling.depth import depth_choice, usual_sets

STAGES = st.lists(st.integers(1, 6), max_size=5).map(
    lambda sizes: [[f"s{s}.{b}" for b in range(size)] for s, size in enumerate(sizes)]
)


@given(STAGES)
def test_usual_sets_are_nested_and_take_from_the_ends_of_the_longest_stages(
    stages: list[list[str]],
) -> None:
    sets = [set(text.split(",")) for text in usual_sets(stages)]
    blocks = sum(map(len, stages))
    assert bool(sets) == bool(blocks)
    assert all(one < two for one, two in pairwise(sets))
    for one in sets:
        assert len(one) <= max(1, round(blocks / 2))
        left = [[name for name in stage if name not in one] for stage in stages]
        assert all(stage[: len(rest)] == rest for stage, rest in zip(stages, left, strict=True))
        shorter = [len(rest) for rest, stage in zip(left, stages, strict=True) if rest != stage]
        assert max(map(len, left)) - min(shorter, default=0) <= 1


def test_sets_are_described_by_their_blocks() -> None:
    (choice,) = depth_choice(
        JointConfig(drop=("a,b", "a,b,c", "c")),
        stages=lambda: (),
        vanishing=lambda drop: frozenset({drop}),
    )
    assert choice.values == ("none", "a,b", "a,b,c", "c")
    assert choice.features == ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    assert choice.gone == (frozenset(), *(frozenset({one}) for one in choice.values[1:]))
