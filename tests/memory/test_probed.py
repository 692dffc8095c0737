"""The allocator's view by running each operator alone: on paper, then against real steps."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dse.errors import ConfigError, MemoryModelError
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.operator_run import OperatorRun, TensorSpec
from dse.memory.probe import (
    CpuProbe,
    CudaProbe,
    Probed,
    _made,
    _without_results,
    in_backward,
    probe_for,
)
from dse.memory.probed import probed_timeline, timeline_of
from dse.memory.tape import Tape
from dse.memory.timeline import Timeline
from dse.memory.trace import trace_step
from dse.step.canonical import classification_loss
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings
from support.machine import needs_cuda
from support.networks import Residual, SqueezeExcite, concatenating

SIZE = 12


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSE_CACHE", str(tmp_path / "cache"))


def traced(network: nn.Module, *, batch_size: int = 4, **settings: object) -> Tape:
    shell = network.to("meta")
    shape = (batch_size, 4)
    step = StepSettings(**settings)
    return trace_step(shell, shape, settings=step, loss=classification_loss, device="cpu")


class Scripted:
    """A device whose every matrix product needs a workspace, and keeps a library's for good."""

    block_bytes = 512

    def __init__(self) -> None:
        self.seen: list[OperatorRun] = []

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        self.seen = list(operators)
        return [
            Probed(
                workspace_bytes=700 if "aten.mm" in str(operator.function) else 0,
                result_bytes=tuple(0 if made is None else 600 for made in operator.results),
                strides=operator.strides,
                lasting_bytes=500 if "aten.mm" in str(operator.function) else 0,
            )
            for operator in operators
        ]


def with_probe(tape: Tape, probe: Scripted) -> Timeline:
    distinct = {run.key: run for run in tape.runs}
    known = dict(zip(distinct, probe.run(list(distinct.values())), strict=True))
    return timeline_of(tape, known, block_bytes=probe.block_bytes)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))


def test_blocks_workspace_and_what_lasts_add_up_on_paper() -> None:
    """One block of 512 bytes for what was there before, two for what an operator made (600 bytes).

    Always there: two weights (2 blocks), images and labels (2), and what a library keeps for the
    threads of the forward and the backward pass, 500 bytes each (2). Most
    is held while the gradient of the hidden layer is computed: the second weight's gradient is
    there (2), ReLU has saved its output (2); the loss, its gradient, that of the logits and the
    product being made live (8), and the product needs 700 bytes of workspace (2).
    """
    probe = Scripted()
    timeline = with_probe(traced(perceptron(), optimizer="sgd"), probe)
    breakdown = timeline.breakdown()
    assert breakdown.categories == {
        "weights": 2 * 512,
        "buffers": 0,
        "gradients": 2 * 512,
        "optimizer_state": 0,
        "input": 2 * 512,
        "optimizer_temporary": 0,
        "saved": 2 * 512,
        "temporary": 8 * 512,
        "workspace": 2 * 512 + 2 * 512,
    }
    assert (breakdown.phase, breakdown.operator, breakdown.module) == ("backward", "aten::mm", "2")
    assert (timeline.bytes[:, -1] >= 2 * 512).all()


def test_each_distinct_operator_runs_once() -> None:
    probe = Scripted()
    tape = traced(perceptron(), optimizer="adam", accumulate=3)
    with_probe(tape, probe)
    assert len({run.key for run in probe.seen}) == len(probe.seen) < len(tape.runs)
    assert not any("detach" in str(run.function) for run in probe.seen)


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"memory_format": "channels-last"},
        {"optimizer": "adamw", "foreach": True},
        {"optimizer": "adam", "fused": True},
        {"accumulate": 2, "set_to_none": False},
        {"precision": "bf16-mixed"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["residual", "concatenating", "squeeze-excite"])
def test_a_real_step_allocates_exactly_that(name: str, variant: dict[str, object]) -> None:
    torch.manual_seed(0)
    built = {
        "residual": Residual(),
        "concatenating": concatenating(SIZE),
        "squeeze-excite": SqueezeExcite(),
    }
    network, settings = built[name], StepSettings(**variant)
    images, labels = torch.randn(4, 3, SIZE, SIZE), torch.randint(3, (4,))
    predicted = probed_timeline(network, images, batch_size=4, settings=settings).breakdown()
    measured = measure_peak(network, images, labels, settings=settings, timed_steps=1)
    assert predicted.peak_bytes == measured.peak_bytes


