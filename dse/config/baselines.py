"""The baseline methods that a run scores beside its trials."""

from typing import Annotated

from dse.config.base import Frozen
from dse.config.fields import AsTuple, BaselineMethod, Distinct


class BaselinesConfig(Frozen):
    """Baselines that a front must beat; `dse baseline` evaluates each method in more detail.

    Attributes:
        methods: methods that prune are "uniform" (the ratios of search.uniform_baselines),
            "peak-greedy" (the paper's rule, within each budget) and "random" (three draws of
            ratios). Methods without pruning are the schemes "last", "norm", "bias" and
            "lite-residual", "freeze" (everything before a quarter, half and three quarters of the
            blocks), "image-size" (three quarters and half of the side), "micro-batch" (half and
            quarter batches, accumulated), "checkpointing" and "lean" (the lean engine, and its plan
            of least memory). Methods that a network doesn't
            support, for lack of blocks for example, are skipped with a message. The unpruned
            network is always scored.
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
