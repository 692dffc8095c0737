"""How far does the literature's formula lie from what stock PyTorch holds?

    python benchmarks/layerwise_vs_tensors.py

Compares the conventions `layerwise` and `tensors` on MobileNetV2, scheme by scheme, and rewrites
the table between the markers in docs/layerwise.md.
"""

from pathlib import Path

import numpy as np
import torch
import torchvision

from dse.memory.layerwise import layerwise_memory
from dse.memory.model import MemoryModel
from dse.networks.build import build_network

PAGE = Path(__file__).parents[1] / "docs" / "layerwise.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
SCHEMES = ("full", "norm", "bias", "last")
IMAGE_SIZES = (224, 96)
BATCH_SIZE = 8
CLASSES = 196
MB = 1_000_000


def main() -> None:
    """Compute the table and put it into the page."""
    torch.manual_seed(0)
    network = build_network("torchvision:mobilenet_v2", classes=CLASSES)
    rows = [row(network, size, scheme) for size in IMAGE_SIZES for scheme in SCHEMES]
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}")


def row(network: torch.nn.Module, image_size: int, scheme: str) -> str:
    """One line: both conventions for one image size and scheme."""
    example = torch.zeros(1, 3, image_size, image_size)
    formula = layerwise_memory(network, example, batch_size=BATCH_SIZE, scheme=scheme)
    model = MemoryModel.compile(network, example, scheme=scheme, groups=())
    held = model.breakdown(np.zeros(0, dtype=np.int64), batch_size=BATCH_SIZE)
    activation, whole = formula.activation_bytes, formula.peak_bytes
    return (
        f"| {image_size}² | {scheme} | {activation / MB:.1f} "
        f"| {held.peak_activation_bytes / MB:.1f} "
        f"| {activation / held.peak_activation_bytes - 1:+.0%} | {whole / MB:.1f} "
        f"| {held.peak_bytes / MB:.1f} | {whole / held.peak_bytes - 1:+.0%} |"
    )


def table(rows: list[str]) -> str:
    """The page's part that is computed."""
    head = [
        (
            f"MobileNetV2, batch {BATCH_SIZE}, {CLASSES} classes, SGD with momentum; "
            f"MB = 10⁶ bytes. PyTorch {torch.__version__}, torchvision {torchvision.__version__}."
        ),
        "",
        (
            "| image | scheme | activation, formula | activation, PyTorch | difference "
            "| all, formula | all, PyTorch | difference |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *rows])


if __name__ == "__main__":
    main()
