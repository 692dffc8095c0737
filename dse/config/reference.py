"""How the unpruned network's own recipe is found, before anything is compared with it."""

from typing import Annotated

from pydantic import AfterValidator, Field

from dse.config.base import Frozen
from dse.config.fields import AsTuple, Count, Distinct, Positive

Factors = Annotated[
    tuple[Positive, ...],
    AsTuple,
    Field(min_length=1),
    Distinct,
    AfterValidator(lambda factors: tuple(sorted(factors))),
]


class ReferenceConfig(Frozen):
    """The search for the unpruned network's learning rate and length, made once in every run.

    What is found becomes the recipe of the whole run: of all candidates, baselines and finalists.

    Attributes:
        tune: Whether there is such a search; false takes training.learning_rate and
            proxy.full_epochs as they are.
        learning_rates: Multiples of training.learning_rate that are tried by short fine-tunings,
            beside those of space.joint.learning_rate.
        epochs: Multiples of proxy.full_epochs that are tried by full fine-tunings at the best rate;
            a longer one is taken where it gains half a point. One value alone isn't tried.
        seeds: With which the best two rates, and each length, are tried.
    """

    tune: bool = True
    learning_rates: Factors = (0.25, 0.5, 1.0, 2.0, 4.0)
    epochs: Factors = (1.0, 2.0)
    seeds: Count = 2
