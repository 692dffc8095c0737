"""Traces against real steps: operators that run otherwise on meta tensors or under a mode."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.errors import MemoryModelError
from dse.memory.cpu_dispatch import Unobserved, on_cpu
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.placeholders import Placeholders
from dse.memory.probed import probed_timeline
from dse.names import MemoryFormat
from dse.step.canonical import Loss, classification_loss
from dse.step.settings import StepSettings

CHANNELS, SIZE, BATCH = 16, 12, 4


class Around(nn.Module):
    """A function of (batch, channels, height, width) tensors between a convolution and a head."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 1)
        self.function = function
        self.head = nn.LazyLinear(5)
        with torch.no_grad():
            self(torch.zeros(1, 3, SIZE, SIZE))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.function(self.conv(images)).flatten(2).mean(2))


def attention(x: Tensor) -> Tensor:
    return attention_of(x.flatten(2).transpose(1, 2).contiguous())


def attention_of(tokens: Tensor) -> Tensor:
    """Attention with two heads. The fused kernel needs channels to lie side by side."""
    tokens = tokens.unflatten(2, (2, -1)).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(tokens, tokens, tokens)
    return mixed.transpose(1, 2).flatten(2).transpose(1, 2)


def forked(x: Tensor) -> Tensor:
    """Four gradients of one tensor, added in place."""
    return x.tanh() + x.sigmoid() + x.sin() + x


def pooled_volumes(x: Tensor) -> Tensor:
    """Pooling of (batch, channels, 3, 4, width) tensors that meta tensors don't know."""
    volumes = x.unflatten(2, (3, 4))
    samples = x.new_zeros(len(x), x.shape[1], 3)
    return functional.fractional_max_pool3d(
        volumes, 2, output_size=(1, 2, 6), _random_samples=samples
    ).flatten(3)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mish": functional.mish,
    "maximum of halves": lambda x: torch.max(*x.chunk(2, 1)),
    "maximum over a dimension": lambda x: x.flatten(2).max(2, keepdim=True)[0],
    "maximum of everything": lambda x: x * x.max(),
    "sort": lambda x: x.sort(1)[0],
    "prod": lambda x: x.prod(1, keepdim=True),
    "prod of everything": lambda x: x * x.prod(),
    "cumprod": lambda x: x.cumprod(2),
    "topk": lambda x: x.topk(3, 1)[0],
    "gather": lambda x: x.gather(1, torch.zeros_like(x[:, :4], dtype=torch.long)),
    "median": lambda x: x.median(1, keepdim=True)[0],
    "forked": forked,
    "pooled volumes": pooled_volumes,
    "attention": attention,
    "attention without the fused kernel": lambda x: attention_of(x.flatten(2).transpose(1, 2)),
    "constants": lambda x: x * torch.tensor([2.0]) + torch.arange(x.shape[3]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operators_are_traced_as_the_cpu_runs_them(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Around(FUNCTIONS[name])
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(5, (BATCH,))
    traced = probed_timeline(network, images, batch_size=BATCH, cache=tmp_path).breakdown()
    measured = measure_peak(network, images, labels, timed_steps=1)
    assert traced.peak_bytes == measured.peak_bytes


def test_attention_is_fused_whatever_the_number_of_tokens() -> None:
    """Scores of (batch, heads, tokens, tokens) would make the peak grow with the fourth power."""
    peaks = []
    for size in (8, 16, 32):
        network = Around(attention)
        model = MemoryModel.compile(network, torch.zeros(1, 3, size, size), groups=())
        peaks.append(int(model.peaks([], batch_size=BATCH)))
    assert peaks[2] - peaks[1] < 5 * (peaks[1] - peaks[0])


def test_multiply_adds_of_attention_do_not_depend_on_the_kernel() -> None:
    strided, example = FUNCTIONS["attention without the fused kernel"], torch.zeros(1, 3, 8, 8)
    fused, composed = (
        int(MemoryModel.compile(Around(function), example, groups=()).macs_forward([]))
        for function in (attention, strided)
    )
    tokens = 64
    assert fused == composed == tokens * 3 * CHANNELS + 2 * tokens**2 * CHANNELS + 5 * CHANNELS


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.mean().item(),
        lambda x: float(x.mean()),
        lambda x: x.detach().numpy().sum(),
        lambda x: 2.0 if x.mean() > 0 else 1.0,
        lambda x: x.mean((0, 2, 3)).tolist()[0],
        lambda x: x[x > 0].mean(),
        lambda x: 2.0 if torch.equal(x, x) else 1.0,
    ],
)
def test_values_that_a_network_reads_are_refused(read: Callable[[Tensor], float]) -> None:
    network = Around(lambda x: x * read(x))
    with pytest.raises(MemoryModelError, match="control flow must not depend on values"):
        MemoryModel.compile(network, torch.zeros(1, 3, SIZE, SIZE), groups=())
    assert torch.ones(1).item() == 1.0
    assert "item" not in vars(torch.Tensor)


