"""What a real training step holds at its peak."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dse.candidate import Candidate
from dse.engines.engine import study_plan
from dse.engines.network import LeanNetwork, run_by
from dse.engines.plan import LeanPlan
from dse.footprint.rebuild import rebuild
from dse.footprint.resolve import ResolvedStep
from dse.inputs import InputSpec
from dse.memory.measure import Measurement, enough_memory_for, measure_peak
from dse.networks.devices import check_device, threads_set
from dse.step.settings import StepSettings
from dse.tasks.task import Task, example_targets, plain_task


def measure_step(step: ResolvedStep) -> Measurement:
    """Run real training steps on noise, and measure one.

    Raises:
        DseError: As for `built_candidate`.
        MemoryModelError: If the device's memory can't be measured, or is too small.
    """
    target = step.target
    with threads_set(target.threads):  # the step's workspace depends on them
        task = step.task_for(step.inputs)
        built = built_candidate(
            target.network,
            Candidate.from_kept(step.groups, step.kept, drop=step.drop),
            classes=target.classes,
            options=target.options,
            search_path=target.search_path,
            batch_size=step.batch_size,
            inputs=step.inputs,
            settings=step.settings,
            device=step.device,
            plan=step.running.lean_plan if isinstance(step.running, LeanNetwork) else None,
            task=task,
        )
        return measure_peak(*built, settings=step.settings, loss=task.on(step.device))


def built_candidate(
    name: str,
    candidate: Candidate,
    *,
    classes: int,
    inputs: InputSpec,
    batch_size: int,
    settings: StepSettings,
    options: Mapping[str, Any] | None = None,
    search_path: Path | None = None,
    device: str = "cpu",
    plan: LeanPlan | None = None,
    plan_batch_size: int | None = None,
    task: Task | None = None,
) -> tuple[nn.Module, Tensor, Tensor]:
    """Build a candidate, and a batch of noise with labels for a real training step.

    Args:
        name: Name of the network, such as `torchvision:mobilenet_v2`.
        candidate: Gives the channels kept, the blocks left out, and a scheme that may add side
            branches; the rest of its recipe is ignored.
        classes: Number of outputs.
        inputs: Shape and type of one sample.
        batch_size: Images per step.
        settings: Settings of the step.
        options: Options of the network's factory.
        search_path: Folder in which `package.module:factory` is also looked for.
        device: Device that runs the step.
        plan: Plan of a lean step. If None and the settings' engine is lean, it is the plan that all
            candidates share (see ``study_plan``).
        plan_batch_size: Images per step that this plan is made for; ``batch_size`` if None.
        task: Task of the outputs; a classification if None.

    Returns:
        The network on its device, and samples and labels on the CPU.

    Raises:
        ConfigError: If this machine has no such device.
        NetworkError: If the network can't be built, or the scheme doesn't fit it.
        PruningError: If the network can't be pruned.
        MemoryModelError: If there is too little memory for the network or the samples.
    """
    check_device(device)
    task = task or plain_task(classes)
    build = partial(
        rebuild,
        name,
        classes=classes,
        inputs=inputs,
        options=options,
        search_path=search_path,
        outputs=task.config.outputs,
    )
    example = inputs.example(2)
    if plan is None and settings.lean:
        unpruned = build(candidate=Candidate(drop=candidate.drop))
        plan = study_plan(
            unpruned,
            example,
            settings=settings,
            batch_size=plan_batch_size or batch_size,
            loss=task.loss,
        )
    noise = torch.Generator().manual_seed(0)
    with enough_memory_for(f"a step with {batch_size} samples of {inputs.text}"):
        network = run_by(build(candidate=candidate).to(device), example, plan)
        samples = inputs.example(batch_size)
        if samples.is_floating_point():
            samples.normal_(generator=noise)
    return network, samples, example_targets(task, batch_size)