def test_checkpointed_blocks_allocate_exactly_that() -> None:
    torch.manual_seed(0)
    network, settings = torchvision.models.resnet18(), StepSettings(checkpointing="blocks")
    images, labels = torch.randn(2, 3, 32, 32), torch.randint(10, (2,))
    predicted = probed_timeline(network, images, batch_size=2, settings=settings).breakdown()
    measured = measure_peak(network, images, labels, settings=settings, timed_steps=1)
    assert predicted.peak_bytes == measured.peak_bytes


@pytest.mark.parametrize("scheme", ["full", "last", "norm", "bias"])
@pytest.mark.parametrize(
    "variant",
    [{}, {"memory_format": "channels-last", "optimizer": "adam"}, {"precision": "bf16-mixed"}],
    ids=str,
)
def test_every_result_has_the_size_that_was_traced(variant: dict[str, object], scheme: str) -> None:
    """The tape is of meta tensors: here each of its operators runs for real."""
    shell = concatenating(SIZE).to("meta")
    apply_scheme(shell, torch.empty(2, 3, SIZE, SIZE, device="meta"), scheme)
    settings, shape = StepSettings(**variant), (4, 3, SIZE, SIZE)
    tape = trace_step(shell, shape, settings=settings, loss=classification_loss, device="cpu")
    found = CpuProbe().run(tape.runs)
    made = [
        (prod(tape.dims[buffer]), held)
        for run, probed in zip(tape.runs, found, strict=True)
        for buffer, held in zip(run.results, probed.result_bytes, strict=True)
        if buffer is not None
    ]
    assert len(made) > 10
    assert [traced for traced, _ in made] == [held for _, held in made]


