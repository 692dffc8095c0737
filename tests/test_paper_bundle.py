"""The committed bundle loads, and its step holds what its recipe says."""

from pathlib import Path

import torch

import dse
from dse.deploy.bundle import RECIPE_FILE
from dse.deploy.recipe import Recipe
from dse.networks.build import example_input

BUNDLE = Path(__file__).parents[1] / "reports" / "paper" / "bundle"


def test_the_papers_bundle_is_the_network_that_its_recipe_describes() -> None:
    recipe = Recipe.read(BUNDLE / RECIPE_FILE)
    network = dse.load(BUNDLE)
    example = example_input(2, recipe.image_size)
    with torch.no_grad():
        assert network(example).shape == (2, recipe.classes)
    model = dse.MemoryModel.compile(
        network,
        example,
        scheme=recipe.scheme,
        optimizer=recipe.optimizer,
        memory_format=recipe.memory_format,
        groups=(),
    )
    assert int(model.peaks([], batch_size=recipe.batch_size)) == recipe.peak_bytes
