"""Why a step doesn't fit, and what would help."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.memory.explain import explain, group_saving, largest_batch
from dse.memory.model import MemoryModel
from support.networks import Residual

MODEL = MemoryModel.compile(Residual(), torch.zeros(1, 3, 12, 12))
FULL = [group.channels for group in MODEL.groups]
CHANNELS = st.tuples(*(st.integers(1, count) for count in FULL))


@given(channels=CHANNELS)
@settings(max_examples=25)
def test_holdings_add_up_to_the_breakdown(channels: tuple[int, ...]) -> None:
    breakdown = MODEL.breakdown(channels, batch_size=4)
    explanation = explain(MODEL, channels, batch_size=4)
    for category, held in breakdown.categories.items():
        own = [h.bytes for h in explanation.holdings if h.category == category]
        assert sum(own) == held
    top = explanation.moments[0]
    assert top.bytes == breakdown.peak_bytes
    assert (top.phase, top.module) == (breakdown.phase, breakdown.module)
    heights = [moment.bytes for moment in explanation.moments]
    assert heights == sorted(heights, reverse=True)


@given(channels=CHANNELS, group=st.integers(0, len(FULL) - 1))
@settings(max_examples=50)
def test_pruning_helps_until_it_does_not(channels: tuple[int, ...], group: int) -> None:
    saving = group_saving(MODEL, channels, group, batch_size=4)

    def peak(count: int) -> int:
        changed = list(channels)
        changed[group] = count
        return int(MODEL.peaks(changed, batch_size=4))

    assert peak(channels[group]) - peak(saving.useful_until) == saving.largest_saving_bytes
    assert peak(1) == peak(saving.useful_until)
    if saving.useful_until < channels[group]:
        assert peak(saving.useful_until + 1) > peak(saving.useful_until)


@given(budget=st.integers(0, 3_000_000))
@settings(max_examples=50)
def test_the_largest_batch_fits_and_the_next_does_not(budget: int) -> None:
    batch = largest_batch(MODEL, FULL, budget_bytes=budget)
    if batch:
        assert MODEL.peaks(FULL, batch_size=batch) <= budget
    assert MODEL.peaks(FULL, batch_size=batch + 1) > budget


def test_json_is_plain() -> None:
    answer = explain(MODEL, FULL, batch_size=2).to_json()
    assert {type(v) for s in answer["savings"] for v in s.values()} <= {str, int, float}
    assert [s["largest_saving_bytes"] for s in answer["savings"]] == sorted(
        (s["largest_saving_bytes"] for s in answer["savings"]), reverse=True
    )
    assert np.isclose(sum(h["bytes"] for h in answer["holdings"]), answer["moments"][0]["bytes"])
