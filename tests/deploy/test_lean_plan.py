"""The plan of a run's candidate, built from the study alone."""

from dataclasses import replace

import pytest
import torch

import dse
from dse.candidate import Candidate
from dse.deploy.lean_plan import candidate_plan
from dse.errors import RunError
from dse.pruning.groups import find_groups
from dse.results.records import RunRecords
from support.networks import Residual
from support.runs import make_records
from support.searches import BATCH, CLASSES, SIZE, SMALL_WIDTH, real_study


@pytest.fixture(scope="module")
def records() -> RunRecords:
    found = make_records(trials=0, finals=0, baselines=False)
    return replace(found, study=real_study(), classes=CLASSES, trusted=True)


def test_stock_steps_have_no_plan(records: RunRecords) -> None:
    assert candidate_plan(records, Candidate()) is None


def test_the_plan_is_that_of_dse_lean_and_pruning_lowers_what_blocks_hold(
    records: RunRecords,
) -> None:
    whole = candidate_plan(records, Candidate(engine="lean"))
    assert whole is not None
    network = Residual(width=SMALL_WIDTH, classes=CLASSES)
    example = torch.zeros(BATCH, 3, SIZE, SIZE)
    lean = dse.lean(network, example, scheme="full")
    segments = [one for program in lean.lean_plan.programs for one in program.segments]
    assert [one.level for one in whole.blocks] == [one.level for one in segments]
    first = find_groups(network, example)[0]
    halved = Candidate(channels={first.name: first.channels // 2}, engine="lean")
    pruned = candidate_plan(records, halved)
    assert pruned is not None
    held = [sum(one.held_bytes or 0 for one in plan.blocks) for plan in (pruned, whole)]
    assert 0 < held[0] < held[1]


def test_code_of_a_run_from_elsewhere_is_not_executed(records: RunRecords) -> None:
    with pytest.raises(RunError, match="--trust"):
        candidate_plan(replace(records, trusted=False), Candidate(engine="lean"))
