"""Planned lean steps under a hard cap: each passes just above its prediction, and fails just below.

    python benchmarks/lean_cap.py            # the cases that lean_cap.json lacks
    python benchmarks/lean_cap.py --again    # all of them

As in memory_cap.py: after a few steps the kernel caps the data segment (``RLIMIT_DATA``) at what is
there plus a factor times the step's predicted dynamic peak, and one more step is tried. Before,
what the heap holds free is taken, because a step would use it beside the cap. Prediction and
attempts run in forks, since importing PyTorch takes longer than a step. Outcomes go to
lean_cap.json one by one, and the table to lean.md. Linux with glibc only.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from lean import write_section

import dse
from dse.engines.network import LeanNetwork, run_by
from dse.engines.plan import LeanPlan
from dse.memory.cap import PINNED, cap_at, fill_heap
from dse.memory.model import MemoryModel
from dse.memory.probed import probed_timeline
from dse.networks.build import build_network
from dse.step.canonical import classification_loss, training_step
from dse.step.optimizers import make_optimizer
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings

OUTCOMES = Path(__file__).with_name("lean_cap.json")
PASSES, FAILS = 1.005, 0.995
CLASSES, WARM_UP = 10, 3
LIFELONG = ("weights", "buffers", "optimizer_state", "input")


@dataclass(frozen=True)
class Case:
    """One planned step.

    Attributes:
        network: torchvision's name.
        scheme: Which parameters train.
        budget: ``least``, or percent of stock PyTorch's predicted peak.
        batch, size: Images and their side.
        optimizer: Name of the optimizer.
        identical: Whether the plan leaves chunks out.
        in_backward: Whether the optimizer runs in the backward pass.
    """

    network: str
    scheme: str
    budget: str | int
    batch: int = 8
    size: int = 112
    optimizer: str = "sgd-momentum"
    identical: bool = False
    in_backward: bool = False

    @property
    def settings(self) -> StepSettings:
        """Settings of the step."""
        return StepSettings(
            scheme=self.scheme, optimizer=self.optimizer, optimizer_in_backward=self.in_backward
        )


CASES = (
    Case("mobilenet_v2", "full", "least", batch=64, size=144),
    Case("mobilenet_v2", "full", 60, batch=24),
    Case("mobilenet_v2", "full", 40, batch=24, size=128),
    Case("mobilenet_v2", "full", "least", batch=48, identical=True),
    Case("mobilenet_v2", "full", "least", batch=64, size=144, in_backward=True),
    Case("mobilenet_v2", "bias", 60, batch=24),
    Case("mobilenet_v2", "bias", "least", batch=32, size=144, identical=True),
    Case("mobilenet_v2", "norm", 40, batch=24),
    Case("mobilenet_v2", "from:features.10", 70, batch=64),
    Case("mobilenet_v3_large", "full", 60, batch=32),
    Case("mobilenet_v3_large", "full", "least", batch=64),
    Case("mobilenet_v3_large", "bias", 60, batch=32),
    Case("mnasnet0_5", "full", "least", batch=96),
    Case("mnasnet0_5", "norm", 60, batch=64),
    Case("mnasnet0_5", "full", 60, batch=64, optimizer="adamw", in_backward=True),
    Case("shufflenet_v2_x1_0", "full", 80, batch=64),
    Case("shufflenet_v2_x1_0", "bias", "least", batch=64),
    Case("resnet18", "full", "least", batch=32),
    Case("resnet18", "norm", "least", batch=32),
    Case("squeezenet1_1", "full", "least", batch=48),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        case: The planned step.
        dynamic_bytes: Predicted bytes beyond what lived before the step.
        plan_seconds: CPU seconds that the plan took to make.
        above, below: What the step did with a little more and a little less than that: ``passes``,
            ``fails``, or an error.
    """

    case: Case
    dynamic_bytes: int
    plan_seconds: float
    above: str
    below: str


