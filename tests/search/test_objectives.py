"""What every objective of the registry keeps to."""

import pytest

from dse.candidate import Candidate
from dse.measures import objective_title
from dse.results.front import maximised
from dse.search.costs import Costs
from dse.search.objectives import OBJECTIVES
from support.searches import BATCH, memory_model

WHOLE, NARROW = Candidate(), Candidate(channels={"first": 4})


def costs(*words: str) -> Costs:
    inference = any(OBJECTIVES[word].uses_inference for word in words)
    return Costs(
        training=memory_model(),
        inference=memory_model("inference") if inference else None,
        batch_size=BATCH,
        objectives=words,
    )


@pytest.mark.parametrize("word", OBJECTIVES)
def test_a_cost_is_what_the_models_give_and_a_narrower_network_has_less(word: str) -> None:
    assert OBJECTIVES.summaries[word]
    assert objective_title(word, metric="macro-f1")
    (more_is_better,) = maximised([word])
    assert more_is_better == (OBJECTIVES[word].cost is None)
    found = costs(word).of(WHOLE)
    if more_is_better:
        assert found == {}
        return
    assert list(found) == [word]
    assert type(found[word]) is int
    assert costs(word).of(WHOLE) == found
    assert 0 < costs(word).of(NARROW)[word] <= found[word]


def test_costs_are_in_the_studys_order() -> None:
    words = [word for word in OBJECTIVES if OBJECTIVES[word].cost]
    assert list(costs(*reversed(words)).of(WHOLE)) == words[::-1]
