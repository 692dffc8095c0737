"""Sizes of a static planner's arena in place of a run's own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dse.candidate import Candidate
from dse.deploy.devices import find_device
from dse.deploy.limits import Limit
from dse.deploy.pick import picks_for
from dse.deploy.planned_records import PLANNED_NOTE, planned_sizes, resized_records
from dse.memory.conventions import CountedStep, count_step
from dse.memory.measure import Measurement
from dse.memory.model import MemoryModel
from dse.pruning.groups import find_groups
from dse.pruning.resize import resized
from dse.results.records import RunRecords
from dse.search.run_folder import RunFolder
from support.runs import make_records


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=8)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)),
    )


@pytest.fixture
def records(tmp_path: Path) -> RunRecords:
    """A made-up run over a real network, whose memory model is stored."""
    model = MemoryModel.compile(network(), torch.zeros(2, 1, 8, 8))
    model.save(RunFolder(tmp_path).memory_model)
    groups = tuple((one.name, one.channels) for one in model.groups)
    return replace(make_records(groups=groups, trials=6, finals=2), folder=tmp_path)


def test_sizes_are_those_of_a_trace_of_the_pruned_network(records: RunRecords) -> None:
    size = planned_sizes(records)
    images = records.study.training.batch_size
    sized = resized_records(records, size)
    assert len({one.peak_bytes for one in sized.trials}) > 1
    for one in (*sized.trials, *sized.finals):
        own, example = network(), torch.zeros(images, 1, 8, 8)
        groups = find_groups(own, example)
        kept = one.candidate.kept(groups)
        pruned = resized(own, groups, kept).to_empty(device="cpu")
        model = MemoryModel.compile(pruned, example)
        step = CountedStep(
            model=model,
            channels=[group.channels for group in model.groups],
            batch_size=images,
            network=pruned,
            example_input=example,
            groups=model.groups,
        )
        assert one.peak_bytes == count_step("arena", step).breakdown.peak_bytes
    assert sized.unpruned_peak_bytes == size(Candidate())


def test_a_device_without_pytorch_is_chosen_for_by_the_arena(
    records: RunRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(_one: Candidate) -> Measurement:
        return Measurement(peak_bytes=1, step_seconds=0.5)

    monkeypatch.setattr("dse.deploy.pick.measure_of", lambda _records: measured)
    limits = [Limit.of_device(find_device(name)) for name in ("esp32-s3", "raspberry-pi-5-2gb")]
    small, large = picks_for(records, limits, max_drop=100)
    assert (small.runtime, large.runtime) == ("microcontroller", "pytorch")
    assert PLANNED_NOTE in small.notes
    assert PLANNED_NOTE not in large.notes
    assert small.unpruned.peak_bytes == planned_sizes(records)(Candidate())
    assert large.unpruned.peak_bytes == records.unpruned_peak_bytes
    assert small.chosen is not None
    assert small.measured_peak_bytes == planned_sizes(records)(small.chosen.candidate)
