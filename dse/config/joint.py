"""What else may vary beside pruning ratios, under one budget."""

from typing import Annotated

from dse.config.base import Frozen
from dse.config.fields import (
    AsTuple,
    Count,
    Criterion,
    Distinct,
    ImageSize,
    Optimizer,
    Rate,
    Scheme,
)
from dse.names import Checkpointing


class JointConfig(Frozen):
    """The fine-tuning recipes that candidates may have; the study's own is always one of them.

    Attributes:
        auto: Whether scheme, batch size, image size and checkpointing vary where nothing is
            listed, over what is usual (see `dse.sampling.joint`). Nothing unlisted varies if not.
        scheme: As training.scheme.
        batch_size: Divisors of training.batch_size, up to which gradients are added up: the
            optimizer sees the study's own batch.
        image_size: As data.image_size.
        checkpointing: As training.checkpointing.
        optimizer: As training.optimizer.
        learning_rate: As training.learning_rate.
        importance: As proxy.importance.
        reconstruct: As proxy.reconstruct.
    """

    auto: bool = False
    scheme: Annotated[tuple[Scheme, ...], AsTuple, Distinct] = ()
    batch_size: Annotated[tuple[Count, ...], AsTuple, Distinct] = ()
    image_size: Annotated[tuple[ImageSize, ...], AsTuple, Distinct] = ()
    checkpointing: Annotated[tuple[Checkpointing, ...], AsTuple, Distinct] = ()
    optimizer: Annotated[tuple[Optimizer, ...], AsTuple, Distinct] = ()
    learning_rate: Annotated[tuple[Rate, ...], AsTuple, Distinct] = ()
    importance: Annotated[tuple[Criterion, ...], AsTuple, Distinct] = ()
    reconstruct: Annotated[tuple[bool, ...], AsTuple, Distinct] = ()
