"""The fidelities at which candidates are evaluated."""

from typing import Annotated

from pydantic import Field, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import Count, Criterion, Positive


class ProxyConfig(Frozen):
    """The short fine-tuning that predicts the full one, with its three fidelities.

    Attributes:
        importance: criterion by which channels are ranked; the least important are removed first.
            "taylor" and "fisher" are computed on training images, after the output layer was
            trained on them.
        reconstruct: whether layers that read pruned channels are refitted by least squares on
            training images to restore their outputs; needs no gradients and no labels.
        calibrate_batches: number of training batches from which batch-norm statistics are
            recomputed if pruning changed a norm's input or training changed the weights. Other
            training images decide whether they replace the network's own. 0 always keeps its own.
        short_epochs: length of the short fine-tuning.
        full_epochs: length of the full fine-tuning.
        full_seeds: number of seeds that a finalist is fine-tuned with in full.
    """

    importance: Criterion = "l1"
    reconstruct: bool = False
    calibrate_batches: Annotated[int, Field(ge=0)] = 8
    short_epochs: Positive = 1.0
    full_epochs: Positive = 10.0
    full_seeds: Count = 3

    @model_validator(mode="after")
    def _check_epochs(self) -> "ProxyConfig":
        if self.short_epochs > self.full_epochs:
            raise KeyedError(
                "short_epochs",
                f"must not be above proxy.full_epochs = {self.full_epochs:g}: lower it",
            )
        return self
