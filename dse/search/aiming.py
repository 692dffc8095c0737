"""Turns draws into candidates: aims each at a target peak, and relaxes it.

See `dse.sampling.aim` and `dse.sampling.relax`; a study may switch either off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from dse.candidate import Candidate
from dse.config import SearchConfig
from dse.methods.workbench import step_numbers
from dse.sampling.aim import scale, target
from dse.sampling.propose import Proposer
from dse.sampling.relax import relax
from dse.sampling.search_space import SearchSpace
from dse.search.costs import Costs


@dataclass(frozen=True)
class Aiming:
    """Aims and relaxes draws, as far as the study enables it.

    Attributes:
        space: the search space.
        costs: predicts the peaks.
        search: budgets and switches of the study.
        seed: the study's seed.
    """

    space: SearchSpace
    costs: Costs
    search: SearchConfig
    seed: int

    @cached_property
    def smallest_bytes(self) -> int:
        """Peak of the smallest network of the space under the leanest recipe."""
        smallest = [ladder[0] for ladder in self.space.ladders]
        return min(
            int(self.costs.peaks(smallest, recipe=recipe)) for recipe in self.space.lean_recipes
        )

    @cached_property
    def largest_bytes(self) -> int:
        """The largest budget, or the widest network's peak under any recipe if that is less."""
        budget = max(self.search.budget_bytes)
        widest = [ladder[-1] for ladder in self.space.ladders]
        largest = int(self.costs.peaks(widest))
        for recipe in self.space.rich_recipes:
            if largest >= budget:  # usual, so that no other model has to be compiled
                break
            largest = max(largest, int(self.costs.peaks(widest, recipe=recipe)))
        return min(budget, largest)

    @cached_property
    def lowest_bytes(self) -> int:
        """Lower end of the range that targets are spread over.

        This is the peak of the smallest network under the study's own recipe, or the smallest
        budget that can be met if that is less. Leaner recipes reach far below the budgets; there
        only the very smallest peak is used as a target.
        """
        smallest = [ladder[0] for ladder in self.space.ladders]
        possible = [one for one in self.search.budget_bytes if one >= self.smallest_bytes]
        lowest = min([int(self.costs.peaks(smallest)), *possible])
        return lowest if lowest < self.largest_bytes else self.smallest_bytes

    def target(self, draw: int) -> int | None:
        """Return the target of a draw in bytes; None if the study doesn't aim.

        Args:
            draw: number of draws before this one.
        """
        if not self.search.aim:
            return None
        return target(
            draw,
            smallest_bytes=self.smallest_bytes,
            lowest_bytes=self.lowest_bytes,
            largest_bytes=self.largest_bytes,
            budgets=self.search.budget_bytes,
            seed=self.seed,
        )

    def proposer(self, chance: float) -> Proposer:
        """Build the proposer of the default sampler.

        Args:
            chance: accuracy of guessing, from 0 to 1.
        """
        widest = [ladder[-1] for ladder in self.space.ladders]
        whole = np.array([choice.channels for choice in self.space.choices])
        return Proposer(
            ladders=self.space.ladders,
            peaks=tuple(partial(self.costs.peaks, recipe=recipe) for recipe in self.space.recipes),
            recipe_indices=self.space.recipe_indices,
            features=self.space.features,
            steps=step_numbers(self.space.recipes),
            limits=self.space.limits,
            held_bytes=self.costs.held_bytes(widest),
            smallest_bytes=self.smallest_bytes,
            largest_bytes=self.largest_bytes,
            chance=chance,
            # Under a richer recipe than the study's, a network may exceed the unpruned peak.
            reference_bytes=max(int(self.costs.peaks(whole)), self.largest_bytes),
            widen=self.search.relax,
        )

    def candidate(self, drawn: Mapping[str, Any], *, target_bytes: int | None) -> Candidate:
        """Return the candidate that is evaluated for a draw.

        Args:
            drawn: parameter values by name.
            target_bytes: target of the draw; None to use the ratios as drawn.
        """
        candidate = self.space.candidate(drawn)
        ladders = self.space.ladders
        peaks = partial(self.costs.peaks, recipe=candidate)
        kept = candidate.kept(self.space.choices)
        if target_bytes is not None:
            shares = self.space.shares(drawn)
            kept = scale(shares, ladders=ladders, peaks=peaks, target_bytes=target_bytes)
        if self.search.relax:
            kept = relax(kept, ladders=ladders, peaks=peaks, limit_bytes=target_bytes)
        pruned = Candidate.from_kept(self.space.choices, kept)
        return self.space.pruned(candidate, pruned.channels)
