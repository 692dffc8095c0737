"""Is the `allocator` convention right? Compare it with the measured peak of real training steps.

It is predicted by running each operator alone: once with an empty cache, once with what the first
time has left there.

    python benchmarks/memory_accuracy.py --count 300

Every network, scheme and memory format is drawn equally often, in an order that a seed fixes;
batch sizes take turns, channel counts are random. Each step runs for real on physically pruned
networks, under the allocator's own account. Results are appended to a JSON-lines file, so an
interrupted run goes on where it stopped; the table is written at the end.
"""

import argparse
import json
import statistics
import time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from dse.errors import MemoryModelError
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.memory.timeline import Breakdown
from dse.memory_formats import MEMORY_FORMATS
from dse.networks.build import build_network
from dse.networks.forward import execution_order
from dse.pruning.groups import find_groups
from dse.pruning.surgery import prune
from dse.step.settings import StepSettings

HERE = Path(__file__).parent
NETWORKS = (
    "mobilenet_v2",
    "resnet18",
    "squeezenet1_1",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "mnasnet0_5",
    "densenet121",
    "regnet_y_400mf",
    "resnext50_32x4d",
    "vgg11_bn",
    "googlenet",
    "alexnet",
    "convnext_tiny",
    "resnet50",
)
SCHEMES = ("full", "last", "norm", "bias", "from")
BATCHES = (2, 8, 1, 4, 16)
CLASSES = 10
SEED = 0
BYTES_PER_MB = 10**6


def main() -> None:
    """Run the steps that are still missing and write the table."""
    arguments = parse_arguments()
    records = HERE / "memory_accuracy.jsonl"
    done = {record["number"] for record in read(records)}
    for number, (network, scheme, memory_format, batch) in enumerate(drawn(arguments.count)):
        if number in done:
            continue
        start = time.perf_counter()
        record = {
            "number": number,
            "network": network,
            "scheme": scheme,
            "memory_format": memory_format,
            "batch": batch,
            "image_size": arguments.image_size,
            "threads": torch.get_num_threads(),
        }
        try:
            record |= compared(record)
        except MemoryModelError as error:
            if "single value per channel" not in str(error):
                raise
            record |= {"impossible": str(error)}
        with records.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record), f"{time.perf_counter() - start:.0f} s", flush=True)
    (HERE / "memory_accuracy.md").write_text(table(read(records)))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="real steps in all")
    parser.add_argument("--image-size", type=int, default=64, help="pixels a side")
    return parser.parse_args()


def drawn(count: int) -> list[tuple[str, str, str, int]]:
    """Network, scheme, format and batch of each step: all combinations before any comes again."""
    rng = np.random.default_rng(SEED)
    combinations = list(product(NETWORKS, SCHEMES, MEMORY_FORMATS))
    steps = []
    while len(steps) < count:
        for index in rng.permutation(len(combinations)):
            steps.append((*combinations[index], BATCHES[len(steps) % len(BATCHES)]))
    return steps[:count]


