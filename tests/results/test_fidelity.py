"""Agreement of the fidelities within bands of similar memory."""

from itertools import combinations

import pytest
from scipy.stats import kendalltau

from dse.candidate import Candidate
from dse.results.candidate_records import RepeatRecord
from dse.results.fidelity import (
    BothFidelities,
    bands,
    rank_correlation,
    short_noise,
    trained_at_both,
)
from support.runs import make_records


def one(peak: int, short: float, full: float, band: int = 0) -> BothFidelities:
    return BothFidelities(
        label=str(peak), digest=str(peak), peak_bytes=peak, short=short, full=full, band=band
    )


def test_bands_reach_from_a_peak_to_half_of_it() -> None:
    both = trained_at_both(make_records(trials=60, finals=8))
    assert len(both) >= 8
    found = bands(both)
    assert sum(len(band.members) for band in found) == len(both)
    for band in found:
        assert band.high_bytes == pytest.approx(2 * band.low_bytes)
        for member in band.members:
            assert band.low_bytes < member.peak_bytes <= band.high_bytes


def test_pairs_are_counted_as_by_hand() -> None:
    members = [one(100, 0.5, 0.6), one(90, 0.6, 0.7), one(80, 0.7, 0.5), one(70, 0.7, 0.4)]
    (band,) = bands(members)
    signs = [
        (first.short - second.short) * (first.full - second.full)
        for first, second in combinations(members, 2)
    ]
    assert band.alike == sum(sign > 0 for sign in signs) == 1
    assert band.unlike == sum(sign < 0 for sign in signs) == 4  # one pair is tied
    assert band.tau is None


def test_memory_alone_ranks_a_front_and_says_nothing_within_a_band() -> None:
    front = [one(2**n, 0.1 * n, 0.11 * n, band=6 - n) for n in range(1, 7)]
    short, full = [each.short for each in front], [each.full for each in front]
    assert rank_correlation([each.peak_bytes for each in front], full) == pytest.approx(1.0)
    assert rank_correlation(short, full) == pytest.approx(kendalltau(short, full).statistic)
    assert all(band.alike == band.unlike == 0 for band in bands(front))


def test_equal_values_have_no_rank_correlation() -> None:
    assert rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    assert rank_correlation([1, 2], [1, 2]) is None


def test_nothing_trained_in_full_gives_no_bands() -> None:
    assert bands(trained_at_both(make_records(trials=5, finals=0))) == ()


def test_noise_is_pooled_over_candidates_by_their_degrees_of_freedom() -> None:
    def repeat(*accuracies: float) -> RepeatRecord:
        return RepeatRecord(
            label="trial 1",
            trial=1,
            candidate=Candidate(channels={}),
            peak_bytes=1,
            accuracies=accuracies,
        )

    several = [repeat(0.5, 0.6), repeat(0.9, 0.8, 0.85), repeat(0.1)]
    squares = 2 * 0.05**2 + (0.05**2 + 0.05**2)
    assert short_noise(several) == pytest.approx((squares / 3) ** 0.5)
    assert short_noise(several[2:]) is None
    assert short_noise([]) is None
