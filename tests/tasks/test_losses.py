"""Each loss against the allocator, and against what PyTorch computes."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from dse.config import TaskConfig
from dse.errors import ConfigError
from dse.inputs import InputSpec
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.names import LOSSES as WORDS
from dse.names import METRICS as METRIC_WORDS
from dse.names import TASK_LOSSES, TASK_METRICS, TASKS
from dse.step.settings import StepSettings
from dse.tasks.kinds import TASKS as KINDS
from dse.tasks.losses import LOSSES
from dse.tasks.metrics import METRICS
from dse.tasks.task import Task, TaskRequest, example_targets, make_task

INPUTS = InputSpec.image(16)
BATCH = 8
EVERY: list[tuple[str, str, dict[str, object]]] = [
    ("classification", "cross-entropy", {"label_smoothing": 0.1, "class_weights": (1.0, 2.0, 3.0)}),
    ("classification", "cross-entropy", {"label_smoothing": 0.1}),
    ("multi-label", "binary-cross-entropy", {}),
    ("multi-label", "binary-cross-entropy", {"positive_weights": (1.0, 2.0, 3.0)}),
    *(("regression", loss, {}) for loss in TASK_LOSSES["regression"]),
    ("segmentation", "cross-entropy", {}),
    ("segmentation", "cross-entropy", {"class_weights": (1.0, 2.0, 3.0)}),
]


class Vectors(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 3),
        )  # fmt: skip


class Maps(nn.Sequential):
    """Maps of half the size, which the loss scales up."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))


def task_of(kind: str, loss: str, options: dict[str, object]) -> Task:
    config = TaskConfig(kind=kind, loss=loss, **options)  # type: ignore[arg-type]
    return make_task(TaskRequest(config=config), outputs=3, inputs=INPUTS)


def test_registries_hold_an_entry_for_each_word() -> None:
    assert set(LOSSES) == set(WORDS)
    assert set(METRICS) == set(METRIC_WORDS)
    assert set(KINDS) == set(TASKS) == set(TASK_LOSSES) == set(TASK_METRICS)


@pytest.mark.parametrize(("kind", "loss", "options"), EVERY)
def test_a_step_holds_what_the_memory_model_predicts(
    kind: str, loss: str, options: dict[str, object]
) -> None:
    task = task_of(kind, loss, options)
    network = Maps() if kind == "segmentation" else Vectors()
    settings = StepSettings(optimizer="sgd-momentum")
    model = MemoryModel.compile(
        network, INPUTS.example(2), groups=(), settings=settings, loss=task.loss
    )
    targets = example_targets(task, BATCH)
    images = torch.randn(BATCH, *INPUTS.shape)
    found = measure_peak(network, images, targets, settings=settings, loss=task.loss, timed_steps=1)
    # Kernels may hold workspace beside the tensors, never less.
    assert 1 <= found.peak_bytes / int(model.peaks([], batch_size=BATCH)) < 1.05


def test_losses_are_those_of_pytorch() -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    weights = torch.tensor([1.0, 2.0, 3.0])
    smooth = task_of(*EVERY[0])
    expected = functional.cross_entropy(logits, labels, weights, label_smoothing=0.1)
    assert torch.allclose(smooth.loss(logits, labels), expected)
    masks, maps = torch.randint(0, 3, (2, 16, 16)), torch.randn(2, 3, 16, 16)
    masks[0, :4] = 255
    spread = task_of("segmentation", "cross-entropy", {"label_smoothing": 0.2})
    expected = functional.cross_entropy(maps, masks, label_smoothing=0.2, ignore_index=255)
    assert torch.allclose(spread.loss(maps, masks), expected)
    positive = task_of(*EVERY[3])
    many = torch.randint(0, 2, (5, 3)).float()
    expected = functional.binary_cross_entropy_with_logits(logits, many, pos_weight=weights)
    assert torch.equal(positive.loss(logits, many), expected)


def test_pixels_to_ignore_count_for_nothing() -> None:
    task = task_of(*EVERY[-2])
    masks = torch.randint(0, 3, (2, 16, 16))
    masks[0, :8] = 255
    logits = torch.randn(2, 3, 16, 16)
    other = logits.clone()
    other[0, :, :8] += 5
    assert torch.equal(task.loss(logits, masks), task.loss(other, masks))


def test_weights_must_fit_the_outputs() -> None:
    config = TaskConfig(kind="classification", class_weights=(1.0, 2.0))
    with pytest.raises(ConfigError, match="2 numbers, and the data 3 labels"):
        make_task(TaskRequest(config=config), outputs=3, inputs=INPUTS)
