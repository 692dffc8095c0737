"""The memory model against independent truth: a fresh trace, a sheet of paper, a real step."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torchvision.models.efficientnet import MBConvConfig

from dse.errors import ConfigError, MemoryModelError, NetworkError, PruningError
from dse.memory.cpu_layout import laid_out_as_on_cpu
from dse.memory.decode import UndecidedError
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.pruning.groups import find_groups
from dse.pruning.surgery import prune
from dse.step.settings import StepSettings
from support.networks import Residual, SqueezeExcite, concatenating
from support.traces import fresh_peak

SIZE = 12
IMAGE = (3, SIZE, SIZE)
SCHEMES = ("full", "last", "norm", "bias")


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "residual": Residual(),
        "concatenating": concatenating(SIZE),
        "squeeze-excite": SqueezeExcite(),
    }


def small_mobilenet() -> nn.Module:
    """MobileNetV2 of four blocks, narrow."""
    torch.manual_seed(0)
    blocks = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]  # expansion, channels, number, stride
    return torchvision.models.MobileNetV2(
        num_classes=5, width_mult=0.5, inverted_residual_setting=blocks
    )


def small_efficientnet() -> nn.Module:
    """EfficientNet of four blocks: squeeze and excitation, stochastic depth and dropout."""
    torch.manual_seed(0)
    blocks = [MBConvConfig(1, 3, 1, 32, 16, 1), MBConvConfig(6, 3, 2, 16, 24, 3)]
    return torchvision.models.EfficientNet(
        blocks, dropout=0.2, stochastic_depth_prob=0.2, num_classes=5
    )


MIDDLE = {"residual": "first", "concatenating": "join", "squeeze-excite": "squeeze"}


def random_channels(model: MemoryModel, rng: np.random.Generator) -> list[int]:
    return [int(rng.integers(1, g.channels // g.multiple + 1)) * g.multiple for g in model.groups]


@pytest.mark.parametrize("scheme", ["bias+from:first", "bias-from:first", "norm+only:second"])
def test_peaks_of_sparse_updates_equal_a_fresh_trace(scheme: str) -> None:
    network, example = networks()["residual"], torch.zeros(2, 3, SIZE, SIZE)
    model = MemoryModel.compile(network, example, scheme=scheme, optimizer="adamw")
    channels = random_channels(model, np.random.default_rng(len(scheme)))
    pruned = prune(network, groups=find_groups(network, example), kept=channels)
    step = StepSettings(optimizer="adamw")
    expected = fresh_peak(pruned, (8, *IMAGE), scheme=scheme, step=step)
    assert model.peaks(channels, batch_size=8) == expected


@pytest.mark.parametrize("optimizer", ["sgd", "sgd-momentum", "adam", "adamw"])
@pytest.mark.parametrize("scheme", [*SCHEMES, "from"])
@pytest.mark.parametrize("name", networks())
def test_peaks_equal_a_fresh_trace_of_the_pruned_network(
    name: str, scheme: str, optimizer: str
) -> None:
    network, example = networks()[name], torch.zeros(2, 3, SIZE, SIZE)
    scheme = f"from:{MIDDLE[name]}" if scheme == "from" else scheme
    model = MemoryModel.compile(network, example, scheme=scheme, optimizer=optimizer)
    groups = find_groups(network, example)
    rng = np.random.default_rng(len(name) + len(scheme))
    step = StepSettings(optimizer=optimizer)
    for batch_size in (1, 8, 32):
        channels = random_channels(model, rng)
        pruned = prune(network, groups=groups, kept=channels)
        expected = fresh_peak(pruned, (batch_size, *IMAGE), scheme=scheme, step=step)
        assert model.peaks(channels, batch_size=batch_size) == expected


@pytest.mark.parametrize(
    "variant",
    [
        {"weight_decay": 0.1},
        {"nesterov": True},
        {"foreach": True},
        {"optimizer": "adamw", "foreach": True},
        {"memory_format": "channels-last"},
        {"mode": "inference"},
        {"mode": "inference", "precision": "bf16-mixed"},
        {"fused": True},
        {"optimizer": "adamw", "fused": True},
        {"optimizer": "adamw", "optimizer_in_backward": True},
        {"accumulate": 2},
        {"accumulate": 3, "optimizer": "adam"},
        {"precision": "bf16-mixed"},
        {"precision": "bf16-mixed", "accumulate": 2, "memory_format": "channels-last"},
        {"set_to_none": False},
        {"set_to_none": False, "optimizer": "adamw"},
    ],
    ids=str,
)
def test_every_setting_is_traced_not_assumed(variant: dict[str, object]) -> None:
    network, example = SqueezeExcite(), torch.zeros(2, 3, SIZE, SIZE)
    model = MemoryModel.compile(network, example, **variant)
    channels = random_channels(model, np.random.default_rng(0))
    pruned = prune(network, groups=find_groups(network, example), kept=channels)
    step = StepSettings(**variant)
    expected = fresh_peak(pruned, (8, *IMAGE), step=step)
    assert model.peaks(channels, batch_size=8) == expected


def test_probes_read_the_same_model_as_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    network, example = concatenating(SIZE), torch.zeros(2, 3, SIZE, SIZE)
    by_markers = MemoryModel.compile(network, example)
    assert by_markers.method == "markers"

    def undecided(*_: object, **__: object) -> None:
        raise UndecidedError

    monkeypatch.setattr("dse.memory.compile.read_markers", undecided)
    by_probes = MemoryModel.compile(network, example)
    assert by_probes.method == "probes"
    rng = np.random.default_rng(3)
    many = np.array([random_channels(by_markers, rng) for _ in range(50)])
    for batch_size in (1, 7):
        expected = by_markers.peaks(many, batch_size=batch_size)
        assert (by_probes.peaks(many, batch_size=batch_size) == expected).all()


def test_a_step_small_enough_for_a_sheet_of_paper() -> None:
    """Two linear layers, 4 -> 3 -> 2 without biases; B images of 4 numbers, plain SGD.

    Always there: weights (3*4 + 2*3)*4 = 72, input 16B, labels 8B. The most is held when ReLU's
    gradient is computed: the second layer's weight gradient is there (24), the hidden layer is
    still saved by ReLU (12B), its gradient came in (12B), the gradient of what went into ReLU is
    just born (12B), and the loss (4) and the gradient of the loss (4) live on. Together
    104 + 60B; the runner-up, log-softmax's gradient, needs 80 + 60B.
    """
    network = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    model = MemoryModel.compile(network, torch.zeros(1, 4), optimizer="sgd")
    breakdown = model.breakdown([3], batch_size=50)
    assert breakdown.peak_bytes == 104 + 60 * 50
    assert breakdown.categories == {
        "weights": 72,
        "buffers": 0,
        "gradients": 24,
        "optimizer_state": 0,
        "input": 24 * 50,
        "optimizer_temporary": 0,
        "saved": 12 * 50,
        "temporary": 24 * 50 + 8,
    }
    assert breakdown.peak_activation_bytes == 60 * 50 + 8
    assert (breakdown.phase, breakdown.operator, breakdown.module) == (
        "backward",
        "aten::threshold_backward",
        "1",
    )


MODEL = MemoryModel.compile(networks()["squeeze-excite"], torch.zeros(1, 3, SIZE, SIZE))


def test_many_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(5)
    many = np.array([random_channels(MODEL, rng) for _ in range(3000)])
    together = MODEL.peaks(many, batch_size=4)
    assert together.dtype == np.int64
    assert [int(MODEL.peaks(row, batch_size=4)) for row in many[::100]] == list(together[::100])


def test_parameters_and_buffers_are_counted() -> None:
    network = SqueezeExcite()
    channels = [group.channels for group in MODEL.groups]
    own = sum(p.numel() * p.element_size() for p in network.parameters())
    assert MODEL.parameter_bytes(channels) == own
    assert MODEL.buffer_bytes(channels) == sum(b.nbytes for b in network.buffers())


def test_macs_agree_with_fvcore() -> None:
    network = small_mobilenet().eval()
    example = torch.zeros(1, 3, 32, 32)
    model = MemoryModel.compile(network, example)
    groups = find_groups(network, example)
    channels = random_channels(model, np.random.default_rng(0))
    pruned = prune(network, groups=groups, kept=channels)
    counted = FlopCountAnalysis(pruned, example).unsupported_ops_warnings(enabled=False)
    by_operator = counted.uncalled_modules_warnings(enabled=False).by_operator()
    assert model.macs_forward(channels) == by_operator["conv"] + by_operator["linear"]


@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adam"])
def test_a_real_step_peaks_where_predicted(optimizer: str) -> None:
    """Contiguous MobileNetV2 at the demo's size: kernel workspace stays below two per cent."""
    network = small_mobilenet()
    images, labels = torch.randn(32, 3, 32, 32), torch.randint(5, (32,))
    model = MemoryModel.compile(network, images, optimizer=optimizer)
    predicted = int(model.peaks([group.channels for group in model.groups], batch_size=32))
    measured = measure_peak(
        network, images, labels, settings=StepSettings(optimizer=optimizer), timed_steps=1
    )
    assert predicted <= measured.peak_bytes
    assert abs(predicted / measured.peak_bytes - 1) < 0.02
    assert measured.step_seconds > 0