def one_hot(outputs: Tensor, labels: Tensor) -> Tensor:
    """PyTorch checks the labels' values in C++."""
    return (functional.one_hot(labels, 5) * outputs.log_softmax(1)).mean()


def connectionist(outputs: Tensor, labels: Tensor) -> Tensor:
    """PyTorch reads the lengths in C++, past the dispatcher."""
    steps = outputs.log_softmax(1).expand(7, *outputs.shape)
    lengths = torch.ones_like(labels)
    return functional.ctc_loss(steps, labels[:, None], 7 * lengths, lengths)


@pytest.mark.parametrize("loss", [one_hot, connectionist])
def test_losses_whose_code_reads_labels_are_traced(loss: Loss) -> None:
    network = Around(lambda x: x)
    model = MemoryModel.compile(network, torch.zeros(1, 3, SIZE, SIZE), groups=(), loss=loss)
    assert model.peaks([], batch_size=BATCH) > 0


def margin(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.multi_margin_loss(outputs, labels)


def multilabel_margin(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.multilabel_margin_loss(outputs, labels[:, None].expand_as(outputs))


@pytest.mark.parametrize("loss", [margin, multilabel_margin])
def test_losses_that_meta_tensors_do_not_know_are_what_really_runs(
    loss: Loss, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    # The head's gradient is much of the peak.
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 3000))
    images, labels = torch.randn(BATCH, 3, 1, 1), torch.randint(3000, (BATCH,))
    traced = probed_timeline(network, images, batch_size=BATCH, loss=loss, cache=tmp_path)
    measured = measure_peak(network, images, labels, loss=loss, timed_steps=1)
    assert traced.breakdown().peak_bytes == measured.peak_bytes


@pytest.mark.parametrize(
    ("function", "operator"),
    [(torch.geqrf, "aten::geqrf"), (torch.unique_consecutive, "aten::unique_consecutive")],
)
def test_an_operator_without_a_known_shape_is_named(
    function: Callable[[Tensor], tuple[Tensor, ...]], operator: str
) -> None:
    network = Around(lambda x: x * function(x.detach())[0].sum())
    with pytest.raises(MemoryModelError, match=f"what {operator} returns depends on values"):
        MemoryModel.compile(network, torch.zeros(1, 3, SIZE, SIZE), groups=())


@pytest.mark.parametrize("memory_format", ["contiguous", "channels-last"])
@pytest.mark.parametrize("width", [48, 23])
def test_volumes_of_odd_widths_are_what_really_runs(
    width: int, memory_format: MemoryFormat, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    settings = StepSettings(memory_format=memory_format)
    network = nn.Sequential(
        nn.Conv3d(1, width, 3, padding=1),
        nn.BatchNorm3d(width),
        nn.ReLU(),
        nn.Conv3d(width, 17, 3, stride=2),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(17, 5),
    )
    volumes, labels = torch.randn(2, 1, 6, 8, 8), torch.randint(5, (2,))
    traced = probed_timeline(
        network, volumes, batch_size=2, settings=settings, cache=tmp_path
    ).breakdown()
    measured = measure_peak(network, volumes, labels, settings=settings, timed_steps=1)
    assert traced.peak_bytes == measured.peak_bytes


@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adamw"])
def test_types_that_numpy_lacks_are_traced(optimizer: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Around(attention)
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(5, (BATCH,))
    settings = StepSettings(precision="bf16-mixed", optimizer=optimizer)
    traced = probed_timeline(
        network,
        images,
        batch_size=BATCH,
        settings=settings,
        loss=classification_loss,
        cache=tmp_path,
    ).breakdown()
    measured = measure_peak(network, images, labels, settings=settings, timed_steps=1)
    assert traced.peak_bytes == measured.peak_bytes


def test_threads_trace_side_by_side_and_leave_no_trace() -> None:
    """The first thread to begin ends first."""
    entered, left = threading.Event(), threading.Event()

    def first() -> None:
        with on_cpu(Unobserved(), Placeholders()):
            entered.set()
            assert second_entered.wait(5)
        left.set()

    second_entered, refused = threading.Event(), threading.Event()

    def second() -> None:
        assert entered.wait(5)
        with on_cpu(Unobserved(), Placeholders()):
            second_entered.set()
            assert left.wait(5)
            try:
                torch.empty(3).sum().item()
            except RuntimeError:
                refused.set()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(first), threads.submit(second)]:
            assert torch.ones(1).item() == 1.0  # this thread computes for real
            done.result()
    assert refused.is_set()
    assert "item" not in vars(torch.Tensor)


def test_threads_that_compile_at_once_find_what_one_finds() -> None:
    def peak(_: int) -> int:
        network = Around(functional.mish)
        model = MemoryModel.compile(network, torch.zeros(1, 3, SIZE, SIZE), groups=())
        return int(model.peaks([], batch_size=BATCH))

    with ThreadPoolExecutor(2) as threads:
        assert len({peak(0), *threads.map(peak, range(4))}) == 1
    assert "item" not in vars(torch.Tensor)
