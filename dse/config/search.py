"""The search: its objectives, budgets and limits."""

from typing import Annotated

from pydantic import field_validator, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import (
    AsTuple,
    Budgets,
    ClassMetric,
    Count,
    CountOrZero,
    Distinct,
    Duration,
    Objective,
    Ratios,
    Sampler,
    Share,
)
from dse.names import SearchConvention
from dse.units import PeakShare


class SearchConfig(Frozen):
    """What the search optimises, within which budgets, and when it stops.

    Attributes:
        sampler: sampler of the ratios: "front" (see `dse.sampling.propose`), or one of Optuna's.
        trials: number of candidates to train.
        timeout: seconds after which no new trial starts.
        objectives: names of the objectives; "accuracy" and "peak_bytes" are required.
        metric: metric of a classification behind the objective "accuracy" and all reported scores:
            the share of correct predictions ("accuracy"), the mean recall over classes
            ("balanced-accuracy") or the mean F1 score over classes ("macro-f1"); the last two
            weight all classes equally. `task.metric` names that of any task; see `Study.metric`.
        convention: how peaks are counted: "tensors", or "allocator", which adds what the study's
            device holds beyond them (see `dse.search.device_memory`). None means "allocator" on
            CUDA and "tensors" elsewhere.
        budgets: bytes of device RAM, or shares of the unpruned network's peak in the study's own
            training step; candidates over the largest are not trained.
        uniform_baselines: ratios of the uniformly pruned baselines, ascending.
        images: number of trained images after which no new trial starts; the tuning of the
            unpruned network, baselines and diverged trainings count.
        level_window: number of last trained candidates; no new trial starts if the hypervolume rose
            by less than `level_gain` over them. None disables this.
        level_gain: share of the reference box.
        repeats: number of candidates within each budget, and as many baselines, that are trained
            again at `short` with a second seed before finalists are chosen; the better half gets a
            third. 0 chooses by one seed.
        finalists: number of candidates of the front that are fine-tuned in full at the end.
        full_baselines: whether the most accurate baseline within each budget is fine-tuned in full
            like a finalist.
        climb: share of a short fine-tuning after which a candidate is scored; it is stopped if it
            can no longer become the most accurate of those with equal or less memory. None trains
            every candidate to the end.
        gate: whether candidates that exceed every budget, or are known already, aren't trained.
        aim: whether draws are scaled to targets spread over memory, from the smallest network of
            the space to the largest budget.
        relax: whether each candidate is widened as far as its target, or else its own peak, allows.
    """

    sampler: Sampler = "front"
    trials: Count = 40
    timeout: Duration | None = None
    objectives: Annotated[tuple[Objective, ...], AsTuple, Distinct] = ("accuracy", "peak_bytes")
    metric: ClassMetric = "accuracy"
    convention: SearchConvention | None = None
    budgets: Budgets
    uniform_baselines: Ratios = (0.25, 0.5, 0.75, 0.9)
    images: Count | None = None
    level_window: Count | None = None
    level_gain: Share = 0.005
    repeats: CountOrZero = 3
    finalists: Count = 5
    full_baselines: bool = True
    climb: Share | None = None
    gate: bool = True
    aim: bool = True
    relax: bool = True

    @property
    def budget_bytes(self) -> tuple[int, ...]:
        """The budgets in bytes, ascending.

        Raises:
            ValueError: if some are still shares; see `with_budgets`.
        """
        if any(isinstance(budget, PeakShare) for budget in self.budgets):
            raise ValueError("shares of the unpruned peak were not resolved to bytes")
        return tuple(budget for budget in self.budgets if isinstance(budget, int))

    @model_validator(mode="after")
    def _check_climb(self) -> "SearchConfig":
        if self.climb is not None and len(self.objectives) > 2:  # noqa: PLR2004  # its two
            raise KeyedError(
                "climb",
                "judges by accuracy and peak_bytes alone, and the study has more objectives: take "
                "it out, or shorten search.objectives",
            )
        return self

    @field_validator("objectives")
    @classmethod
    def _check_objectives(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        for needed in ("accuracy", "peak_bytes"):
            if needed not in objectives:
                raise ValueError(f"must contain {needed!r}, which the front is drawn from: add it")
        return objectives