@pytest.mark.parametrize(
    "variant",
    [
        {"accumulate": 2},
        {"accumulate": 3, "optimizer": "adam"},
        {"set_to_none": False},
        {"fused": True, "optimizer": "adamw"},
        {"foreach": True},
        {"optimizer_in_backward": True, "weight_decay": 0.1},
        {"checkpointing": "blocks"},
        {"checkpointing": "blocks", "accumulate": 2},
    ],
    ids=str,
)
def test_every_kind_of_step_is_what_really_runs(variant: dict[str, object], tmp_path: Path) -> None:
    """Tensors and workspace together, against the allocator: stochastic depth and dropout too."""
    network = small_efficientnet()
    images, labels = torch.randn(4, 3, 32, 32), torch.randint(5, (4,))
    settings = StepSettings(**variant)
    predicted = probed_timeline(
        network, images, batch_size=4, settings=settings, cache=tmp_path
    ).breakdown()
    measured = measure_peak(network, images, labels, settings=settings, timed_steps=1)
    assert predicted.peak_bytes == measured.peak_bytes


@pytest.mark.parametrize("checkpointing", ["none", "blocks"])
def test_mixed_precision_is_what_really_runs(checkpointing: str, tmp_path: Path) -> None:
    network = small_mobilenet()
    images, labels = torch.randn(4, 3, 32, 32), torch.randint(5, (4,))
    settings = StepSettings(precision="bf16-mixed", checkpointing=checkpointing)
    tensors = MemoryModel.compile(network, images, groups=(), settings=settings)
    predicted = probed_timeline(
        network, images, batch_size=4, settings=settings, cache=tmp_path
    ).breakdown()
    measured = measure_peak(network, images, labels, settings=settings, timed_steps=1)
    assert tensors.peaks([], batch_size=4) <= predicted.peak_bytes == measured.peak_bytes