class Dilated(nn.Module):
    """Dilated and transposed convolutions, whose kernels are others than those of plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 24, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(24, 8, 2, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.wide(x).relu()).mean((2, 3)))


def test_dilated_and_transposed_convolutions_are_learned_too() -> None:
    torch.manual_seed(0)
    network, images, labels = Dilated(), torch.randn(4, 3, SIZE, SIZE), torch.randint(3, (4,))
    predicted = probed_timeline(network, images, batch_size=4).breakdown()
    measured = measure_peak(network, images, labels, timed_steps=1)
    assert predicted.peak_bytes == measured.peak_bytes
    tensors = MemoryModel.compile(network, images, groups=()).peaks([], batch_size=4)
    assert predicted.peak_bytes > tensors


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="PyTorch was built without CUDA")
def test_an_inference_pass_can_be_traced_for_a_device_that_is_not_there() -> None:
    shell = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).to("meta")
    settings = StepSettings(mode="inference")
    tape = trace_step(
        shell, (2, 3, 8, 8), settings=settings, loss=classification_loss, device="cuda"
    )
    specs = [each for run in tape.runs for each in run.arguments[0] if isinstance(each, TensorSpec)]
    assert specs
    assert all(spec.on_device for spec in specs)


def test_zeros_have_any_layout() -> None:
    for tensor in (
        torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.zeros(3, 1).expand(3, 4),
        torch.zeros(0, 3),
        torch.zeros((), dtype=torch.long),
    ):
        spec = TensorSpec(tuple(tensor.shape), tensor.stride(), tensor.dtype, on_device=True).zeros(
            "cpu"
        )
        assert (spec.shape, spec.stride(), spec.dtype) == (
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
        )
        assert not spec.any()


def test_an_operator_that_needs_too_much_is_named() -> None:
    spec = TensorSpec((2**50,), (1,), torch.float32, on_device=True)
    run = OperatorRun(1, "forward", torch.ops.aten.relu.default, ((spec,), ()), (0,), ((1,),))
    with pytest.raises(MemoryModelError, match=r"aten\.relu\.default needs more memory"):
        CpuProbe().run([run])


def test_devices_without_a_probe_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="this machine has no such device"):
        probe_for("cuda:99")
    monkeypatch.setattr("dse.memory.probe.check_device", lambda *_, **__: None)
    with pytest.raises(MemoryModelError, match="can be measured on cpu and cuda, not on mps"):
        probe_for("mps")


def test_work_can_be_done_in_a_backward_pass() -> None:
    done: list[int] = []
    with torch.no_grad():
        in_backward(lambda: done.append(1), "cpu")
    assert done == [1]


@needs_cuda
@pytest.mark.parametrize("variant", [{}, {"memory_format": "channels-last"}], ids=str)
def test_a_real_step_on_cuda_asks_for_that(variant: dict[str, object]) -> None:
    """Blocks above 1 MiB may be up to 1 MiB larger than what they hold (see the docs)."""
    torch.manual_seed(0)
    settings = StepSettings(**variant)
    network = torchvision.models.mobilenet_v2(num_classes=5)
    images, labels = torch.randn(8, 3, 96, 96), torch.randint(5, (8,))
    timeline = probed_timeline(
        network, images, batch_size=8, settings=settings, device="cuda"
    ).breakdown()
    measured = measure_peak(
        network.to("cuda"), images.to("cuda"), labels.to("cuda"), settings=settings
    ).peak_bytes
    assert timeline.peak_bytes <= measured <= timeline.peak_bytes * 1.05


@needs_cuda
def test_cuda_probes_see_cublas_workspaces() -> None:
    spec = TensorSpec((64, 64), (64, 1), torch.float32, on_device=True)
    run = OperatorRun(1, "forward", torch.ops.aten.mm.default, ((spec, spec), ()), (0,), ((64, 1),))
    first, again = CudaProbe("cuda").run([run, run])
    assert first.result_bytes == (64 * 64 * 4,)
    assert first.lasting_bytes == again.lasting_bytes > 0


class Elsewhere(CpuProbe):
    """A device that lays out the results of one operator in its own way."""

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        return [
            replace(found, strides=((1, 4),))
            if run.function is torch.ops.aten.relu.default
            else found
            for run, found in zip(operators, super().run(operators), strict=True)
        ]


def test_a_step_is_traced_again_with_the_layouts_of_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dse.memory.probed.probe_for", lambda _: Elsewhere())
    traces: list[Tape] = []

    def traced_and_kept(*args: Any, **kwargs: Any) -> Tape:
        traces.append(trace_step(*args, **kwargs))
        return traces[-1]

    monkeypatch.setattr("dse.memory.probed.trace_step", traced_and_kept)
    probed_timeline(perceptron(), torch.zeros(2, 4), batch_size=4)
    first, again = traces
    assert ((3, 1),) in [run.strides for run in first.runs if "relu" in str(run.function)]
    assert [run.strides for run in again.runs if "relu" in str(run.function)] == [((1, 4),)]
    turned = TensorSpec((4, 3), (1, 4), torch.float32, on_device=True)
    (backward,) = [run for run in again.runs if "threshold_backward" in str(run.function)]
    assert backward.arguments[0][1] == turned


def test_fake_layouts_that_differ_are_learned(tmp_path: Path) -> None:
    """Tensors without contents keep channels-last here, the real operator doesn't."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Hardswish(), nn.Conv2d(8, 40, 1), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 3),
    )  # fmt: skip
    images, labels = torch.randn(4, 3, SIZE, SIZE), torch.randint(3, (4,))
    settings = StepSettings(memory_format="channels-last")
    predicted = probed_timeline(
        network, images, batch_size=4, settings=settings, cache=tmp_path
    ).breakdown()
    measured = measure_peak(network, images, labels, settings=settings, timed_steps=1)
    assert predicted.peak_bytes == measured.peak_bytes


def test_results_that_lie_elsewhere_are_not_the_device_s() -> None:
    """A GPU's step copies the state of its random numbers, which lies on the CPU."""
    state = TensorSpec((16,), (1,), torch.uint8, on_device=False)
    clone = torch.ops.aten.clone.default
    run = OperatorRun(1, "forward", clone, ((state,), ()), (0,), ((1,),))
    result = run.on("meta")()
    assert result.device.type == "cpu"
    assert _made(run, result, "cpu") == ((16,), ((1,),))
    assert _made(run, result, "cuda") == ((0,), (None,))
    assert _without_results(run, _made(run, result, "cuda"), peak=0).result_bytes == (0,)


def test_threads_share_what_a_library_keeps_for_them() -> None:
    tape = traced(perceptron(), optimizer="sgd")
    probe = Scripted()
    timeline = with_probe(tape, probe)
    inference = traced(perceptron(), mode="inference")
    assert int(timeline.bytes[0, -1]) == 2 * 512
    assert int(with_probe(inference, probe).bytes[0, -1]) == 512
