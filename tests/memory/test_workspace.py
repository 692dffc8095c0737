"""Workspace rules against the allocator: operators alone, then whole steps."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.profiler import ProfilerActivity, profile

from dse.errors import MemoryModelError
from dse.memory.convolution import Convolution, backward_workspace, forward_workspace
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.scratch import Machine, this_machine
from dse.names import MemoryFormat
from dse.step.settings import MEMORY_FORMATS, StepSettings
from support.machine import needs_avx2
from support.networks import Residual

os.environ.setdefault("KINETO_LOG_LEVEL", "99")


SHAPES = [  # batch, channels in, out, groups, kernel, stride, padding, image
    (4, 16, 24, 1, 1, 1, 0, 8),
    (4, 17, 23, 1, 1, 2, 0, 8),
    (4, 17, 23, 1, 3, 1, 1, 8),
    (4, 3, 16, 1, 3, 1, 1, 16),
    (4, 24, 40, 1, 3, 2, 1, 8),
    (4, 33, 33, 33, 3, 1, 1, 8),
    (4, 33, 33, 33, 5, 1, 2, 8),
    (4, 24, 24, 4, 3, 1, 1, 8),
    (1, 24, 40, 1, 3, 1, 1, 4),
    (4, 24, 40, 1, 3, 1, 1, 2),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def most_allocated(operator: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        results = operator()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    del results
    return int(np.cumsum(sizes).max())


@needs_avx2
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_convolution_alone_allocates_what_the_rule_says(
    shape: tuple[int, ...], layout: MemoryFormat
) -> None:
    batch, inputs, outputs, groups, kernel, stride, padding, image = shape
    memory_format = MEMORY_FORMATS[layout]
    x = torch.zeros(batch, inputs, image, image).contiguous(memory_format=memory_format)
    w = torch.zeros(outputs, inputs // groups, kernel, kernel).to(memory_format=memory_format)
    settings = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups)
    y = torch.ops.aten.convolution(x, w, None, *settings)
    conv = Convolution(
        batch=batch,
        inputs=inputs,
        outputs=outputs,
        groups=groups,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(padding, padding),
        image=(image, image),
        result=(y.shape[2], y.shape[3]),
        bias=False,
        channels_last=layout == "channels-last",
    )
    machine = Machine(threads=1)
    forward = most_allocated(lambda: torch.ops.aten.convolution(x, w, None, *settings))
    predicted = forward_workspace(conv, machine) + conv.output_bytes
    gradient = torch.zeros_like(y)
    backward = most_allocated(
        lambda: torch.ops.aten.convolution_backward(
            gradient, x, w, None, *settings, [True, True, False]
        )
    )
    workspace = backward_workspace(conv, machine, data=True, weights=True, bias=False)
    kept = conv.input_bytes + conv.weight_bytes
    assert (predicted, workspace + kept) == (forward, backward)


class Permuting(nn.Module):
    """Normalises over the last dimension, so a contiguous network meets channels-last images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, stride=4)
        self.norm = nn.LayerNorm(32)
        self.down = nn.Conv2d(32, 256, 2, stride=2)
        self.head = nn.Linear(256, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.stem(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.down(features).mean((2, 3)))


@needs_avx2
def test_layouts_that_differ_are_copied() -> None:
    network, images = Permuting(), torch.randn(2, 3, 16, 16)
    model = MemoryModel.compile(network, images, groups=())
    none = np.zeros(0, dtype=int)
    predicted = int(model.allocator_peaks(none, batch_size=2))
    measured = measure_peak(network, images, torch.zeros(2, dtype=torch.long), timed_steps=1)
    assert predicted == pytest.approx(measured.peak_bytes, rel=1e-3)
    assert model.peaks(none, batch_size=2) < 0.9 * measured.peak_bytes


@needs_avx2
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("scheme", ["full", "last", "bias"])
def test_a_real_step_peaks_within_a_thousandth(scheme: str, layout: MemoryFormat) -> None:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.5)
    images, labels = torch.randn(4, 3, 64, 64), torch.randint(5, (4,))
    model = MemoryModel.compile(network, images, scheme=scheme, memory_format=layout, groups=())
    predicted = int(model.allocator_peaks(np.zeros(0, dtype=int), batch_size=4))
    step = StepSettings(memory_format=layout)
    measured = measure_peak(network, images, labels, scheme=scheme, settings=step, timed_steps=1)
    assert predicted == pytest.approx(measured.peak_bytes, rel=1e-3)


def test_workspace_is_a_category_of_its_own() -> None:
    model = MemoryModel.compile(Residual(), torch.zeros(2, 3, 32, 32))
    full = np.array([group.channels for group in model.groups])
    machine = Machine(threads=2)
    tensors = model.peaks(full, batch_size=8)
    peaks = model.allocator_peaks(np.stack([full, full // 2]), batch_size=8, machine=machine)
    breakdown = model.allocator_breakdown(full, batch_size=8, machine=machine)
    assert peaks.dtype == np.int64
    assert breakdown.peak_bytes == peaks[0] >= tensors
    assert sum(breakdown.categories.values()) == breakdown.peak_bytes
    assert breakdown.categories["workspace"] > 0
    assert "workspace" not in model.breakdown(full, batch_size=8).categories
    one = model.allocator_peaks(full // 2, batch_size=8, machine=machine)
    assert one.shape == ()
    assert one == peaks[1]


def test_unknown_instructions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    with pytest.raises(MemoryModelError, match="on AVX2, not on AVX512"):
        this_machine()
