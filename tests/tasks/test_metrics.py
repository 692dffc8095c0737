"""Metrics against torchmetrics' definitions and by hand; scores and their units."""

import pytest
import torch
from sklearn.metrics import average_precision_score, jaccard_score, r2_score

from dse.config import TaskConfig
from dse.inputs import InputSpec
from dse.measures import measure_of
from dse.tasks.task import Evidence, Task, TaskRequest, make_task


def task_of(kind: str, *, outputs: int, evidence: Evidence | None = None, **more: object) -> Task:
    request = TaskRequest(config=TaskConfig(kind=kind, **more))  # type: ignore[arg-type]
    inputs = InputSpec.image(8)
    return make_task(request, outputs=outputs, inputs=inputs, evidence=evidence)


def figures(task: Task, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    tally = task.tally()
    for some, others in zip(torch.split(logits, 3), torch.split(targets, 3), strict=True):
        task.add(tally, some, others)
    return dict(task.figures(tally).values)


def test_multi_label_metrics() -> None:
    logits, targets = torch.randn(20, 3), torch.randint(0, 2, (20, 3)).float()
    targets[0] = 1
    found = figures(task_of("multi-label", outputs=3), logits, targets)
    expected = average_precision_score(targets.numpy(), logits.numpy(), average="macro")
    assert found["mean-average-precision"] == pytest.approx(expected)
    right = (logits > 0) & (targets > 0)
    f1 = 2 * right.sum(0) / ((logits > 0).sum(0) + targets.sum(0))
    assert found["label-f1"] == pytest.approx(float(f1.mean()))


def test_regression_is_scored_in_the_columns_own_units() -> None:
    raw = torch.randn(20, 2) * torch.tensor([10.0, 0.1]) + torch.tensor([100.0, 5.0])
    task = task_of("regression", outputs=2, evidence=Evidence(values=raw))
    scaled = task.scaled(raw)
    assert torch.allclose(scaled.mean(0), torch.zeros(2), atol=1e-4)
    guess = scaled + 0.1 * torch.randn(20, 2)
    found, own = figures(task, guess, scaled), task.unscaled(guess)
    assert found["mae"] == pytest.approx(float((own - raw).abs().mean()), rel=1e-4)
    assert found["rmse"] == pytest.approx(float((own - raw).square().mean().sqrt()), rel=1e-4)
    assert found["r2"] == pytest.approx(r2_score(raw.numpy(), own.numpy()), rel=1e-4)
    constant = figures(task, torch.zeros(20, 2), scaled)
    assert task.measures["mae"].score(constant["mae"]) == pytest.approx(0.0, abs=1e-3)
    assert task.measures["mae"].score(0.0) == 1.0
    assert task.measures["mae"].value(0.25) == pytest.approx(0.75 * constant["mae"], rel=1e-3)


def test_segmentation_leaves_out_what_is_ignored() -> None:
    task = task_of("segmentation", outputs=3)
    logits, masks = torch.randn(5, 3, 8, 8), torch.randint(0, 3, (5, 8, 8))
    masks[:, :2] = 255
    found = figures(task, logits, masks)
    true, given = masks[:, 2:].flatten(), logits.argmax(1)[:, 2:].flatten()
    expected = jaccard_score(true.numpy(), given.numpy(), average="macro")
    assert found["mean-iou"] == pytest.approx(expected)
    assert found["pixel-accuracy"] == pytest.approx(float((true == given).float().mean()))


def test_scores_are_written_in_the_metrics_own_unit() -> None:
    error = measure_of("mae", (8.0, 0.0))
    assert error.text(0.5) == "4.000"
    assert error.interval_text(0.25, 0.5) == "4.000 to 6.000"
    assert error.spread_number(0.125) == "1.000"
    share = measure_of("accuracy")
    assert (share.text(0.913), share.spread_number(0.01)) == ("91.3 %", "1.0")
