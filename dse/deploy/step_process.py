"""Training steps of a bundle's network in a process of their own, perhaps under a hard cap.

    python -P -m dse.deploy.step_process < request.json

Reads a `StepRequest` as JSON from stdin and writes a `StepResult` as JSON to stdout.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.candidate import Candidate
from dse.deploy.bundle import load, plan_of
from dse.deploy.recipe import Recipe
from dse.engines.engine import run_by, study_plan
from dse.errors import DseError, ExportError
from dse.footprint.rebuild import rebuild
from dse.memory.cap import PINNED, cap_at
from dse.memory.measure import measure_peak
from dse.memory_formats import in_format, laid_out
from dse.step.canonical import classification_loss, training_step
from dse.step.optimizers import make_optimizer
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings
from dse.user_code import is_out_of_memory

CAPPED_STEPS = 3
_WARM_UP = 2
_LONGEST_LINE = 300


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """What to run.

    Attributes:
        bundle: folder of the bundle.
        unpruned: whether to run the unpruned network, with random weights, in its place.
        ram_bytes: bytes that a step may hold in all; None to measure a step without a cap.
        trust: whether code that the recipe names may run.
        search_path: folder in which that code is searched, too.
    """

    bundle: str
    unpruned: bool = False
    ram_bytes: int | None = None
    trust: bool = False
    search_path: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What happened.

    Attributes:
        peak_bytes: what a step held at its peak; None under a cap.
        completed: whether all steps completed; False if memory ran out under the cap.
        loss: loss of the last step; None if none completed.
    """

    peak_bytes: int | None = None
    completed: bool = True
    loss: float | None = None


def run_steps(request: StepRequest) -> StepResult:
    """Run a request in a process of its own.

    Raises:
        ExportError: if the process fails for any other reason than the cap.
    """
    done = subprocess.run(  # this very file
        [sys.executable, "-P", "-m", "dse.deploy.step_process"],
        input=json.dumps(asdict(request)),
        env={**os.environ, **PINNED},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        line = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ExportError(f"{request.bundle}: its steps can't run: {line[:_LONGEST_LINE]}")
    return StepResult(**json.loads(done.stdout.strip().splitlines()[-1]))


def settings_of(recipe: Recipe) -> StepSettings:
    """Return the settings of a recipe's training step."""
    fields: dict[str, Any] = {
        name: getattr(recipe, name)
        for name in StepSettings.__dataclass_fields__
        if hasattr(recipe, name)
    }
    return StepSettings(**fields)


def network_of(request: StepRequest, recipe: Recipe) -> nn.Module:
    """Return the network that a request is about."""
    search_path = Path(request.search_path) if request.search_path else None
    if not request.unpruned:
        return load(request.bundle, search_path=search_path, trust=request.trust)
    return rebuild(
        recipe.network,
        classes=recipe.classes,
        inputs=recipe.input_spec,
        candidate=Candidate(scheme=recipe.scheme),
        options=recipe.options,
        search_path=search_path,
    )


def perform(request: StepRequest) -> StepResult:
    """Run a request in this process, whose memory stays capped if it asks for a cap."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    recipe = Recipe.read(Path(request.bundle) / "recipe.json")
    settings = settings_of(recipe)
    network = network_of(request, recipe)
    example = recipe.input_spec.example(2)
    if settings.lean:  # of the unpruned network, too: its plan is what all candidates share
        plan = plan_of(Path(request.bundle), recipe)
        if plan is None:  # bundles made before plans were stored
            whole = network_of(replace(request, unpruned=True), recipe)
            plan = study_plan(whole, example, settings=settings, batch_size=recipe.batch_size)
        network = run_by(network, example, plan)
    images = recipe.input_spec.example(recipe.batch_size)
    if images.is_floating_point():
        images.normal_()
    labels = torch.arange(recipe.batch_size) % recipe.classes
    if request.ram_bytes is None:
        return StepResult(
            peak_bytes=measure_peak(network, images, labels, settings=settings).peak_bytes
        )
    return _capped(network, images, labels, recipe=recipe, ram_bytes=request.ram_bytes)


def _capped(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    recipe: Recipe,
    ram_bytes: int,
) -> StepResult:
    settings, learning_rate = settings_of(recipe), recipe.learning_rate
    network = in_format(network, settings.memory_format)
    images = laid_out(images, settings.memory_format)
    apply_scheme(network, images[:2], settings.scheme)
    # Far below the recipe's rate: noise is no data to learn from.
    optimizer = make_optimizer(network.parameters(), settings, learning_rate=learning_rate * 1e-3)
    batches = [(images, labels)] * settings.accumulate

    def step() -> float:
        return float(
            training_step(network, optimizer, classification_loss, batches, settings=settings)
        )

    for _ in range(_WARM_UP):  # the optimizer's state, and the interpreter's own memory
        loss = step()
    state = [v for held in optimizer.state.values() for v in held.values()]
    there = [*network.parameters(), *network.buffers(), *filter(torch.is_tensor, state)]
    there_bytes = sum({t.data_ptr(): t.nbytes for t in (*there, images, labels)}.values())
    if ram_bytes <= there_bytes:
        return StepResult(completed=False)
    cap_at(ram_bytes - there_bytes)
    try:
        for _ in range(CAPPED_STEPS):
            loss = step()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return StepResult(completed=False)
    return StepResult(loss=loss)


def main() -> None:
    """Run the request on stdin."""
    try:
        result = perform(StepRequest(**json.load(sys.stdin)))
    except DseError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        raise SystemExit(error.exit_status) from error
    sys.stdout.write(json.dumps(asdict(result)) + "\n")


if __name__ == "__main__":
    main()
