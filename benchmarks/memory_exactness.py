"""Is the memory model exact? Compare it with a fresh trace of each physically pruned network.

    python benchmarks/memory_exactness.py --traces 3000

Every torchvision classifier that can be pruned, times every scheme, is sampled, small networks
first and more often; optimizers, foreach, batch sizes and channel counts are drawn so that all of
them are covered. The truth is a tape of the physically pruned network, added up buffer by buffer.
Results are appended to a JSON-lines file, so an interrupted run goes on where it stopped; the table
is written after every network.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from dse.errors import DseError
from dse.memory.model import MemoryModel
from dse.memory.tape import Event, Tape
from dse.memory.trace import trace_step
from dse.networks.build import build_network
from dse.networks.forward import execution_order
from dse.pruning.groups import ChannelGroup, find_groups
from dse.pruning.resize import resized
from dse.pruning.surgery import prune
from dse.step.canonical import classification_loss
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings

HERE = Path(__file__).parent
IMAGE_SIZE = 224
INCEPTION_SIZE = 299
SCHEMES = ("full", "last", "norm", "bias", "from")
OPTIMIZERS = [
    (name, foreach)
    for foreach in (False, True)
    for name in ("sgd", "sgd-momentum", "adam", "adamw")
]
BATCHES = (1, 8, 32)
LEAST = 4  # traces of each network and scheme
SMALL = 40  # layers; networks of fewer get as many traces as one of these


def main() -> None:
    """Run the comparison and write its table."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    records = HERE / "memory_exactness.jsonl"
    done = {(r["network"], r["scheme"]) for r in read(records)}
    names = [
        name
        for name in torchvision.models.list_models(module=torchvision.models)
        if arguments.only is None or name in arguments.only
    ]
    layers = {name: count_layers(name) for name in names}
    weights = {name: 1 / max(count, SMALL) for name, count in layers.items()}
    scale = arguments.traces / (len(SCHEMES) * sum(weights.values()))
    for index, name in sorted(enumerate(names), key=lambda numbered: layers[numbered[1]]):
        if any((name, scheme) not in done for scheme in SCHEMES):
            each = max(LEAST, math.ceil(scale * weights[name]))
            compare_network(name, index, records, done=done, each=each)
            (HERE / "memory_exactness.md").write_text(table(read(records)))


def count_layers(name: str) -> int:
    """Modules without children: a trace takes as long as there are of them."""
    network = build_network(f"torchvision:{name}", classes=10)
    return sum(1 for module in network.modules() if not any(module.children()))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=3000, help="fresh traces in all, at least")
    parser.add_argument("--only", nargs="*", help="these networks alone")
    return parser.parse_args()


def compare_network(
    name: str, index: int, records: Path, *, done: set[tuple[str, str]], each: int
) -> None:
    """Compare one network under every scheme, appending a line for each."""
    size = INCEPTION_SIZE if name == "inception_v3" else IMAGE_SIZE
    example = torch.zeros(2, 3, size, size)
    start = time.perf_counter()
    try:
        network = build_network(f"torchvision:{name}", classes=10)
        groups = find_groups(network, example)
    except DseError as error:
        for scheme in SCHEMES:
            append(records, {"network": name, "scheme": scheme, "refused": str(error)})
        print(f"{name}: refused: {error}", flush=True)
        return
    order = execution_order(network, example)
    shell = network.to("meta")  # surgery and tracing need shapes alone
    for number, scheme in enumerate(SCHEMES):
        if (name, scheme) in done:
            continue
        rng = np.random.default_rng([index, number])
        worst, traces, methods = 0, 0, set()
        for optimizer, foreach in drawn_optimizers(index * len(SCHEMES) + number):
            settings = StepSettings(optimizer=optimizer, foreach=foreach)
            full_scheme = scheme
            if scheme == "from":
                full_scheme = f"from:{order[len(order) // 2]}"
            model = MemoryModel.compile(
                shell,
                example,
                scheme=full_scheme,
                optimizer=optimizer,
                foreach=foreach,
                groups=groups,
            )
            methods.add(model.method)
            for _ in range(-(-each // 2)):
                batch = int(rng.choice(BATCHES))
                channels = drawn_channels(groups, rng)
                predicted = int(model.peaks(channels, batch_size=batch))
                pruned = prune(shell, groups=groups, kept=channels)
                expected = fresh_peak(
                    pruned, (batch, 3, size, size), scheme=full_scheme, settings=settings
                )
                worst = max(worst, abs(predicted - expected))
                traces += 1
        append(
            records,
            {
                "network": name,
                "scheme": scheme,
                "traces": traces,
                "worst_bytes": worst,
                "groups": len(groups),
                "methods": sorted(methods),
            },
        )
        print(
            f"{name} {scheme}: {traces} traces, {worst} B, {time.perf_counter() - start:.0f} s",
            flush=True,
        )


def drawn_optimizers(position: int) -> Iterator[tuple[str, bool]]:
    """Two of the eight settings, moving on with every pair so that all are covered."""
    for offset in (0, 5):
        yield OPTIMIZERS[(position + offset) % len(OPTIMIZERS)]


def drawn_channels(groups: tuple[ChannelGroup, ...], rng: np.random.Generator) -> list[int]:
    """Any count from one unit to all, group by group."""
    return [int(rng.integers(1, g.channels // g.multiple + 1)) * g.multiple for g in groups]


def fresh_peak(
    network: torch.nn.Module, shape: tuple[int, ...], *, scheme: str, settings: StepSettings
) -> int:
    """Trace a pruned network as it is and add up its buffers."""
    shell = resized(network, (), ())
    apply_scheme(shell, torch.empty(2, *shape[1:], device="meta"), scheme)
    return replayed(trace_step(shell, shape, settings=settings, loss=classification_loss))


def replayed(tape: Tape) -> int:
    """Peak bytes of a tape, one buffer after the other."""
    held = peak = 0
    for event, buffer, _ in tape.events:
        if event in (Event.BIRTH, Event.DEATH):
            size = int(np.prod(tape.dims[buffer]))
            held += size if event == Event.BIRTH else -size
            peak = max(peak, held)
    return peak


def read(path: Path) -> list[dict[str, Any]]:
    """All records so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one record at once, so that an interruption loses one pair at most."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def table(records: list[dict[str, Any]]) -> str:
    """The records as a Markdown page."""
    compared = [r for r in records if "traces" in r]
    networks = list(dict.fromkeys(r["network"] for r in compared))
    lines = [
        "# Predicted against traced peak",
        "",
        (
            f"{len(networks)} networks, {sum(r['traces'] for r in compared)} fresh traces of "
            f"pruned networks, worst difference {max(r['worst_bytes'] for r in compared)} bytes. "
            f"Convention `tensors`; {IMAGE_SIZE}² images ({INCEPTION_SIZE}² for inception_v3), "
            "10 classes, batch 1, 8 or 32, "
            "channel counts uniform from one unit to all. "
            f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}. "
            "Written by `python benchmarks/memory_exactness.py`."
        ),
        "",
        "| network | groups | traces | worst difference, bytes | read by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in networks:
        own = [r for r in compared if r["network"] == name]
        methods = sorted({method for r in own for method in r["methods"]})
        lines.append(
            f"| {name} | {own[0]['groups']} | {sum(r['traces'] for r in own)} | "
            f"{max(r['worst_bytes'] for r in own)} | {', '.join(methods)} |"
        )
    refused = {r["network"]: r["refused"] for r in records if "refused" in r}
    if refused:
        lines += ["", "Not compared, with the reason given:", ""]
        lines += [f"* {name}: {reason}" for name, reason in refused.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
