"""Parts of the recipe that may vary beside pruning ratios, under the same budgets."""

from typing import Annotated

from dse.config.base import Frozen
from dse.config.fields import (
    AsTuple,
    Count,
    Criterion,
    Distinct,
    Engine,
    ImageSize,
    Optimizer,
    Rate,
    Scheme,
)
from dse.names import Checkpointing


class JointConfig(Frozen):
    """The fine-tuning recipes that candidates may have; the study's own is always included.

    Attributes:
        auto: whether scheme, batch size, image size, checkpointing and engine vary over usual
            values if none are listed (see `dse.sampling.joint`). If False, only listed values vary.
        scheme: values like those of training.scheme.
        batch_size: divisors of training.batch_size; gradients are accumulated up to it, so that the
            optimizer uses the study's own batch.
        image_size: values like those of data.image_size.
        checkpointing: values like those of training.checkpointing.
        engine: values like those of training.engine. Checkpointing is only combined with the stock
            engine.
        optimizer: values like those of training.optimizer.
        learning_rate: values like those of training.learning_rate.
        importance: values like those of proxy.importance.
        reconstruct: values like those of proxy.reconstruct.
    """

    auto: bool = False
    scheme: Annotated[tuple[Scheme, ...], AsTuple, Distinct] = ()
    batch_size: Annotated[tuple[Count, ...], AsTuple, Distinct] = ()
    image_size: Annotated[tuple[ImageSize, ...], AsTuple, Distinct] = ()
    checkpointing: Annotated[tuple[Checkpointing, ...], AsTuple, Distinct] = ()
    engine: Annotated[tuple[Engine, ...], AsTuple, Distinct] = ()
    optimizer: Annotated[tuple[Optimizer, ...], AsTuple, Distinct] = ()
    learning_rate: Annotated[tuple[Rate, ...], AsTuple, Distinct] = ()
    importance: Annotated[tuple[Criterion, ...], AsTuple, Distinct] = ()
    reconstruct: Annotated[tuple[bool, ...], AsTuple, Distinct] = ()
