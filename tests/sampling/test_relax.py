import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dse.config import GroupRule, SpaceConfig
from dse.memory.model import MemoryModel
from dse.networks.build import build_network
from dse.networks.examples import example_input
from dse.sampling.relax import Peaks, above, relax
from dse.sampling.search_space import SearchSpace
from support.searches import BATCH, memory_model

Ladders = Sequence[Sequence[int]]
GROUPS = len(memory_model().groups)


def real_peaks(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return memory_model().peaks(counts, batch_size=BATCH)


def peak_of(peaks: Peaks, kept: Sequence[int]) -> int:
    return int(peaks(np.array([kept], dtype=np.int64))[0])


def assert_widest(kept: Sequence[int], *, ladders: Ladders, peaks: Peaks, limit: int) -> None:
    """No group can gain its next count within the limit."""
    for group, ladder in enumerate(ladders):
        more = list(kept)
        more[group] = above(np.array(ladder), more[group])
        if more != list(kept):
            assert peak_of(peaks, more) > limit


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    low = draw(st.sampled_from([0.0, 0.1, 0.3]))
    rules = [
        GroupRule(pattern=group.name, fixed=0.5)
        for group in memory_model().groups[1:]
        if draw(st.integers(0, 4)) == 0
    ]
    config = SpaceConfig(
        ratio=(low, 0.9),
        multiple=draw(st.integers(1, 8)),
        floor=draw(st.integers(1, 8)),
        group=tuple(rules),
    )
    return SearchSpace.resolve(config, memory_model().groups)


@given(space=spaces(), data=st.data())
def test_a_relaxed_candidate_is_the_widest_of_its_memory(
    space: SearchSpace, data: st.DataObject
) -> None:
    kept = [data.draw(st.sampled_from(ladder)) for ladder in space.ladders]
    spare = data.draw(st.one_of(st.none(), st.integers(0, 200_000)))
    limit = peak_of(real_peaks, kept) + (spare or 0)
    result = relax(
        kept,
        ladders=space.ladders,
        peaks=real_peaks,
        limit_bytes=None if spare is None else limit,
    )
    assert peak_of(real_peaks, result) <= limit
    for count, before, ladder in zip(result, kept, space.ladders, strict=True):
        assert count >= before
        assert count in ladder
    assert_widest(result, ladders=space.ladders, peaks=real_peaks, limit=limit)
    again = relax(kept, ladders=space.ladders, peaks=real_peaks, limit_bytes=limit)
    assert spare is None or again == result


@given(
    rows=st.lists(
        st.lists(st.integers(0, 9), min_size=GROUPS, max_size=GROUPS), min_size=1, max_size=4
    ),
    data=st.data(),
)
def test_what_costs_nothing_is_given_back_in_full(
    rows: list[list[int]], data: st.DataObject
) -> None:
    """Where the peak is a maximum over moments that not every group is part of."""
    moments = np.array(rows)

    def peaks(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        largest: NDArray[np.int64] = (counts @ moments.T).max(axis=1)
        return largest

    ladders = [(2, 4, 6, 7)] * GROUPS
    kept = [data.draw(st.sampled_from(ladder)) for ladder in ladders]
    result = relax(kept, ladders=ladders, peaks=peaks)
    assert peak_of(peaks, result) == peak_of(peaks, kept)
    assert_widest(result, ladders=ladders, peaks=peaks, limit=peak_of(peaks, kept))
    for group in np.flatnonzero(~moments.any(axis=0)):
        assert result[group] == 7


def test_weights_are_always_held_so_nothing_is_free_at_a_candidates_own_peak() -> None:
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.9)), memory_model().groups)
    rng = np.random.default_rng(0)
    for _ in range(20):
        kept = tuple(int(rng.choice(ladder)) for ladder in space.ladders)
        assert relax(kept, ladders=space.ladders, peaks=real_peaks) == kept


def test_a_candidate_over_the_limit_is_left_alone_and_all_is_given_back_where_it_fits() -> None:
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.9)), memory_model().groups)
    smallest = [ladder[0] for ladder in space.ladders]
    widest = tuple(ladder[-1] for ladder in space.ladders)
    settings = {"ladders": space.ladders, "peaks": real_peaks}
    assert relax(smallest, **settings, limit_bytes=1) == tuple(smallest)
    assert relax(smallest, **settings, limit_bytes=peak_of(real_peaks, widest)) == widest


def test_the_cheaper_of_two_equal_groups_gains_first() -> None:
    def peaks(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return counts @ np.array([10, 1])

    ladders = [(1, 2), (1, 2)]
    assert relax((1, 1), ladders=ladders, peaks=peaks, limit_bytes=12) == (1, 2)
    assert relax((1, 1), ladders=ladders, peaks=peaks, limit_bytes=21) == (1, 2)
    assert relax((1, 1), ladders=ladders, peaks=peaks, limit_bytes=22) == (2, 2)


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_relaxing_a_real_network_takes_milliseconds(share: float) -> None:
    network = build_network("torchvision:mobilenet_v2", classes=5)
    model = MemoryModel.compile(network, example_input(2, 32), optimizer="adamw")
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.9), multiple=8, floor=8), model.groups)

    def peaks(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return model.peaks(counts, batch_size=32)

    kept = space.uniform(0.5).kept(model.groups)
    limit = int(peak_of(peaks, kept) * (1 + share))
    seconds = []
    for _ in range(5):
        started = time.process_time()
        result = relax(kept, ladders=space.ladders, peaks=peaks, limit_bytes=limit)
        seconds.append(time.process_time() - started)
    assert_widest(result, ladders=space.ladders, peaks=peaks, limit=limit)
    assert min(seconds) < 0.05  # 1 to 10 ms; generous for a busy machine
