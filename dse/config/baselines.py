"""Which methods without a search a run scores beside its trials."""

from typing import Annotated

from dse.config.base import Frozen
from dse.config.fields import AsTuple, BaselineMethod, Distinct


class BaselinesConfig(Frozen):
    """What a front must beat; `dse baseline` applies each method alone, and in more steps.

    Attributes:
        methods: "uniform" (the ratios of search.uniform_baselines), "peak-greedy" (the paper's
            rule, within each budget), "random" (three draws of ratios); without pruning: the
            schemes "last", "norm", "bias" and "lite-residual", "freeze" (all before a quarter,
            half and three quarters of the blocks), "image-size" (three quarters and half the
            side), "micro-batch" (the batch in halves and quarters, added up) and "checkpointing".
            What a network doesn't have (blocks, say) is passed over, and this is said. The
            unpruned network is always scored.
    """

    methods: Annotated[tuple[BaselineMethod, ...], AsTuple, Distinct] = (
        "uniform",
        "peak-greedy",
        "last",
        "bias",
        "freeze",
        "image-size",
        "micro-batch",
        "checkpointing",
    )
