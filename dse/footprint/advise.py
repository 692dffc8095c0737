"""What would make a step fit a RAM size: one change at a time, each predicted from a trace."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import nn

from dse.candidate import kept_channels
from dse.config.fields import lean_within
from dse.engines.engine import study_plan
from dse.engines.network import LeanNetwork, run_by
from dse.engines.plan import LeanPlan
from dse.errors import MemoryModelError, NetworkError
from dse.footprint.resolve import ResolvedStep
from dse.memory.cache import compiled_model
from dse.memory.explain import largest_batch
from dse.memory.model import MemoryModel
from dse.networks.exported_library import exported_input
from dse.pruning.surgery import prune
from dse.step.lite_residual import LITE_RESIDUAL
from dse.step.settings import StepSettings

Change = Literal[
    "none",
    "batch size",
    "scheme",
    "checkpointing",
    "engine",
    "optimizer",
    "image size",
    "pruning",
]

SCHEMES = ("last", "norm", "bias", LITE_RESIDUAL)
RATIOS = np.linspace(0.01, 0.99, 99)
SMALLEST_IMAGE = 32
IMAGE_STEP = 32  # the factor by which most networks reduce an image
_INAPPLICABLE = (MemoryModelError, NetworkError)  # the network can't take such a step


@dataclass(frozen=True)
class Remedy:
    """The step with one setting changed.

    Attributes:
        change: The setting that changes; ``none`` for the step without a change.
        value: Its new value, as text.
        peak_bytes: Peak of the changed step, by the convention ``tensors``.
        fits: Whether the peak is within the RAM.
        largest_batch_size: Largest batch that fits after the change; 0 if not even one image does.
    """

    change: Change
    value: str
    peak_bytes: int
    fits: bool
    largest_batch_size: int


def remedies(
    step: ResolvedStep,
    model: MemoryModel,
    *,
    ram_bytes: int,
    on_progress: Callable[[str], None] = lambda _name: None,
) -> tuple[Remedy, ...]:
    """Try what makes a step smaller, each change alone.

    Args:
        step: The step.
        model: Its memory model.
        ram_bytes: Memory that the step should fit.
        on_progress: Called with the name of each change before it is tried.

    Returns:
        The step without a change; then the largest batch that fits, other schemes, checkpointing,
        the lean engine (with the plan within the memory if it doesn't fit without one), the
        optimizer without state, and, if the step doesn't fit, the largest image and the smallest
        uniform pruning ratio with which it does.
    """
    network = step.network
    if step.groups:
        network = prune(network, groups=step.groups, kept=step.kept)
    trials = _Trials(step=step, network=network, ram_bytes=ram_bytes, on_progress=on_progress)
    plan = step.running.lean_plan if isinstance(step.running, LeanNetwork) else None
    pruned_model = trials.compile(plan=plan)
    unchanged = trials.judge("none", "", pruned_model)
    found = [unchanged, *_smaller_batch(unchanged, pruned_model, batch_size=step.batch_size)]
    if step.settings.mode == "training":
        found += _other_settings(trials)
    if not unchanged.fits:
        found += _smaller_image(trials)
        if step.groups:
            on_progress("pruning")
            found += _pruning(step, model, ram_bytes=ram_bytes)
    return tuple(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trials:
    """Predicts changed steps of one network, which is already pruned."""

    step: ResolvedStep
    network: nn.Module
    ram_bytes: int
    on_progress: Callable[[str], None]

    def change_setting(self, change: Change, value: str, settings: StepSettings) -> Remedy:
        self.on_progress(f"{change} {value}")
        return self.judge(change, value, self.compile(settings=settings))

    def change_image_size(self, image_size: int) -> Remedy:
        self.on_progress(f"image size {image_size}")
        return self.judge("image size", str(image_size), self.compile(image_size=image_size))

    def compile(
        self,
        *,
        image_size: int | None = None,
        settings: StepSettings | None = None,
        plan: LeanPlan | None = None,
    ) -> MemoryModel:
        """Compile the step with other images or settings; the network has no groups to prune.

        Without a plan, a lean step gets the plan that its engine makes for it.
        """
        settings = settings or self.step.settings
        inputs = self.step.inputs_at(image_size)
        example, loss = inputs.example(2), self.step.task_for(inputs).loss
        if plan is None:
            plan = study_plan(
                self.network,
                example,
                settings=settings,
                batch_size=self.step.batch_size,
                loss=loss,
            )
        network = run_by(self.network, example, plan)
        return compiled_model(network, example, settings=settings, groups=(), loss=loss)

    def judge(self, change: Change, value: str, model: MemoryModel) -> Remedy:
        peak = int(model.peaks([], batch_size=self.step.batch_size))
        batch = largest_batch(model, [], budget_bytes=self.ram_bytes)
        return Remedy(change, value, peak, peak <= self.ram_bytes, batch)


def _smaller_batch(unchanged: Remedy, model: MemoryModel, *, batch_size: int) -> Iterator[Remedy]:
    """Yield the largest batch that fits, if it is smaller than the step's and at least 1."""
    batch = unchanged.largest_batch_size
    if 0 < batch < batch_size:
        peak = int(model.peaks([], batch_size=batch))
        yield Remedy("batch size", str(batch), peak, fits=True, largest_batch_size=batch)


def _other_settings(trials: _Trials) -> Iterator[Remedy]:
    """Yield other schemes, checkpointing, engines and the optimizer without state."""
    settings = trials.step.settings
    changes: list[tuple[Change, str, StepSettings]] = [
        ("scheme", name, replace(settings, scheme=name))
        for name in SCHEMES
        if name != settings.scheme
    ]
    if settings.checkpointing == "none" and not settings.lean:
        changes.append(("checkpointing", "blocks", replace(settings, checkpointing="blocks")))
    for change, value, changed in changes:
        try:
            yield trials.change_setting(change, value, changed)
        except _INAPPLICABLE:
            continue  # for example, the network has no blocks
    yield from _lean(trials)
    if settings.optimizer != "sgd":
        plain = replace(settings, optimizer="sgd", nesterov=False)
        yield trials.change_setting("optimizer", "sgd", plain)


def _lean(trials: _Trials) -> Iterator[Remedy]:
    """Yield the lean engine, and the plan within the memory if it doesn't fit without one."""
    settings = trials.step.settings
    if settings.lean or settings.precision != "float32":
        return
    settings = replace(settings, checkpointing="none")
    for engine in ("lean", lean_within(trials.ram_bytes)):
        try:
            remedy = trials.change_setting("engine", engine, replace(settings, engine=engine))
        except _INAPPLICABLE:
            return  # for example, the network can't be traced as a whole
        yield remedy
        if remedy.fits:
            return


def _smaller_image(trials: _Trials) -> Iterator[Remedy]:
    """Yield the largest smaller image size that fits, if there is one."""
    if exported_input(trials.step.network) is not None:
        return  # an exported program takes samples of one shape
    below = (trials.step.image_size - 1) // IMAGE_STEP * IMAGE_STEP
    for size in range(below, SMALLEST_IMAGE - 1, -IMAGE_STEP):
        try:
            remedy = trials.change_image_size(size)
        except _INAPPLICABLE:
            return  # too small an image for this network, and so are those below
        if remedy.fits:
            yield remedy
            return


def _pruning(step: ResolvedStep, model: MemoryModel, *, ram_bytes: int) -> Iterator[Remedy]:
    """Yield the smallest ratio that fits if every group is pruned by it, if there is one."""
    candidates = np.array([_kept_at(float(ratio), step.kept, model) for ratio in RATIOS])
    peaks = model.peaks(candidates, batch_size=step.batch_size)
    fitting = np.flatnonzero(peaks <= ram_bytes)
    if len(fitting):
        first = int(fitting[0])
        yield Remedy(
            "pruning",
            f"{RATIOS[first]:.2f}",
            int(peaks[first]),
            fits=True,
            largest_batch_size=largest_batch(model, candidates[first], budget_bytes=ram_bytes),
        )


def _kept_at(ratio: float, kept: Sequence[int], model: MemoryModel) -> list[int]:
    """Prune what each group still keeps by a ratio, (groups,)."""
    return [
        kept_channels(count, ratio, multiple=group.multiple)
        for count, group in zip(kept, model.groups, strict=True)
    ]
