"""A bundle's recipe, made up."""

from typing import Any

from dse.deploy.recipe import Recipe
from dse.deploy.recipe_parts import Preprocessing


def make_recipe(**changed: Any) -> Recipe:
    """Make the recipe of an unpruned network of three classes; its network must be given."""
    fields: dict[str, Any] = {
        "options": {},
        "weights": "none",
        "classes": 3,
        "channels": {},
        "trial": None,
        "scheme": "full",
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "nesterov": False,
        "epochs": 1.0,
        "batch_size": 4,
        "image_size": 32,
        "memory_format": "contiguous",
        "preprocessing": Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
        "labels": ("a", "b", "c"),
        "peak_bytes": 1000,
        "convention": "tensors",
        "accuracy": 0.0,
        "seed": 1,
        "versions": {},
        "digests": {},
    }
    return Recipe(**{**fields, **changed})