def test_checkpointed_blocks_are_traced_not_assumed() -> None:
    network = small_mobilenet()
    example = torch.zeros(2, 3, 32, 32)
    variant: dict[str, object] = {"checkpointing": "blocks", "accumulate": 2}
    model = MemoryModel.compile(network, example, **variant)
    assert model.method == "markers"
    channels = random_channels(model, np.random.default_rng(0))
    pruned = prune(network, groups=find_groups(network, example), kept=channels)
    expected = fresh_peak(pruned, (8, 3, 32, 32), step=StepSettings(**variant))
    assert model.peaks(channels, batch_size=8) == expected
    breakdown = model.breakdown(channels, batch_size=8)
    plain = MemoryModel.compile(network, example, accumulate=2)
    assert breakdown.peak_bytes < plain.peaks(channels, batch_size=8)


def test_contradictions_are_refused() -> None:
    network, example = SqueezeExcite(), torch.zeros(2, 3, SIZE, SIZE)
    for variant, words in (
        ({"foreach": True, "fused": True}, "foreach or fused"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"checkpointing": "layers"}, "checkpointing is 'layers'"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"accumulate": 1.5}, "accumulate is 1.5"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov=True needs"),
    ):
        with pytest.raises(ConfigError, match=words):
            MemoryModel.compile(network, example, **variant)  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match="blocks"):
        MemoryModel.compile(network, example, checkpointing="blocks")
    with pytest.raises(MemoryModelError, match="groups has 'expand': give what find_groups"):
        MemoryModel.compile(network, example, groups=["expand"])  # type: ignore[list-item]


def test_saving_keeps_every_prediction(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    MODEL.save(path)
    loaded = MemoryModel.load(path)
    assert loaded.groups == MODEL.groups
    assert loaded.digest == MODEL.digest
    channels = random_channels(MODEL, np.random.default_rng(1))
    first = MODEL.breakdown(channels, batch_size=3)
    assert loaded.breakdown(channels, batch_size=3) == first


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with pytest.raises(MemoryModelError, match="no memory model at"):
        MemoryModel.load(path)
    MODEL.save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(MemoryModelError, match="is damaged: delete it"):
        MemoryModel.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [0, *c[1:]], r"can't keep 0 channels"),
        (lambda c: [10**6, *c[1:]], r"can't keep 1000000 channels"),
        (lambda c: c[:-1], r"one column a group"),
        (lambda c: [value + 0.5 for value in c], r"whole numbers, not float64"),
        (lambda c: [float("nan"), *c[1:]], r"whole numbers, not float64"),
        (lambda c: ["many", *c[1:]], r"whole numbers"),
        (lambda c: [c, c[1:]], r"must have shape"),
    ],
)
def test_wrong_channels_are_named(change: Callable[[list[int]], list[float]], message: str) -> None:
    channels = [group.channels for group in MODEL.groups]
    with pytest.raises(MemoryModelError, match=message):
        MODEL.peaks(change(channels), batch_size=2)


