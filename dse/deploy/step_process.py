"""Training steps of a bundle's network in a process of their own, perhaps under a hard cap.

    python -P -m dse.deploy.step_process < request.json

Reads a `StepRequest` as JSON from stdin and writes a `StepResult` as JSON to stdout.
"""

import copy
import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.candidate import Candidate
from dse.deploy.bundle import load, plan_of
from dse.deploy.lean_files import LEAN_FILE, lean_files, run_as_in_bundle
from dse.deploy.own_process import answer, ask
from dse.deploy.recipe import Recipe, objection_to_task
from dse.engines.engine import study_plan
from dse.engines.network import run_by
from dse.engines.plan import LeanPlan
from dse.errors import ExportError
from dse.footprint.rebuild import rebuild
from dse.memory.cap import beyond_tensors_bytes, cap_at, fill_heap
from dse.memory.measure import measure_peak
from dse.memory_formats import in_format, laid_out
from dse.step.canonical import Loss, loss_tensors, training_step
from dse.step.optimizers import make_optimizer
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings
from dse.tasks.task import Task, example_targets
from dse.user_code import is_out_of_memory

CAPPED_STEPS = 3
_COMPARED = 4  # samples of a batch whose gradients are compared


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """What to run.

    Attributes:
        bundle: folder of the bundle.
        unpruned: whether to run the unpruned network, with random weights, in its place.
        ram_bytes: bytes that a step's tensors may hold in all; None to measure a step without a
            cap.
        gradients: whether to compare a lean step's gradients with stock PyTorch's instead.
        trust: whether code that the recipe names may run.
        search_path: folder in which that code is searched, too.
    """

    bundle: str
    unpruned: bool = False
    ram_bytes: int | None = None
    gradients: bool = False
    trust: bool = False
    search_path: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What happened.

    Attributes:
        peak_bytes: what a step held at its peak; None under a cap.
        completed: whether all steps completed; False if memory ran out under the cap.
        beyond_bytes: bytes that the cap left beside the tensors, for pages that these don't fill
            and for the interpreter; None without a cap.
        parameters: number of the network's parameters.
        loss: loss of the last step; None if none completed.
        gradient_difference: by how much a lean step's gradients differ from stock PyTorch's, as a
            share of these (2-norm over all parameters); None if that wasn't compared.
    """

    peak_bytes: int | None = None
    completed: bool = True
    beyond_bytes: int | None = None
    parameters: int | None = None
    loss: float | None = None
    gradient_difference: float | None = None


def run_steps(request: StepRequest) -> StepResult:
    """Run a request in a process of its own.

    Raises:
        ExportError: if the process fails for any other reason than the cap.
    """
    found = ask(
        "dse.deploy.step_process", request, place=request.bundle, engine="the training step"
    )
    return StepResult(**found)


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
        outputs=recipe.outputs,
    )


def perform(request: StepRequest) -> StepResult:
    """Run a request in this process, whose memory stays capped if it asks for a cap."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    recipe = Recipe.read(Path(request.bundle) / "recipe.json")
    settings, search_path = settings_of(recipe), request.search_path
    if not request.trust and (objection := objection_to_task(recipe)) is not None:
        raise ExportError(f"{request.bundle}: {objection}")
    task = recipe.build_task(search_path=Path(search_path) if search_path else None)
    network = network_of(request, recipe)
    example = recipe.input_spec.example(2)
    if settings.lean:  # of the unpruned network, too: its plan is what all candidates share
        # The whole network has a plan of its own where the bundle's lacks some blocks.
        other = request.unpruned and recipe.drop is not None
        plan = None if other else plan_of(Path(request.bundle), recipe)
        if plan is None:  # also for bundles made before plans were stored
            whole = network_of(replace(request, unpruned=True), recipe)
            plan = study_plan(
                whole,
                example,
                settings=settings,
                batch_size=recipe.batch_size,
                loss=task.loss,
            )
        if plan is None:
            raise ExportError(f"{request.bundle}: the engine {settings.engine!r} has no plan")
        if request.gradients:
            difference = _gradient_difference(network, recipe, plan, task)
            return StepResult(gradient_difference=difference)
        if request.unpruned or not (Path(request.bundle) / LEAN_FILE).is_file():
            network = run_by(network, example, plan)
        else:
            apply_scheme(network, example, recipe.scheme)
            network = run_as_in_bundle(network, lean_files(network, recipe, plan))
    images = recipe.input_spec.example(recipe.batch_size)
    if images.is_floating_point():
        images.normal_()
    labels = example_targets(task, recipe.batch_size)
    if request.ram_bytes is None:
        found = measure_peak(network, images, labels, settings=settings, loss=task.loss)
        return StepResult(peak_bytes=found.peak_bytes)
    return _capped(
        network, images, labels, recipe=recipe, loss=task.loss, ram_bytes=request.ram_bytes
    )


