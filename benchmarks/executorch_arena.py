"""ExecuTorch's runtime: planned against predicted arenas, lean steps, an epoch beside PyTorch's.

    python benchmarks/executorch_arena.py arenas > arenas.md
    python benchmarks/executorch_arena.py lean small > lean.md
    python benchmarks/executorch_arena.py lean blocks > lean.md
    python benchmarks/executorch_arena.py epoch > epoch.md

Needs the extra `executorch`. All print Markdown, a line as soon as it is known. `epoch lean` trains
the least plan.
"""

import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from functools import partial

import torch
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor, nn

import dse
from dse.deploy.pte.arena import ArenaModel, step_arena_bytes
from dse.deploy.pte.check import check
from dse.deploy.pte.file import lower_network
from dse.deploy.pte.runtime import Trainer
from dse.pruning.groups import find_groups
from dse.pruning.resize import resized
from dse.step.canonical import classification_loss
from dse.step.schemes import apply_scheme

BATCH = 16
RATE, MOMENTUM = 0.05, 0.9
HELD_OUT = 597


def small_network() -> nn.Sequential:
    """Return a network of 4 convolutions, one depthwise, with batch norm that trains."""
    return nn.Sequential(
        *_block(1, 16, 3, stride=2),
        *_block(16, 16, 3, groups=16),
        *_block(16, 32, 1),
        *_block(32, 32, 3, stride=2),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


def _block(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1) -> list:
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU6()]


def cases() -> Iterator[tuple[str, nn.Module, tuple[int, ...], str, float]]:
    """Yield name, network, shape of a batch, scheme, and share of channels kept."""
    for scheme in ("full", "bias", "last"):
        yield "small", small_network(), (BATCH, 1, 32, 32), scheme, 1.0
    yield "small", small_network(), (4, 1, 32, 32), "full", 0.5
    for scheme, kept in (("last", 1.0), ("full", 0.5)):
        network = torchvision.models.squeezenet1_1(num_classes=10)
        yield "squeezenet1_1", network, (4, 3, 64, 64), scheme, kept
    yield "mobilenet_v2", torchvision.models.mobilenet_v2(num_classes=10), (8, 3, 64, 64), "full", 1


def arenas() -> None:
    """Print the planned arena of each case beside the predicted one."""
    print("| network | batch | scheme | channels | predicted (bytes) | planned | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name, network, shape, scheme, share in cases():
        network.train()
        samples = torch.randn(shape)
        groups = find_groups(network, samples)
        kept = [max(1, round(share * g.channels / g.multiple)) * g.multiple for g in groups]
        model = ArenaModel.compile(network, samples, groups=groups, scheme=scheme)
        predicted = model.arena_bytes(kept, batch_size=len(samples))
        pruned = resized(network, groups, kept).to_empty(device="cpu")
        for value in (*pruned.parameters(), *pruned.buffers()):
            value.data.zero_() if not value.is_floating_point() else value.data.uniform_(0.1, 0.2)
        apply_scheme(pruned, samples, scheme)
        planned = lower_network(pruned, samples).arena_bytes["train"]
        size = "x".join(map(str, shape))
        print(
            f"| {name} | {size} | {scheme} | {100 * share:.0f} % | {predicted:,} | {planned:,} | "
            f"{100 * (planned / predicted - 1):+.2f} % |",
            flush=True,
        )


_INVERTED = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]  # expansion, channels, blocks, stride

LEAN_CASES = {
    "blocks": (
        partial(torchvision.models.MobileNetV2, 10, inverted_residual_setting=_INVERTED),
        (8, 3, 64, 64),
    ),
    "small": (small_network, (BATCH, 1, 32, 32)),
    "mobilenet_v2": (partial(torchvision.models.mobilenet_v2, num_classes=10), (8, 3, 64, 64)),
}


def lean_steps(name: str, *engines: str) -> None:
    """Print arena, agreement and time of a network's plain and lean steps."""
    torch.manual_seed(0)
    make, shape = LEAN_CASES[name]
    network, samples = make().train(), torch.randn(shape)
    labels = torch.arange(len(samples)) % 10
    print("| network | engine | predicted (bytes) | planned | of plain | loss | gradient | time |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    plain = None
    for engine in engines or ("stock", "lean", "lean:least"):
        own = network
        if engine != "stock":
            own = dse.lean(network, samples, "full", engine.partition(":")[2] or None)
        predicted = step_arena_bytes(own, samples)
        begun = time.perf_counter()
        lowered = lower_network(own, samples)
        planned = lowered.arena_bytes["train"]
        sys.stderr.write(
            f"{name}, {engine}: predicted {predicted:,}, planned {planned:,} bytes; lowered in "
            f"{time.perf_counter() - begun:.0f} s\n"
        )
        found = check(lowered.content, deepcopy(network), samples, labels)
        trainer = Trainer(lowered.content)
        trainer.compute(samples, labels)
        begun = time.process_time()
        trainer.compute(samples, labels)
        seconds = time.process_time() - begun
        plain = plain or (planned, seconds)
        print(
            f"| {name} | {engine} | {predicted:,} | {planned:,} | {100 * planned / plain[0]:.1f} % "
            f"| {found.loss:.1g} | {found.gradient:.1g} | {seconds / plain[1]:.2f} |",
            flush=True,
        )


def digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits at 32x32, in random order."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16 - 0.3
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images = nn.functional.interpolate(images[order], size=32, mode="bilinear")
    return images, torch.tensor(data.target)[order]


def epoch(engine: str = "stock") -> None:
    """Train an epoch in ExecuTorch's runtime and in PyTorch, from the same weights."""
    torch.manual_seed(0)
    images, labels = digits()
    network = small_network().train()
    own = network if engine == "stock" else dse.lean(network, images[:BATCH], "full", "least")
    trainer = Trainer(lower_network(own, images[:BATCH]).content)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM)
    found: dict[str, list[float]] = {"ExecuTorch": [], "PyTorch": []}
    seconds = dict.fromkeys(found, 0.0)
    last = len(images) - HELD_OUT - BATCH
    for start in range(0, last + 1, BATCH):
        batch = images[start : start + BATCH], labels[start : start + BATCH]
        begun = time.perf_counter()
        found["ExecuTorch"].append(trainer.compute(*batch))
        trainer.update(learning_rate=RATE, momentum=MOMENTUM)
        between = time.perf_counter()
        optimizer.zero_grad()
        loss = classification_loss(network(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        found["PyTorch"].append(float(loss.detach()))
        seconds["ExecuTorch"] += between - begun
        seconds["PyTorch"] += time.perf_counter() - between
    network.eval()
    held, expected = images[-HELD_OUT:], labels[-HELD_OUT:]
    with torch.no_grad():
        logits = {
            "ExecuTorch": torch.cat([trainer.evaluate(one[None]) for one in held]),
            "PyTorch": network(held),
        }
    print("| runtime | steps | first loss | mean of the last 10 | held-out accuracy | s a step |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, losses in found.items():
        right = float((logits[name].argmax(1) == expected).float().mean())
        print(
            f"| {name} | {len(losses)} | {losses[0]:.4f} | {sum(losses[-10:]) / 10:.4f} | "
            f"{100 * right:.1f} % | {seconds[name] / len(losses):.3f} |"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"arenas": arenas, "lean": lean_steps, "epoch": epoch}[sys.argv[1]](*sys.argv[2:])