def compared(record: dict[str, Any]) -> dict[str, Any]:
    """Predict and measure one step of a pruned network."""
    rng = np.random.default_rng([SEED, record["number"]])
    size, batch = record["image_size"], record["batch"]
    torch.manual_seed(SEED)
    network = build_network(f"torchvision:{record['network']}", classes=CLASSES)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(CLASSES, (batch,))
    example = torch.zeros(2, 3, size, size)
    groups = find_groups(network, example)
    channels = [
        max(1, int(g.channels // g.multiple * rng.uniform(0.3, 1))) * g.multiple for g in groups
    ]
    scheme = record["scheme"]
    if scheme == "from":
        order = execution_order(network, example)
        scheme = f"from:{order[len(order) // 2]}"
    model = MemoryModel.compile(
        network, example, scheme=scheme, memory_format=record["memory_format"], groups=groups
    )
    pruned = prune(network, groups=groups, kept=channels)
    step = StepSettings(scheme=scheme, memory_format=record["memory_format"])
    with TemporaryDirectory() as cache:
        first, first_seconds = timed_prediction(
            pruned, example, batch_size=batch, settings=step, cache=Path(cache)
        )
        again, cached_seconds = timed_prediction(
            pruned, example, batch_size=batch, settings=step, cache=Path(cache)
        )
    if first != again:
        raise RuntimeError(f"the cache changed {record}: {first} and {again}")
    measured = measure_peak(pruned, images, labels, settings=step, timed_steps=1)
    return {
        "tensors_bytes": int(model.peaks(channels, batch_size=batch)),
        "allocator_bytes": first.peak_bytes,
        "measured_bytes": measured.peak_bytes,
        "workspace_bytes": first.categories["workspace"],
        "first_seconds": first_seconds,
        "cached_seconds": cached_seconds,
        "operator": first.operator,
        "module": first.module,
    }


def timed_prediction(
    network: nn.Module, example: torch.Tensor, **step: Any
) -> tuple[Breakdown, float]:
    """Predict one step, and say how many seconds of the processor that took."""
    start = time.process_time()
    found = probed_timeline(network, example, **step).breakdown()
    return found, time.process_time() - start


def read(path: Path) -> list[dict[str, Any]]:
    """All records so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def error(record: dict[str, Any], convention: str) -> float:
    """How far a prediction lies from the measurement, in per cent of it."""
    measured = record["measured_bytes"]
    return 100 * (record[f"{convention}_bytes"] - measured) / float(measured)


def table(records: list[dict[str, Any]]) -> str:
    """The records as a Markdown page."""
    measured = [record for record in records if "measured_bytes" in record]
    several = [record for record in measured if record["batch"] > 1]
    alone = [record for record in measured if record["batch"] == 1]
    exact = sum(record["allocator_bytes"] == record["measured_bytes"] for record in measured)
    first, cached = (
        statistics.median(record[f"{kind}_seconds"] for record in measured)
        for kind in ("first", "cached")
    )
    left_out = len(records) - len(measured)
    lines = [
        "# Predicted against measured peak",
        "",
        (
            f"{len(measured)} real CPU training steps of randomly pruned networks "
            f"(torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, SGD with "
            f"momentum). The convention `allocator` predicted {exact} to the byte, in "
            f"{first:.1f} s of one processor (median; {cached:.1f} s where the operators were "
            f"cached). {left_out} drawn "
            "steps can't train: batch normalisation would see one value per channel. Errors are "
            "magnitudes, in per cent of the measured peak."
        ),
        "",
        ("| what | steps | tensors median | tensors worst | allocator median | allocator worst |"),
        "|---|---:|---:|---:|---:|---:|",
        row("batch 2 and above", several),
        row("batch 1", alone),
    ]
    for key in ("memory_format", "scheme", "network"):
        values = dict.fromkeys(record[key] for record in measured)
        lines += [row(str(value), [r for r in measured if r[key] == value]) for value in values]
    lines += ["", "The five farthest off:", ""]
    for record in sorted(measured, key=lambda r: -abs(error(r, "allocator")))[:5]:
        lines.append(
            f"- {record['network']}, {record['scheme']}, {record['memory_format']}, batch "
            f"{record['batch']}: {error(record, 'allocator'):+z.3f} % of "
            f"{record['measured_bytes'] / BYTES_PER_MB:.1f} MB, predicted at {record['operator']} "
            f"of {record['module'] or 'the loss'}"
        )
    return "\n".join(lines) + "\n"


def row(title: str, records: list[dict[str, Any]]) -> str:
    """One line of the table."""
    if not records:
        return f"| {title} | 0 | | | | |"
    cells = []
    for convention in ("tensors", "allocator"):
        errors = [abs(error(record, convention)) for record in records]
        cells += [f"{statistics.median(errors):.4f} %", f"{max(errors):.3f} %"]
    return f"| {title} | {len(records)} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
