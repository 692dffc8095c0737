"""The decisive check: does a real step pass just above its predicted memory, and fail just below?

    python benchmarks/memory_cap.py

Each case runs in processes of its own. A few steps come first, so that the optimizer's state and
the interpreter's own memory are there; then the kernel caps the data segment (``RLIMIT_DATA``) at
what is there plus a factor times the step's predicted dynamic peak, i.e. what the convention
``allocator`` predicts beyond what lives before the step, and one more step is tried. The C library
takes every larger block straight from the kernel and gives it straight back, so that the cap meets
the step's own memory. Linux with glibc only. The table is written to memory_cap.md.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dse.memory.cap import PINNED, cap_at
from dse.memory.probed import probed_timeline
from dse.memory_formats import in_format, laid_out
from dse.networks.build import build_network
from dse.step.canonical import classification_loss, training_step
from dse.step.optimizers import make_optimizer
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings

HERE = Path(__file__).parent
PASSES, FAILS = 1.005, 0.995
CLASSES = 10
WARM_UP = 3
LIFELONG = ("weights", "buffers", "optimizer_state", "input")
TOO_LITTLE = 3  # exit status


@dataclass(frozen=True)
class Case:
    """One step."""

    network: str
    scheme: str
    batch: int
    size: int
    memory_format: str = "contiguous"
    optimizer: str = "sgd-momentum"
    checkpointing: str = "none"
    accumulate: int = 1


CASES = (
    Case("mobilenet_v2", "full", 8, 224),
    Case("mobilenet_v2", "full", 8, 224, memory_format="channels-last"),
    Case("mobilenet_v2", "last", 32, 224),
    Case("mobilenet_v2", "full", 16, 224, checkpointing="blocks"),
    Case("mobilenet_v2", "full", 8, 160, accumulate=2),
    Case("resnet18", "full", 16, 160, optimizer="adamw"),
    Case("resnet18", "norm", 16, 160),
    Case("efficientnet_b0", "full", 8, 160),
    Case("squeezenet1_1", "full", 16, 224),
    Case("mnasnet0_5", "bias", 16, 224),
)


def main() -> None:
    """Try every case on both sides of its prediction."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--factor", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        sys.exit(attempt(Case(**json.loads(arguments.child)), arguments.factor))
    rows = []
    for case in CASES:
        dynamic = predicted_dynamic(case)
        outcomes = [outcome(case, factor) for factor in (PASSES, FAILS)]
        rows.append((case, dynamic, *outcomes))
        print(case, f"{dynamic / 1e6:.1f} MB", outcomes, flush=True)
    (HERE / "memory_cap.md").write_text(table(rows))


def settings(case: Case) -> StepSettings:
    """The step's settings."""
    return StepSettings(
        scheme=case.scheme,
        optimizer=case.optimizer,
        memory_format=case.memory_format,  # type: ignore[arg-type]
        checkpointing=case.checkpointing,  # type: ignore[arg-type]
        accumulate=case.accumulate,
    )


def predicted_dynamic(case: Case) -> int:
    """Bytes that the step takes at its peak beyond what lived before it."""
    network = build_network(f"torchvision:{case.network}", classes=CLASSES)
    torch.set_num_threads(1)
    found = probed_timeline(
        network,
        torch.zeros(2, 3, case.size, case.size),
        batch_size=case.batch,
        settings=settings(case),
    ).breakdown()
    return found.peak_bytes - sum(found.categories[name] for name in LIFELONG)


def outcome(case: Case, factor: float) -> str:
    """Try a case in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(asdict(case))]
    done = subprocess.run(  # noqa: S603  # this very file
        [*command, "--factor", str(factor)],
        env={**os.environ, **PINNED},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, TOO_LITTLE):
        raise RuntimeError(f"{case} ended with {done.returncode}: {done.stderr[-500:]}")
    return "passes" if done.returncode == 0 else "fails"


def attempt(case: Case, factor: float) -> int:
    """Run steps, cap the data segment, and run one more."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dynamic = predicted_dynamic(case)
    step_settings = settings(case)
    network = build_network(f"torchvision:{case.network}", classes=CLASSES)
    network = in_format(network, step_settings.memory_format)
    images = torch.randn(case.batch, 3, case.size, case.size)
    images = laid_out(images, step_settings.memory_format)
    labels = torch.arange(case.batch) % CLASSES
    apply_scheme(network, images[:2], case.scheme)
    optimizer = make_optimizer(network.parameters(), step_settings, learning_rate=1e-6)
    batches = [(images, labels)] * case.accumulate

    def step() -> None:
        training_step(network, optimizer, classification_loss, batches, settings=step_settings)

    for _ in range(WARM_UP):
        step()
    cap_at(int(factor * dynamic))
    try:
        step()
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        return TOO_LITTLE
    return 0


def table(rows: list[tuple[Case, int, str, str]]) -> str:
    """The outcomes as a Markdown page."""
    right = sum(above == "passes" and below == "fails" for _, _, above, below in rows)
    lines = [
        "# Real steps under a hard cap",
        "",
        (
            f"{right} of {len(rows)} steps pass with {PASSES} times their predicted dynamic peak "
            f"and fail with {FAILS} times it. Cap: `RLIMIT_DATA` at the data segment before the "
            "step plus that; convention `allocator`, one thread, "
            f"torch {torch.__version__}. Written by `python benchmarks/memory_cap.py`."
        ),
        "",
        "| step | predicted dynamic peak, MB | at 1.005 | at 0.995 |",
        "|---|---:|---|---|",
    ]
    for case, dynamic, above, below in rows:
        extras = [
            case.optimizer,
            case.memory_format,
            "checkpointed" if case.checkpointing != "none" else "",
            f"{case.accumulate} accumulated" if case.accumulate > 1 else "",
        ]
        name = f"{case.network}, {case.scheme}, batch {case.batch}, {case.size}²"
        lines.append(
            f"| {', '.join([name, *filter(None, extras)])} | {dynamic / 1e6:.1f} "
            f"| {above} | {below} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
