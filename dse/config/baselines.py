"""Which methods without a search a run scores beside its trials."""

from typing import Annotated, Literal

from dse.config.base import Frozen
from dse.config.fields import AsTuple, Distinct

BaselineMethod = Literal["uniform", "peak-greedy", "random"]


class BaselinesConfig(Frozen):
    """What a front must beat; `dse baseline` knows more methods, and applies each alone.

    Attributes:
        methods: "uniform" (the ratios of search.uniform_baselines), "peak-greedy" (the paper's
            rule, within each budget), "random" (three draws of ratios). The unpruned network is
            always scored.
    """

    methods: Annotated[tuple[BaselineMethod, ...], AsTuple, Distinct] = ("uniform", "peak-greedy")
