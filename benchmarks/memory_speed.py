"""How fast is the memory model, and how do its peers do on the same candidates?

    pip install torchinfo
    python benchmarks/memory_speed.py

Everything is timed in this one run, the best of several passes: prediction of many candidates, of
one, of one with its gradient; compiling, with and without finding the channel groups, as a multiple
of one trace. The peers look at the same randomly pruned networks: a fresh trace of each, PyTorch's
``MemTracker`` under fake tensors, torchinfo's estimate and fvcore's activation count; each figure
stands beside the measured peak of a real step. The table is written to memory_speed.md.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchinfo
import torchvision
from fvcore.nn import ActivationCountAnalysis
from memory_exactness import fresh_peak
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.networks.build import build_network
from dse.pruning.groups import find_groups
from dse.pruning.surgery import prune
from dse.step.canonical import classification_loss, training_step
from dse.step.settings import StepSettings

HERE = Path(__file__).parent
NETWORK, BATCH, SIZE, CLASSES = "mobilenet_v2", 8, 224, 10
MANY = 200_000
PASSES = 7
PEER_CANDIDATES = 5
COMPILED = (
    "mobilenet_v2",
    "resnet50",
    "efficientnet_b0",
    "densenet201",
    "inception_v3",
    "convnext_large",
    "efficientnet_b7",
    "efficientnet_v2_l",
    "regnet_y_128gf",
)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    lines = [
        "# Speed of the memory model",
        "",
        (
            f"{NETWORK}, {SIZE}², batch {BATCH}, {CLASSES} classes, scheme full, SGD with "
            f"momentum; best of {PASSES} passes; {platform.machine()}, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}; load of the machine "
            f"at the start {os.getloadavg()[0]:.1f}. Written by "
            "`python benchmarks/memory_speed.py`."
        ),
        "",
        *predictions(),
        "",
        (
            "Compiling, from the channel groups or with finding them, and one trace of the "
            "unpruned network. The goal is at most 3 traces for all of it, 5 s for mobilenet_v2 "
            "and 60 s for the largest. Finding the groups runs the network to follow its axes, and "
            "once for each kind of check of the proposals, on smaller copies of it:"
        ),
        "",
        *compilations(),
        "",
        (
            f"Peers, on the same {PEER_CANDIDATES} randomly pruned networks: seconds for each, and "
            "the figure's relative error against the measured allocator peak of a real step "
            "(mean, and the one farthest off):"
        ),
        "",
        *peers(),
    ]
    (HERE / "memory_speed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def best(work: Callable[[], object], passes: int = PASSES) -> float:
    """Seconds of the fastest pass."""
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def predictions() -> list[str]:
    """Rates of the compiled model."""
    network, example = build(NETWORK), torch.zeros(2, 3, SIZE, SIZE)
    model = MemoryModel.compile(network, example)
    full = np.array([group.channels for group in model.groups])
    channels = np.random.default_rng(0).integers(1, full + 1, size=(MANY, len(full)))
    some = list(channels[:2000])

    def each(work: Callable[[np.ndarray], object]) -> float:
        return best(lambda: [work(row) for row in some]) / len(some)

    rate = MANY / best(lambda: model.peaks(channels, batch_size=BATCH))
    single = each(lambda row: model.peaks(row, batch_size=BATCH))
    gradient = each(lambda row: model.peak_and_gradient(row, batch_size=BATCH))
    return [
        "| what | measured | goal |",
        "|---|---:|---:|",
        f"| candidates a second, together | {rate:,.0f} | 500,000 |",
        f"| one candidate | {1e6 * single:.1f} µs | 20 µs |",
        f"| one candidate and its gradient | {1e6 * gradient:.1f} µs | 100 µs |",
    ]


def compilations() -> list[str]:
    """Seconds of compiling, with and without finding groups, against a trace of the network."""
    lines = [
        (
            "| network | parameters | groups | read by | from the groups, s | all of it, s "
            "| one trace, s | from the groups, traces | all of it, traces |"
        ),
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for name in COMPILED:
        network, example = build(name), torch.zeros(2, 3, SIZE, SIZE)
        groups = find_groups(network, example)
        method = MemoryModel.compile(network, example, groups=groups).method
        compiling = partial(MemoryModel.compile, network, example)
        from_groups = best(partial(compiling, groups=groups), passes=3)
        whole = best(compiling, passes=3)
        trace = best(partial(traced, network), passes=3)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        lines.append(
            f"| {name} | {parameters:,} | {len(groups)} | {method} | {from_groups:.2f} "
            f"| {whole:.2f} | {trace:.2f} | {from_groups / trace:.1f} | {whole / trace:.1f} |"
        )
        print(lines[-1], flush=True)
    return lines


def peers() -> list[str]:
    """Figures of each peer for the same pruned networks."""
    network, example = build(NETWORK), torch.zeros(2, 3, SIZE, SIZE)
    groups = find_groups(network, example)
    model = MemoryModel.compile(network, example, groups=groups)
    rng = np.random.default_rng(1)
    candidates = [
        [int(rng.integers(g.channels // 3, g.channels + 1)) for g in groups]
        for _ in range(PEER_CANDIDATES)
    ]
    kinds: dict[str, Callable[[nn.Module, list[int]], float]] = {
        "this model, tensors": lambda _, kept: float(model.peaks(kept, batch_size=BATCH)),
        "operators run alone, allocator": lambda pruned, _: float(
            probed_timeline(pruned, example, batch_size=BATCH, renew=True).breakdown().peak_bytes
        ),
        "a fresh trace": lambda pruned, _: float(traced(pruned)),
        "PyTorch's MemTracker": lambda pruned, _: mem_tracker(pruned),
        "torchinfo's estimate": lambda pruned, _: torchinfo_estimate(pruned),
        "fvcore's activation count": lambda pruned, _: fvcore_count(pruned),
    }
    errors: dict[str, list[float]] = {name: [] for name in kinds}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for kept in candidates:
        pruned = prune(network, groups=groups, kept=kept)
        values = {}
        for name, kind in kinds.items():
            start = time.perf_counter()
            values[name] = kind(pruned, kept)
            seconds[name].append(time.perf_counter() - start)
        measured = measure_peak(
            pruned,
            torch.randn(BATCH, 3, SIZE, SIZE),
            torch.arange(BATCH) % CLASSES,
            timed_steps=1,
        ).peak_bytes
        for name, value in values.items():
            errors[name].append(100 * (value / measured - 1))
    return [
        "| what | seconds, median | error, mean | error, worst |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {statistics.median(seconds[name]):.6f} "
            f"| {statistics.mean(errors[name]):+z.3f} % | {max(errors[name], key=abs):+z.3f} % |"
            for name in kinds
        ),
    ]


def build(name: str) -> nn.Module:
    """A network without weights worth speaking of."""
    torch.manual_seed(0)
    return build_network(f"torchvision:{name}", classes=CLASSES)


def traced(network: nn.Module) -> int:
    """Peak bytes of one trace, added up."""
    return fresh_peak(network, (BATCH, 3, SIZE, SIZE), scheme="full", settings=StepSettings())


def mem_tracker(network: nn.Module) -> float:
    """Peak bytes of the second step by PyTorch's tracker, nothing being computed."""
    with FakeTensorMode():
        fake = torchvision.models.mobilenet_v2(num_classes=CLASSES)
        for name, parameter in network.named_parameters():
            owner, _, last = name.rpartition(".")
            shape = torch.empty(parameter.shape)
            setattr(fake.get_submodule(owner), last, nn.Parameter(shape))
        for name, buffer in network.named_buffers():
            owner, _, last = name.rpartition(".")
            setattr(fake.get_submodule(owner), last, torch.empty(buffer.shape, dtype=buffer.dtype))
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                fake.get_submodule(name).groups = module.groups
        images, labels = torch.empty(BATCH, 3, SIZE, SIZE), torch.zeros(BATCH, dtype=torch.long)
        optimizer = torch.optim.SGD(fake.parameters(), lr=0.1, momentum=0.9, foreach=False)
        batches, step = [(images, labels)], StepSettings()
        training_step(fake, optimizer, classification_loss, batches, settings=step)
        tracker = MemTracker()
        tracker.track_external(fake, optimizer, images, labels)
        with tracker:
            training_step(fake, optimizer, classification_loss, batches, settings=step)
        snapshot = tracker.get_tracker_snapshot("peak")
    return float(sum(device["Total"] for device in snapshot.values()))


def torchinfo_estimate(network: nn.Module) -> float:
    """Input, parameters and twice every layer's output, as torchinfo adds them up."""
    found = torchinfo.summary(network, input_size=(BATCH, 3, SIZE, SIZE), verbose=0)
    return float(found.total_input + found.total_output_bytes + found.total_param_bytes)


def fvcore_count(network: nn.Module) -> float:
    """Outputs of convolutions and products for the batch, four bytes each, and parameters."""
    count = ActivationCountAnalysis(network.eval(), torch.zeros(1, 3, SIZE, SIZE))
    count.unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(enabled=False)
    network.train()
    return float(4 * BATCH * count.total() + sum(4 * p.numel() for p in network.parameters()))


if __name__ == "__main__":
    main()
