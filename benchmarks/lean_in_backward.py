"""What the optimizer in the backward pass saves: real steps, with it and without.

    python benchmarks/lean_in_backward.py

Peaks are those of the CPU's allocator, at 224², batch 8. The table goes to lean.md.
"""

import copy

import torch
from lean import BATCH, MIB, SIZE, build, peak_of, write_section

import dse
from dse.memory.model import MemoryModel
from dse.step.settings import StepSettings

CASES = (
    ("resnet18", "sgd-momentum"),
    ("resnet18", "adamw"),
    ("mobilenet_v2", "sgd-momentum"),
)


def main() -> None:
    """Measure every case with stock PyTorch and with the plan of least memory."""
    torch.set_num_threads(1)
    lines = [
        (
            f"Everything trains, {SIZE}², batch {BATCH}: MiB of the allocator (predicted tensors). "
            "Made by `python benchmarks/lean_in_backward.py`."
        ),
        "",
        "| network | optimizer | step | after the backward pass | in it | of the former |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    images = torch.zeros(BATCH, 3, SIZE, SIZE)
    for name, optimizer in CASES:
        base = build(name)
        for engine, budget in (("stock", None), ("least memory", "least")):
            texts, peaks = [], []
            for in_backward in (False, True):
                settings = StepSettings(optimizer=optimizer, optimizer_in_backward=in_backward)
                network = copy.deepcopy(base)
                if budget is not None:
                    network = dse.lean(network, images, "full", budget, settings=settings)
                model = MemoryModel.compile(network, images, groups=(), settings=settings)
                predicted = int(model.peaks([], batch_size=BATCH))
                peaks.append(peak_of(network, settings))
                texts.append(f"{peaks[-1] / MIB:.1f} ({predicted / MIB:.1f})")
            share = 100 * peaks[1] / peaks[0]
            lines.append(
                f"| {name} | {optimizer} | {engine} | {' | '.join(texts)} | {share:.1f} % |"
            )
            print(lines[-1], flush=True)
    write_section("The optimizer in the backward pass", "\n".join(lines))


if __name__ == "__main__":
    main()
