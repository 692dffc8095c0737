"""Whatever a user's network raises, wherever it runs, becomes one line that names the network."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dse.config import TrainingConfig
from dse.data.parts import Part
from dse.errors import NetworkError
from dse.finetune.features import separation
from dse.finetune.imitation import outputs_at
from dse.finetune.loop import evaluate, finetune
from dse.finetune.statistics import recalibrate_batch_norm
from dse.memory.layerwise import layerwise_memory
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.networks.checks import network_notes
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.groups import find_groups
from dse.pruning.importance import group_importance
from dse.pruning.reconstruction import reconstruct
from dse.sampling.joint import cannot_run
from dse.step.lite_residual import attach
from dse.step.schemes import apply_scheme
from dse.tasks.task import plain_task
from dse.user_code import guarded, is_out_of_memory
from support.networks import Residual

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])
BATCH = (IMAGES, LABELS)
TRAINING = TrainingConfig(batch_size=2, threads=1)


class _FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(_context: object, features: Tensor) -> Tensor:
        return features.clone()

    @staticmethod
    def backward(_context: object, *_gradients: Tensor) -> Tensor:
        raise LookupError("no way back")


class Failing(Residual):
    """A network whose forward or backward pass fails from a chosen moment on."""

    fails = ""

    def forward(self, images: Tensor) -> Tensor:
        if self.fails == "forward":
            raise LookupError("no way forward")
        if self.fails == "exit":
            raise SystemExit(3)
        outputs = super().forward(images)
        return _FailsBackward.apply(outputs) if self.fails == "backward" else outputs


def groups_of(network: nn.Module) -> tuple[ChannelGroup, ...]:
    return find_groups(network, IMAGES)


def part() -> Part:
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    return Part(
        name="train", images=pixels, labels=LABELS, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0)
    )


def fit(network: nn.Module) -> object:
    groups = groups_of(Residual())
    scores = {group.name: np.ones(group.channels) for group in groups}
    kept = [group.channels for group in groups]
    return reconstruct(network, network, [IMAGES], groups=groups, kept=kept, importance=scores)


FORWARD: dict[str, Callable[[nn.Module], object]] = {
    "evaluate": lambda network: evaluate(network, part(), batch_size=2),
    "recalibrate": lambda network: recalibrate_batch_norm(network, [BATCH]),
    "features": lambda network: separation(network, [BATCH], task=plain_task(3), settings=TRAINING),
    "imitate": lambda network: outputs_at(network, ["head"], IMAGES),
    "reconstruct": fit,
    "attach": lambda network: attach(network, IMAGES),
    "apply_scheme": lambda network: apply_scheme(network, IMAGES, "last"),
}
BACKWARD: dict[str, Callable[[nn.Module], object]] = {
    "finetune": lambda network: finetune(network, part(), settings=TRAINING, epochs=1, seed=0),
    "measure": lambda network: measure_peak(network, IMAGES, LABELS, timed_steps=1),
    "taylor": lambda network: group_importance(
        network, groups_of(Residual()), criterion="taylor", batches=[BATCH]
    ),
    "fisher": lambda network: group_importance(
        network, groups_of(Residual()), criterion="fisher", batches=[BATCH]
    ),
}


@pytest.mark.parametrize("work", FORWARD | BACKWARD)
@pytest.mark.parametrize(
    ("fails", "reason"), [("forward", "LookupError: no way forward"), ("exit", "SystemExit: 3")]
)
def test_a_forward_pass_that_fails_is_one_line(work: str, fails: str, reason: str) -> None:
    network = Failing()
    network.fails = fails
    with pytest.raises(NetworkError, match=rf"^Failing [^\n]*{reason}[^\n]*$"):
        (FORWARD | BACKWARD)[work](network)


@pytest.mark.parametrize("work", BACKWARD)
def test_a_backward_pass_that_fails_is_one_line(work: str) -> None:
    network = Failing()
    network.fails = "backward"
    with pytest.raises(NetworkError, match=r"^Failing [^\n]*LookupError: no way back[^\n]*$"):
        BACKWARD[work](network)


def test_an_image_size_at_which_the_network_exits_is_passed_over() -> None:
    network = Failing()
    network.fails = "exit"
    assert cannot_run(network, 8) == "it ends the process (SystemExit: 3)"


def test_ctrl_c_and_a_lack_of_memory_pass() -> None:
    for error in (KeyboardInterrupt(), MemoryError(), RuntimeError("CUDA out of memory")):
        with pytest.raises(type(error)), guarded(nn.Identity(), "can't run"):
            raise error


def test_the_module_and_the_first_line_of_a_long_message_are_named() -> None:
    network = nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(2, 3)))
    with (
        pytest.raises(NetworkError, match=r"^Sequential can't run: at '1\.0': RuntimeError: mat1"),
        guarded(network, "can't run"),
    ):
        network(torch.zeros(1, 5))
    with (
        pytest.raises(NetworkError, match=r"can't run: ValueError: x{300}\.\.\.; change"),
        guarded(network, "can't run"),
    ):
        raise ValueError("x" * 1000 + "\nmore")


def test_a_real_allocation_that_fails_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    wrapped = ValueError("while reading")
    wrapped.__cause__ = caught.value
    assert is_out_of_memory(wrapped)
    assert is_out_of_memory(RuntimeError("std::bad_alloc"))  # PyTorch's text for C++'s own
    assert not is_out_of_memory(RuntimeError("shapes differ"))


class ReturnsNothing(Residual):
    """Overrides ``train`` and forgets to return the network, as is often written."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]  # noqa: FBT001, FBT002
        super().train(mode)
        self.norm.eval()


def test_a_train_method_that_returns_nothing_is_no_hindrance() -> None:
    network = ReturnsNothing()
    assert find_groups(network, IMAGES) == find_groups(Residual(), IMAGES)
    assert list(network_notes(network, IMAGES)) == []
    assert layerwise_memory(network, IMAGES, batch_size=2).peak_bytes > 0
    assert int(MemoryModel.compile(network, IMAGES, groups=()).peaks([], batch_size=2)) > 0
