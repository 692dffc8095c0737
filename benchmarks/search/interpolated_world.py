"""A recorded world with its interpolation in place of training."""

from fidelity import read_fidelity
from interpolated import InterpolatedEvaluator, Interpolation
from measures import seed_noise
from recorded import fidelity_table_of, read, table_of
from world import World, load_world


def interpolated_world(name: str) -> tuple[World, InterpolatedEvaluator]:
    """Build a recorded world, and what scores its candidates, with the noise of another seed."""
    world = load_world(name)
    rows = read(table_of(name), world)
    noise = seed_noise(read_fidelity(fidelity_table_of(name)))
    cost = rows[0].images_trained, rows[0].images_forward
    return world, InterpolatedEvaluator(Interpolation(world, rows, noise), *cost)
