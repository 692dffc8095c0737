import pytest

from dse.candidate import Candidate
from dse.config import SpaceConfig
from dse.errors import InfeasibleError
from dse.sampling.search_space import SearchSpace
from dse.search.costs import Costs
from dse.search.gate import Gate
from support.searches import BATCH, memory_model

OBJECTIVES: tuple[str, ...] = (
    "accuracy",
    "peak_bytes",
    "inference_peak_bytes",
    "parameters",
    "macs_forward",
)


def costs() -> Costs:
    return Costs(
        training=memory_model(),
        inference=memory_model("inference"),
        batch_size=BATCH,
        objectives=OBJECTIVES,
    )


def test_costs_are_the_memory_models_own() -> None:
    candidate = Candidate(channels={"first": 8})
    model, inference = memory_model(), memory_model("inference")
    channels = candidate.kept(model.groups)
    assert costs().of(candidate) == {
        "peak_bytes": model.peaks(channels, batch_size=BATCH),
        "inference_peak_bytes": inference.peaks(channels, batch_size=BATCH),
        "parameters": sum(
            # stem, its norm, first, its norm, second, head
            (3 * 16 * 9, 2 * 16, 16 * 8 * 9 + 8, 2 * 8, 8 * 16 + 16, 16 * 3 + 3)
        ),
        "macs_forward": model.macs_forward(channels),
    }


def test_a_candidates_own_batch_size_counts() -> None:
    small = Candidate(channels={}, batch_size=2)
    assert costs().peak_bytes(small) < costs().peak_bytes(Candidate(channels={}))


def test_the_limit_itself_fits_and_one_byte_more_does_not() -> None:
    peak_bytes = costs().peak_bytes(Candidate(channels={}))
    for limit, state in ((peak_bytes, "train"), (peak_bytes - 1, "infeasible")):
        gate = Gate(limit)
        verdict = gate.judge(Candidate(channels={}), peak_bytes=peak_bytes, trials=())
        assert verdict.state == state
        assert (gate.constraint(peak_bytes) > 0) == (state == "infeasible")


def test_an_impossible_budget_names_what_the_smallest_network_needs() -> None:
    space = SearchSpace.resolve(SpaceConfig(ratio=(0.0, 0.5)), memory_model().groups)
    smallest = costs().peak_bytes(space.smallest())
    assert Gate(smallest).check_possible(space, costs()) == smallest
    with pytest.raises(InfeasibleError, match=rf"needs .* KiB \({smallest:,} bytes\)"):
        Gate(smallest - 1).check_possible(space, costs())
