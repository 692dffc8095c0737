"""How long workers wait for their turn."""

from hypothesis import given
from hypothesis import strategies as st

from dse.search.turns import _Queue


@given(
    first=st.integers(1, 500),
    decided=st.integers(0, 499),
    seconds=st.floats(0.0, 1e6, allow_nan=False),
)
def test_a_pause_is_bounded_by_the_trials_before(first: int, decided: int, seconds: float) -> None:
    ahead = max(1, first - decided)
    pause = _Queue(first, since=10.0).pause_seconds(ahead, now=10.0 + seconds)
    assert 0.03 * ahead <= pause <= 0.25 * ahead
    assert pause <= 0.25 or ahead > 1  # the next in turn looks often, however slow the others are


def test_a_pause_follows_the_pace_of_the_others() -> None:
    queue = _Queue(20, since=0.0)
    assert queue.pause_seconds(20, now=0.0) == 20 * 0.03  # no pace is known yet
    assert queue.pause_seconds(10, now=2.0) == 10 * 0.2 / 2  # 10 were decided in 2 s
