"""Candidates that need no search: uniform ratios, random ratios, the greedy rule's networks."""

from collections.abc import Sequence

import numpy as np

from dse.candidate import Candidate
from dse.errors import InfeasibleError
from dse.memory.model import MemoryModel
from dse.methods.greedy import Trajectory
from dse.sampling.search_space import RATIO, SearchSpace


def uniform_label(ratio: float) -> str:
    """Return the label of uniform pruning by a ratio in plots and tables."""
    return f"uniform {ratio:.2f}" if round(ratio, 2) == ratio else f"uniform {ratio:g}"


def random_candidates(space: SearchSpace, *, draws: int, seed: int) -> tuple[Candidate, ...]:
    """Draw candidates with a uniformly random ratio for each free group."""
    generator = np.random.default_rng(seed)
    return tuple(
        space.candidate(
            {
                RATIO + choice.name: float(generator.uniform(choice.low, choice.high))
                for choice in space.free
            }
        )
        for _ in range(draws)
    )


def greedy_within(
    trajectory: Trajectory, model: MemoryModel, budgets: Sequence[int]
) -> dict[int, Candidate]:
    """Return the greedy rule's first network within each budget that it reaches by pruning.

    Args:
        trajectory: the rule's trajectory on this model.
        model: memory model, which names the groups.
        budgets: budgets in bytes.

    Returns:
        Candidates by budget; budgets that need no pruning, or can't be reached, are left out.
    """
    found = {}
    for budget in budgets:
        try:
            point = trajectory.first_within(budget)
        except InfeasibleError:
            continue  # the rule can't reach this budget
        if point > 0:
            kept = trajectory.channels[point].tolist()
            found[budget] = Candidate.from_kept(model.groups, kept)
    return found
