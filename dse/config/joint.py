"""Parts of the recipe that may vary beside pruning ratios, under the same budgets."""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from dse.config.base import Frozen, KeyedError
from dse.config.fields import (
    AsTuple,
    Blocks,
    Count,
    Criterion,
    Distinct,
    Engine,
    ImageSize,
    Optimizer,
    Rate,
    Scheme,
)
from dse.config.lora import with_ranks
from dse.names import Checkpointing


class Range(Frozen):
    """All values between two; they are drawn on a logarithmic scale.

    Attributes:
        low: lowest value.
        high: highest value.
    """

    low: Rate
    high: Rate

    @model_validator(mode="after")
    def _check_order(self) -> "Range":
        if self.low >= self.high:
            raise KeyedError("high", f"is {self.high:g}: it must be above low = {self.low:g}")
        return self


_BESIDE = ("fixed_images", "depth", "drop")  # they leave open whether recipes vary


class JointConfig(Frozen):
    """The fine-tuning recipes that candidates may have; the study's own is always included.

    Attributes:
        auto: whether what isn't listed varies over usual values (see `dse.sampling.joint`): scheme,
            batch size, image size, checkpointing, engine, optimizer and learning rate. If False,
            only listed values vary. By default True if nothing is listed but blocks.
        fixed_images: whether batch size and image size stay the study's, as papers about pruning
            hold them.
        depth: whether some of the network's residual blocks may be left out, in sets that
            `dse.sampling.depth` chooses: none, a quarter and half of them.
        drop: sets of residual blocks that may be left out instead, as in "features.3,features.5".
        scheme: values like those of training.scheme.
        lora_rank: ranks of adapters. Each scheme with adapters among the values of scheme, or
            "lora" if there is none, is taken with each of these ranks.
        batch_size: divisors of training.batch_size; gradients are accumulated up to it, so that the
            optimizer uses the study's own batch.
        image_size: values like those of data.image_size.
        checkpointing: values like those of training.checkpointing.
        engine: values like those of training.engine. Checkpointing is only combined with the stock
            engine.
        optimizer: values like those of training.optimizer. Where learning rates aren't listed, that
            of another optimizer is the study's, converted (see `dse.sampling.joint`).
        learning_rate: values like those of training.learning_rate, or the range between two.
        length: range of the length of the training, as multiples of the study's; None if it does
            not vary.
        importance: values like those of proxy.importance.
        reconstruct: values like those of proxy.reconstruct.
    """

    auto: bool = False
    fixed_images: bool = False
    depth: bool = False
    drop: Annotated[tuple[Blocks, ...], AsTuple, Distinct] = ()
    scheme: Annotated[tuple[Scheme, ...], AsTuple, Distinct] = ()
    lora_rank: Annotated[tuple[Count, ...], AsTuple, Distinct, Field(exclude=True)] = ()
    batch_size: Annotated[tuple[Count, ...], AsTuple, Distinct] = ()
    image_size: Annotated[tuple[ImageSize, ...], AsTuple, Distinct] = ()
    checkpointing: Annotated[tuple[Checkpointing, ...], AsTuple, Distinct] = ()
    engine: Annotated[tuple[Engine, ...], AsTuple, Distinct] = ()
    optimizer: Annotated[tuple[Optimizer, ...], AsTuple, Distinct] = ()
    learning_rate: Range | Annotated[tuple[Rate, ...], AsTuple, Distinct] = ()
    length: Range | None = None
    importance: Annotated[tuple[Criterion, ...], AsTuple, Distinct] = ()
    reconstruct: Annotated[tuple[bool, ...], AsTuple, Distinct] = ()

    @model_validator(mode="before")
    @classmethod
    def _choose_auto(cls, given: object) -> object:
        if not isinstance(given, dict) or "auto" in given:
            return given
        listed = any(value for key, value in given.items() if key not in _BESIDE)
        return {**given, "auto": not listed}

    @model_validator(mode="after")
    def _put_ranks_into_schemes(self) -> "JointConfig":
        if self.lora_rank:
            try:
                schemes = with_ranks(self.scheme, self.lora_rank)
            except ValueError as error:
                raise KeyedError("lora_rank", str(error)) from error
            # The class is frozen for its users; here it isn't finished yet.
            self.__dict__.update({"scheme": schemes, "lora_rank": ()})
        return self

    @model_validator(mode="after")
    def _check_images(self) -> "JointConfig":
        for key in ("batch_size", "image_size"):
            if self.fixed_images and getattr(self, key):
                raise KeyedError(key, "stands beside fixed_images = true: take one of the two out")
        return self

    @model_validator(mode="after")
    def _check_depth(self) -> "JointConfig":
        if self.depth and self.drop:
            raise KeyedError("drop", "stands beside depth = true: take one of the two out")
        return self

    @property
    def listed_rates(self) -> tuple[float, ...]:
        """Learning rates that are listed; empty for a range."""
        return self.learning_rate if isinstance(self.learning_rate, tuple) else ()


def _switch(value: object) -> object:
    """Convert `joint = true` and `joint = false` to what they stand for."""
    if value is True:
        return {"auto": True}
    return None if value is False else value


Joint = Annotated[JointConfig | None, BeforeValidator(_switch)]
"""A table, `true` for the usual recipes, or `false` for the study's own alone."""