def _gradient_difference(network: nn.Module, recipe: Recipe, plan: LeanPlan, task: Task) -> float:
    """Compare gradients of the bundle's lean step with stock PyTorch's.

    In float64 if blocks are computed in chunks, which changes the order of sums; in float32 the
    difference that rounding makes would hide others.
    """
    apply_scheme(network, recipe.input_spec.example(2), recipe.scheme)
    chunked = any(s.level == "chunked" for p in plan.programs for s in p.segments)
    network = network.to(torch.float64 if chunked else torch.float32)
    files = lean_files(network, recipe, plan)
    samples = recipe.input_spec.example(max(2, min(recipe.batch_size, _COMPARED)))
    if samples.is_floating_point():
        samples = samples.normal_().to(torch.float64 if chunked else torch.float32)
    labels, loss = example_targets(task, len(samples)), task.loss
    if isinstance(loss, nn.Module):
        loss = loss.to(samples.dtype if samples.is_floating_point() else torch.float32)
    if labels.is_floating_point():
        labels = labels.to(next(network.parameters()).dtype)
    found = []
    for own in (copy.deepcopy(network), run_as_in_bundle(copy.deepcopy(network), files)):
        torch.manual_seed(0)
        torch.autograd.backward(loss(own(samples), labels))
        grads = [p.grad.flatten() for p in own.parameters() if p.grad is not None]
        found.append(torch.cat(grads).double())
    stock, lean = found
    if stock.shape != lean.shape:
        raise ExportError("the lean step computes gradients of other parameters than stock PyTorch")
    return float((lean - stock).norm() / stock.norm().clamp_min(torch.finfo(torch.float64).tiny))


def _capped(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    recipe: Recipe,
    loss: Loss,
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
        return float(training_step(network, optimizer, loss, batches, settings=settings))

    trained = [p for p in network.parameters() if p.requires_grad]
    value = step()  # makes the optimizer's state
    beyond_bytes = beyond_tensors_bytes(step, trained=trained)
    step()  # the interpreter's own memory
    state = [v for held in optimizer.state.values() for v in held.values()]
    there = [*network.parameters(), *network.buffers(), *loss_tensors(loss)]
    there += filter(torch.is_tensor, state)
    there_bytes = sum({t.data_ptr(): t.nbytes for t in (*there, images, labels)}.values())
    count = sum(p.numel() for p in network.parameters())
    failed = StepResult(completed=False, beyond_bytes=beyond_bytes, parameters=count)
    if ram_bytes <= there_bytes:
        return failed
    gc.collect()
    fill_heap()
    cap_at(ram_bytes - there_bytes + beyond_bytes)
    try:
        for _ in range(CAPPED_STEPS):
            value = step()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return failed
    return replace(failed, completed=True, loss=value)


def main() -> None:
    """Run the request on stdin."""
    answer(lambda request: perform(StepRequest(**request)))


if __name__ == "__main__":
    main()
