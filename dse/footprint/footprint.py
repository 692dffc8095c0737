"""The memory of one training step: predicted, and on request measured, explained and reduced."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from dse.engines.network import LeanNetwork
from dse.footprint.advise import Remedy, remedies
from dse.footprint.lean_step import LeanStep, lean_step
from dse.footprint.measure import measure_step
from dse.footprint.predict import compile_step, known_allocator_peak, predict
from dse.footprint.request import FootprintRequest
from dse.footprint.resolve import resolve
from dse.inputs import InputSpec
from dse.memory.conventions import CONVENTIONS, TENSORS
from dse.memory.explain import Explanation, explain
from dse.memory.timeline import Breakdown, Timeline
from dse.names import dropped
from dse.pruning.depth import Depth
from dse.pruning.shares import WholeLayers
from dse.step.settings import StepSettings

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What one training step holds at its peak.

    Attributes:
        network: Name of the network.
        batch_size: Images per step.
        image_size: Height and width of the images in pixels; without a meaning for other samples.
        inputs: Shape and type of one sample.
        settings: Settings of the step.
        convention: What is counted.
        device: Device of the convention ``allocator`` and of the measurement.
        breakdown: The peak by category, and where it is reached.
        timeline: Memory over the step.
        timeline_convention: What the timeline counts: ``convention``, or ``tensors`` if that gives
            a peak alone.
        allocator_peak_bytes: Peak with the workspace of kernels, for ``tensors``; None if it
            isn't known without running operators.
        measured_peak_bytes: Peak of a real step; None if it was not measured.
        explanation: Of the peak; None if it was not requested.
        whole: Layers that can't be pruned, by reason; empty if no explanation was requested.
        ram_bytes: RAM size to fit; None if none was given.
        remedies: The step without a change, then with one change each; empty without a RAM size.
        lean: What is known of a lean step beside its peak; None for a stock step.
        unprunable: Why the network can't be pruned; None if it can be, or it was of no interest.
    """

    network: str
    batch_size: int
    image_size: int
    inputs: InputSpec
    settings: StepSettings
    convention: str
    device: str
    breakdown: Breakdown
    timeline: Timeline
    timeline_convention: str
    allocator_peak_bytes: int | None = None
    measured_peak_bytes: int | None = None
    explanation: Explanation | None = None
    whole: tuple[WholeLayers, ...] = ()
    ram_bytes: int | None = None
    remedies: tuple[Remedy, ...] = ()
    lean: LeanStep | None = None
    unprunable: str | None = None
    drop: str | None = None
    depth: Depth | None = None

    @property
    def lean_peak_bytes(self) -> int | None:
        """Peak of the lean step that remedies are compared with; None if there is none."""
        if not self.remedies:
            return None
        lean = [one for one in self.remedies if one.change == "engine"]
        best = self.remedies[0] if self.settings.lean else lean[-1] if lean else None
        return None if best is None else best.peak_bytes

    @property
    def probed(self) -> bool:
        """Whether workspace was learned by running each operator alone."""
        return CONVENTIONS[self.convention].runs_operators

    @property
    def relative_error(self) -> float | None:
        """Predicted over measured peak, minus 1; None if nothing was measured."""
        if self.measured_peak_bytes is None:
            return None
        return self.breakdown.peak_bytes / self.measured_peak_bytes - 1

    def to_json(self) -> dict[str, Any]:
        """Return the object that `dse memory --json` prints (docs/schemas/memory-1.json)."""
        answer = {
            "version": SCHEMA_VERSION,
            "network": self.network,
            "scheme": self.settings.scheme,
            "batch_size": self.batch_size,
            "image_size": self.image_size,
            "input": self.inputs.to_json(),
            "optimizer": self.settings.optimizer,
            "drop": list(dropped(self.drop)),
            "step": _step_json(self.settings),
            "convention": self.convention,
            "device": self.device,
            "probed": self.probed,
            **self.breakdown.to_json(),
        }
        if self.allocator_peak_bytes is not None:
            answer["allocator_peak_bytes"] = self.allocator_peak_bytes
        if self.measured_peak_bytes is not None:
            answer["measured_peak_bytes"] = self.measured_peak_bytes
            answer["relative_error"] = self.relative_error
        if self.lean is not None:
            answer["lean"] = self.lean.to_json()
        if self.explanation is not None:
            answer["explanation"] = self.explanation.to_json()
            answer["whole"] = [asdict(layers) for layers in self.whole]
        if self.depth is not None:
            answer["blocks"] = _blocks_json(self.depth)
        if self.ram_bytes is not None:
            answer["ram_bytes"] = self.ram_bytes
            answer["largest_batch_size"] = self.remedies[0].largest_batch_size
            answer["remedies"] = [asdict(remedy) for remedy in self.remedies]
            if self.lean_peak_bytes is not None:
                answer["lean_peak_bytes"] = self.lean_peak_bytes
            if self.unprunable is not None:
                answer["unprunable"] = self.unprunable
        return answer


def footprint(
    request: FootprintRequest,
    *,
    on_progress: Callable[[str], None] = lambda _name: None,
    on_note: Callable[[str], None] = lambda _line: None,
) -> Footprint:
    """Predict the peak memory of one training step, and do what else is requested.

    Args:
        request: The step, how to count it, and what else to report.
        on_progress: Called with the name of each remedy before it is tried.
        on_note: Called with lines about a study's data, and about what in the network may surprise.

    Raises:
        DseError: If an option is invalid, or the network can't be built, traced or measured.
    """
    step = resolve(request, on_note=on_note)
    model = compile_step(step)
    prediction = predict(
        step,
        model,
        convention=request.convention,
        element_bits=request.element_bits,
        probe=request.probe,
    )
    found: tuple[Remedy, ...] = ()
    if request.ram_bytes is not None:
        found = remedies(step, model, ram_bytes=request.ram_bytes, on_progress=on_progress)
    measured = measure_step(step).peak_bytes if request.measure else None
    explanation = None
    if request.explain:
        explanation = explain(model, step.kept, batch_size=step.batch_size)
    return Footprint(
        network=step.target.network,
        batch_size=step.batch_size,
        image_size=step.image_size,
        inputs=step.inputs,
        settings=step.settings,
        convention=request.convention,
        device=step.device,
        breakdown=prediction.breakdown,
        timeline=prediction.timeline,
        timeline_convention=prediction.timeline_convention,
        allocator_peak_bytes=(
            known_allocator_peak(step, model) if request.convention == TENSORS else None
        ),
        measured_peak_bytes=measured,
        explanation=explanation,
        whole=tuple(step.whole) if request.explain else (),
        ram_bytes=request.ram_bytes,
        remedies=found,
        lean=lean_step(step, request) if isinstance(step.running, LeanNetwork) else None,
        unprunable=step.unprunable,
        drop=step.drop,
        depth=step.depth,
    )


def _blocks_json(depth: Depth) -> dict[str, Any]:
    return {
        "can_be_left_out": [
            {"block": block.name, "with": list(block.after)} for block in depth.blocks
        ],
        "stay": [{"block": name, "reason": reason} for name, reason in depth.refused.items()],
    }


def _step_json(step: StepSettings) -> dict[str, Any]:
    return {
        "mode": step.mode,
        "accumulate": step.accumulate,
        "checkpointing": step.checkpointing,
        "engine": step.engine,
        "precision": step.precision,
        "foreach": step.foreach,
        "fused": step.fused,
        "optimizer_in_backward": step.optimizer_in_backward,
        "memory_format": step.memory_format,
        "weight_decay": step.weight_decay,
        "nesterov": step.nesterov,
    }
