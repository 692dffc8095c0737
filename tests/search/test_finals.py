from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dse.candidate import Candidate
from dse.search.entrants import Entrant
from dse.search.finals import choose_finalists, strongest_rivals
from support.dominance import dominates

OBJECTIVES = ("accuracy", "peak_bytes")
MIB = 2**20


def entrants(points: Sequence[tuple[float, int]]) -> list[Entrant]:
    return [
        Entrant(
            f"trial {number}",
            number,
            Candidate(channels={"a": number + 1}),
            {"accuracy": accuracy, "peak_bytes": float(peak)},
            (accuracy,),
        )
        for number, (accuracy, peak) in enumerate(points)
    ]


def numbers(chosen: Sequence[Entrant]) -> list[int | None]:
    return [entrant.trial for entrant in chosen]


def choose(points: Sequence[tuple[float, int]], count: int, *budgets: int) -> list[int | None]:
    return numbers(
        choose_finalists(entrants(points), objectives=OBJECTIVES, budgets=budgets, count=count)
    )


@given(
    points=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 1000)), max_size=30),
    count=st.integers(1, 8),
)
def test_finalists_are_few_distinct_members_of_the_front(
    points: list[tuple[float, int]], count: int
) -> None:
    chosen = choose(points, count, 300, 1000)
    assert len(chosen) == len(set(chosen)) <= count
    assert bool(chosen) == bool(points)
    for index in chosen:
        assert index is not None
        accuracy, peak = points[index]
        assert not any(
            dominates((a, p), (accuracy, peak), maximise=(True, False)) for a, p in points
        )


def test_the_best_of_each_budget_comes_first_then_the_smallest_then_the_gaps() -> None:
    points = [(0.3, 10), (0.5, 20), (0.52, 22), (0.7, 50), (0.8, 90), (0.9, 100), (0.85, 101)]
    assert choose(points, 1, 50, 100) == [5]
    assert choose(points, 2, 50, 100) == [3, 5]
    assert choose(points, 3, 50, 100) == [0, 3, 5]
    assert choose(points, 4, 50, 100) == [0, 2, 3, 5]
    assert choose(points, 9, 50, 100) == [0, 1, 2, 3, 4, 5]


def test_a_budget_below_every_candidate_chooses_nothing_of_its_own() -> None:
    assert choose([(0.5, 60), (0.6, 80)], 1, 10, 100) == [1]


def test_a_mean_over_seeds_goes_before_a_lucky_seed() -> None:
    lucky, steady = entrants([(0.9, 20), (0.8, 30)])
    steady = replace(steady, accuracies=(0.8, 0.84))
    chosen = choose_finalists([lucky, steady], objectives=OBJECTIVES, budgets=(40,), count=1)
    assert numbers(chosen) == [1]
    assert choose([(0.9, 20), (0.8, 30)], 1, 40) == [0]


def test_the_strongest_baseline_within_each_budget_comes_once_by_peak() -> None:
    known = entrants([(0.5, 10), (0.9, 30), (0.7, 40), (0.95, 90)])
    assert numbers(strongest_rivals(known, budgets=(20, 40, 50, 5))) == [0, 1]
    assert strongest_rivals([], budgets=(20,)) == []