def main() -> None:
    """Try every case on both sides of its prediction."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--again", action="store_true", help="measure all cases once more")
    again = parser.parse_args().again
    if any(os.environ.get(name) != value for name, value in PINNED.items()):
        command = [sys.executable, *sys.argv]
        os.execve(sys.executable, command, {**os.environ, **PINNED})  # noqa: S606  # this file
    torch.set_num_threads(1)
    known = {} if again else stored()
    for case in CASES:
        if case not in known:
            known[case] = outcome_of(case)
            print(known[case], flush=True)
            keep(known)


def keep(known: dict[Case, Outcome]) -> None:
    """Write the outcomes so far, and their table."""
    OUTCOMES.write_text(json.dumps([asdict(one) for one in known.values()], indent=1) + "\n")
    done = [known[case] for case in CASES if case in known]
    write_section("Planned steps under a hard cap", table(done))


def stored() -> dict[Case, Outcome]:
    """Return the outcomes measured so far, by case."""
    rows = json.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else []
    outcomes = [Outcome(**{**row, "case": Case(**row["case"])}) for row in rows]
    return {one.case: one for one in outcomes}


def outcome_of(case: Case) -> Outcome:
    """Predict a case and try it on both sides."""
    found = in_fork(partial(prediction, case))
    above, below = (
        tried(partial(attempt, case, found["plan"], int(factor * found["dynamic"])))
        for factor in (PASSES, FAILS)
    )
    return Outcome(case, found["dynamic"], found["seconds"], above, below)


def in_fork(work: Callable[[], Any]) -> Any:
    """Run a function in a fork of this process, and return what it returns."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as forks:
        return forks.submit(work).result()


def tried(work: Callable[[], str]) -> str:
    """Return what an attempt found. A process that the lack of memory ends has failed, too."""
    try:
        return str(in_fork(work))
    except BrokenProcessPool:
        return "fails"


def planned(case: Case) -> LeanNetwork:
    """Return the lean network of a case."""
    torch.manual_seed(0)
    network = build_network(f"torchvision:{case.network}", classes=CLASSES)
    images = torch.zeros(case.batch, 3, case.size, case.size)
    budget = case.budget
    if isinstance(budget, int):
        model = MemoryModel.compile(network, images, groups=(), settings=case.settings)
        budget = int(model.peaks([], batch_size=case.batch)) * budget // 100
    return dse.lean(
        network,
        images,
        case.scheme,
        budget,
        bit_identical=case.identical,
        settings=case.settings,
    )


def prediction(case: Case) -> dict[str, Any]:
    """Predict the bytes that a step takes at its peak beyond what lived before it."""
    start = time.process_time()
    network = planned(case)
    seconds = time.process_time() - start
    images = torch.zeros(2, 3, case.size, case.size)
    settings = case.settings
    found = probed_timeline(network, images, batch_size=case.batch, settings=settings).breakdown()
    dynamic = found.peak_bytes - sum(found.categories[name] for name in LIFELONG)
    return {"dynamic": dynamic, "seconds": seconds, "plan": network.lean_plan}


def attempt(case: Case, plan: LeanPlan, allowed_bytes: int) -> str:
    """Run steps, cap the data segment, and run one more."""
    torch.manual_seed(0)
    network = build_network(f"torchvision:{case.network}", classes=CLASSES)
    images = torch.randn(case.batch, 3, case.size, case.size)
    labels = torch.arange(case.batch) % CLASSES
    apply_scheme(network, images[:2], case.scheme)
    network = run_by(network, images, plan)
    optimizer = make_optimizer(network.parameters(), case.settings, learning_rate=1e-6)

    def step() -> None:
        batches = [(images, labels)]
        training_step(network, optimizer, classification_loss, batches, settings=case.settings)

    for _ in range(WARM_UP):
        step()
    gc.collect()
    fill_heap()
    cap_at(allowed_bytes)
    try:
        step()
    except (RuntimeError, MemoryError) as error:
        return "fails" if "memory" in str(error) or isinstance(error, MemoryError) else str(error)
    return "passes"


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as Markdown."""
    right = sum((one.above, one.below) == ("passes", "fails") for one in outcomes)
    slowest = max(one.plan_seconds for one in outcomes)
    missing = len(CASES) - len(outcomes)
    rest = f" The other {missing} cases of the script haven't been run." if missing else ""
    lines = [
        (
            f"{right} of {len(outcomes)} planned steps pass with {PASSES} times their predicted "
            f"dynamic peak and fail with {FAILS} times it (`RLIMIT_DATA`; convention `allocator`, "
            "so kernels' workspace is part of the prediction; one thread). Making a plan took "
            f"{slowest:.1f} s of CPU time at most, with the memory model of the stock step that "
            f"its budget is a share of. Made by `python benchmarks/lean_cap.py`.{rest}"
        ),
        "",
        "| step | plan | predicted dynamic peak, MB | plan made in, s | at 1.005 | at 0.995 |",
        "|---|---|---:|---:|---|---|",
    ]
    for one in outcomes:
        case = one.case
        budget = "least" if case.budget == "least" else f"{case.budget} % of stock"
        extras = ["identical"] * case.identical + ["optimizer in backward"] * case.in_backward
        name = f"{case.network}, {case.scheme}, {case.optimizer}, batch {case.batch}, {case.size}²"
        lines.append(
            f"| {name} | {', '.join([budget, *extras])} | {one.dynamic_bytes / 1e6:.1f} "
            f"| {one.plan_seconds:.1f} | {one.above} | {one.below} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