@pytest.mark.parametrize("batch_size", [0, -3, 1.5, float("nan"), "8", None, 2**24 + 1])
def test_wrong_batch_sizes_are_refused(batch_size: int) -> None:
    message = f"batch_size must be from 1 to 16,777,216, not {batch_size!r}"
    with pytest.raises(MemoryModelError, match=message):
        MODEL.peaks([group.channels for group in MODEL.groups], batch_size=batch_size)


class ValueDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images).mean((2, 3))
        if features.sum() > 0:
            features = features * 2
        return self.head(features)


def test_control_flow_that_depends_on_values_is_refused() -> None:
    with pytest.raises(MemoryModelError, match="control flow must not depend on values"):
        MemoryModel.compile(ValueDependent(), torch.zeros(1, 3, 8, 8), groups=())


class WidthDependent(ValueDependent):
    def __init__(self, width: int, threshold: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, width, 3), nn.Linear(width, 2)
        self.threshold = threshold

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images).mean((2, 3))
        if features.shape[1] > self.threshold:
            features = features * 2
        return self.head(features)


@pytest.mark.parametrize(("width", "threshold"), [(4, 4), (8, 4), (64, 32), (64, 1000)])
def test_a_network_that_runs_otherwise_when_pruned_is_refused(width: int, threshold: int) -> None:
    if (width, threshold) == (8, 4):  # half of its channels, the trial of every group, show it
        expected, message = PruningError, "computes with the number of its channels"
    else:
        expected, message = MemoryModelError, "WidthDependent runs other operators"
    with pytest.raises(expected, match=message):
        MemoryModel.compile(WidthDependent(width, threshold), torch.zeros(1, 3, 8, 8))


class Alternating(ValueDependent):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        features = self.conv(images).mean((2, 3))
        return self.head(features * 2 if self.calls % 2 else features)


def test_a_network_that_runs_otherwise_each_time_is_refused() -> None:
    example = torch.zeros(1, 3, 8, 8)
    with pytest.raises(PruningError, match="doesn't compute the same twice"):
        MemoryModel.compile(Alternating(), example)


@pytest.mark.parametrize(
    ("network", "example", "message"),
    [
        (len, torch.zeros(1, 3, 8, 8), "the network is of type builtin_function_or_method"),
        (Residual(), np.zeros((1, 3, 8, 8)), "the example input is of type ndarray"),
        (Residual(), torch.zeros(1, 3, 8, 8, dtype=torch.long), "Autograd not support dtype: Long"),
        (Residual(), torch.zeros(1, 5, 8, 8), r"doesn't run on meta tensors of shape \(1, 5, 8"),
    ],
)
def test_what_is_no_network_or_no_example_is_named(
    network: nn.Module, example: torch.Tensor, message: str
) -> None:
    with pytest.raises(NetworkError, match=message) as caught:
        MemoryModel.compile(network, example)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "loss", [lambda _outputs, _labels: 3.0, lambda outputs, _: outputs, lambda _outputs, _: 1 / 0]
)
def test_a_loss_that_is_none_is_named(loss: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(MemoryModelError, match="can't compute a loss from what Residual returns"):
        MemoryModel.compile(Residual(), torch.zeros(1, *IMAGE), loss=loss)


def test_the_module_that_fails_is_named() -> None:
    with pytest.raises(MemoryModelError, match=r"at 'stem\.0': RuntimeError: Invalid channel"):
        MemoryModel.compile(Residual(), torch.zeros(1, 5, 8, 8), groups=())


def test_a_network_without_groups_has_one_peak() -> None:
    network, example = Residual(), torch.zeros(1, 3, SIZE, SIZE)
    whole = MemoryModel.compile(network, example)
    fixed = MemoryModel.compile(network, example, groups=())
    full = [group.channels for group in whole.groups]
    assert fixed.breakdown([], batch_size=4) == whole.breakdown(full, batch_size=4)


def test_frozen_normalisation_returns_no_statistics_as_on_the_cpu() -> None:
    def normalised(device: str) -> tuple[torch.Tensor, ...]:
        images, ones = torch.zeros(2, 4, 3, 3, device=device), torch.ones(4, device=device)
        arguments = (images, ones, ones, ones.clone(), ones.clone(), False, 0.1, 1e-5)
        result = torch.native_batch_norm(*arguments)
        return laid_out_as_on_cpu("aten::native_batch_norm", arguments, result)

    on_meta, on_cpu = normalised("meta"), normalised("cpu")
    assert [t.shape for t in on_meta] == [t.shape for t in on_cpu]
