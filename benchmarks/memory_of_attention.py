"""Attention networks: predicted against measured peak of a training step.

    python benchmarks/memory_of_attention.py

Networks of timm with random weights, as they are, in small images. Each row is one real step. The
table names what PyTorch's allocator held, and how far both conventions are off. Results are
appended to a JSON-lines file, so an interrupted run goes on where it stopped.
"""

import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch

from dse.errors import DseError
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline

HERE = Path(__file__).parent
RECORDS = HERE / "memory_of_attention.jsonl"
CLASSES = 10
BATCH = 2
MEBIBYTE = 2**20
# Name, side of the images in pixels, and whether the network is built for that side.
NETWORKS: tuple[tuple[str, int, bool], ...] = (
    ("vit_tiny_patch16_224", 64, True),
    ("deit_tiny_patch16_224", 96, True),
    ("mobilevit_xxs", 64, False),
    ("mobilevitv2_050", 64, False),
    ("efficientvit_b0", 64, False),
    ("efficientvit_m0", 224, False),
    ("levit_128s", 224, False),
    ("tiny_vit_5m_224", 224, False),
    ("edgenext_xx_small", 64, False),
    ("eva02_tiny_patch14_224", 56, True),
    ("mobilenetv4_hybrid_medium", 64, False),
    ("coat_lite_tiny", 224, False),
    ("pvt_v2_b0", 64, False),
    ("xcit_nano_12_p16_224", 64, False),
    ("cait_xxs24_224", 64, True),
    ("crossvit_tiny_240", 240, False),
    ("fastvit_sa12", 64, False),
    ("botnet26t_256", 256, False),
    ("lambda_resnet26rpt_256", 256, False),
    ("vit_relpos_small_patch16_224", 64, True),
    ("pit_ti_224", 224, False),
    ("swin_tiny_patch4_window7_224", 56, True),
    ("maxvit_rmlp_pico_rw_256", 64, True),
    ("coatnet_pico_rw_224", 64, True),
)


def main() -> None:
    """Run the networks that are still missing and write the table."""
    torch.set_num_threads(1)
    done = {record["network"] for record in read()}
    for name, size, resizable in NETWORKS:
        if name not in done:
            record = {"network": name, "image_size": size} | compared(name, size, resizable)
            with RECORDS.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)
    (HERE / "memory_of_attention.md").write_text(table(read()))


def compared(name: str, size: int, resizable: bool) -> dict[str, Any]:  # noqa: FBT001
    """Predict and measure one step."""
    torch.manual_seed(0)
    own_size = {"img_size": size} if resizable else {}
    try:
        network = timm.create_model(name, num_classes=CLASSES, **own_size)
    except (TypeError, AssertionError, RuntimeError) as error:
        return {"refused": f"timm: {error}"}
    images, labels = torch.randn(BATCH, 3, size, size), torch.randint(CLASSES, (BATCH,))
    try:
        tensors = MemoryModel.compile(network, images, groups=()).peaks([], batch_size=BATCH)
        with TemporaryDirectory() as cache:
            found = probed_timeline(network, images, batch_size=BATCH, cache=Path(cache))
    except DseError as error:
        return {"refused": str(error)}
    measured = measure_peak(network, images, labels, timed_steps=1)
    return {
        "tensors_bytes": int(tensors),
        "allocator_bytes": found.breakdown().peak_bytes,
        "measured_bytes": measured.peak_bytes,
    }


def read() -> list[dict[str, Any]]:
    """All records so far."""
    lines = RECORDS.read_text().splitlines() if RECORDS.exists() else []
    return [json.loads(line) for line in lines]


def off(record: dict[str, Any], convention: str) -> float:
    """How far a prediction is above the measurement, in per cent of it."""
    return 100 * (record[f"{convention}_bytes"] / float(record["measured_bytes"]) - 1)


def table(records: list[dict[str, Any]]) -> str:
    """The records as a Markdown page."""
    measured = [record for record in records if "measured_bytes" in record]
    errors = [abs(off(record, "allocator")) for record in measured]
    most = max(abs(r["allocator_bytes"] - r["measured_bytes"]) for r in measured)
    exact = sum(record["allocator_bytes"] == record["measured_bytes"] for record in measured)
    lines = [
        "# Attention networks: predicted against measured peak",
        "",
        (
            f"{len(measured)} real training steps (timm {timm.__version__}, torch "
            f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread, batch "
            f"{BATCH}, SGD with momentum, everything trains, random weights). The convention "
            f"`allocator` predicted {exact} to the byte; its error was "
            f"{statistics.median(errors):.4f} % in the median and {max(errors):.5f} %, "
            f"or {most} bytes, at worst."
        ),
        "",
        "| network | pixels | measured, MiB | `tensors` | `allocator` |",
        "|---|---:|---:|---:|---:|",
    ]
    for record in records:
        start = f"| {record['network']} | {record['image_size']} |"
        if "refused" in record:
            lines.append(f"{start} | refused: {record['refused']} | |")
        else:
            held = record["measured_bytes"] / MEBIBYTE
            tensors, allocator = off(record, "tensors"), off(record, "allocator")
            lines.append(f"{start} {held:.1f} | {tensors:+.2f} % | {allocator:+.4f} % |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
