"""A lean step beside the stock step: its plan, and what stock PyTorch would hold."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from dse.engines.figures import pruned_plan_figures
from dse.engines.network import LeanNetwork
from dse.footprint.predict import compile_step, predict
from dse.footprint.request import FootprintRequest
from dse.footprint.resolve import ResolvedStep
from dse.memory.timeline import Timeline
from dse.step.plan_figures import PlanFigures


@dataclass(frozen=True, kw_only=True)
class LeanStep:
    """What is known of a lean step beside its peak.

    Attributes:
        plan: What each block does, holds and takes.
        stock_peak_bytes: Peak of the same step with stock PyTorch, by the same convention.
        stock_timeline: Memory over that step, by the convention of the lean step's timeline.
    """

    plan: PlanFigures
    stock_peak_bytes: int
    stock_timeline: Timeline

    def to_json(self) -> dict[str, Any]:
        """Return the object that `dse memory --json` prints."""
        return {
            "stock_peak_bytes": self.stock_peak_bytes,
            "time": self.plan.time,
            "blocks": [asdict(block) for block in self.plan.blocks],
            "untraced": list(self.plan.untraced),
        }


def lean_step(step: ResolvedStep, request: FootprintRequest) -> LeanStep:
    """Find out what a lean step does, and what stock PyTorch would hold.

    Args:
        step: A step that the lean engine runs.
        request: Says how memory is counted.

    Raises:
        DseError: As for `predict`.
    """
    if not isinstance(step.running, LeanNetwork):
        raise TypeError(f"{type(step.running).__name__} is not lean")
    figures = pruned_plan_figures(
        step.network,
        step.groups,
        step.kept,
        plan=step.running.lean_plan,
        example_input=step.example,
        settings=step.settings,
        batch_size=step.batch_size,
        loss=step.loss,
    )
    stock = replace(step, running=step.network, settings=replace(step.settings, engine="stock"))
    found = predict(
        stock,
        compile_step(stock),
        convention=request.convention,
        element_bits=request.element_bits,
        probe=request.probe,
    )
    return LeanStep(
        plan=figures,
        stock_peak_bytes=found.breakdown.peak_bytes,
        stock_timeline=found.timeline,
    )
