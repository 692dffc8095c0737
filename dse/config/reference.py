"""How the unpruned network's own recipe is tuned, before anything is compared with it."""

from dse.config.base import Frozen
from dse.config.fields import Count, Factors


class ReferenceConfig(Frozen):
    """The tuning of the unpruned network's learning rate and training length, once in every run.

    The result becomes the recipe of the whole run: of all candidates, baselines and finalists.

    Attributes:
        tune: whether to tune; if False, training.learning_rate and proxy.full_epochs are used.
        learning_rates: multiples of training.learning_rate that are tried by short fine-tunings,
            in addition to space.joint.learning_rate. If the lowest or the highest is the best, up
            to two more are tried beyond it. A single rate is kept as it is.
        epochs: multiples of proxy.full_epochs that are tried by full fine-tunings at the best rate;
            a longer one is chosen if it gains half a point. A single value isn't tried.
        seeds: number of seeds for the best two rates, and for each length.
    """

    tune: bool = True
    learning_rates: Factors = (0.25, 0.5, 1.0, 2.0, 4.0)
    epochs: Factors = (1.0, 2.0)
    seeds: Count = 2
