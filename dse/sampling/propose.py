"""Propose: choose the next candidate to train by its expected gain of hypervolume.

Memory is free to compute, so each proposal is a direction of kept shares that is scaled to a target
peak. Some directions are random, for exploration, and others are bred from neighbours on the front.
A surrogate fitted to all evaluated candidates predicts the accuracy of every proposal, and the
proposal with the largest expected gain of hypervolume is chosen. If recipes vary too, a random
proposal has a random recipe, and a bred one takes each dimension from one of its two parents. What
varies continuously, such as the learning rate, is blended and mutated like the shares.

A memory model of another step takes seconds to compile. So a draw offers recipes whose models the
evaluated candidates needed, and a few others: one at random, and those that breeding finds most
often.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dse.sampling.aim import scale_all
from dse.sampling.gain import expected_gain
from dse.sampling.history import History, Proposal
from dse.sampling.relax import Counts, Peaks, relax
from dse.sampling.surrogate import Surrogate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PROPOSALS = 256
FRESH_SHARE = 0.25
FIRST = 8
"""Number of evaluated candidates below which draws are random, without a surrogate."""
OUTGROWN = 25
"""Number of evaluated candidates from which earlier runs are no longer learned from.

Up to about 25 evaluations a search that learns from an earlier run is ahead of one that doesn't; at
50 it was behind, since what holds on other data then misleads (benchmarks/search/warm_start.md).
"""
_SCATTERS = (0.05, 0.15, 0.4)  # standard deviations of the noise added to bred log shares
_MUTATED = 0.5  # share of the groups that get this noise
_UNTRIED_AT_FIRST = 2  # steps that are offered to a draw of a single direction
_UNTRIED = 1  # random steps without a memory model that one draw may offer
_FOUND = 1  # likewise, those that breeding finds most often
_OWN_VALUE = 0.5  # share of the random proposals that keep the recipe's own continuous values
_SHIFT = 0.25  # standard deviation of the noise added to bred logarithms of continuous values
_SWITCHED = 0.1  # share of the bred recipes' dimensions that are redrawn at random
_NEAR = 0.3  # width, in log bytes, of the Gaussian that picks parents near the target


@dataclass(frozen=True)
class Proposer:
    """Proposes candidates of one search space.

    Attributes:
        ladders: For each group, the channel counts that it may keep, in ascending order.
        peaks: For each recipe, a function from channels to peak bytes. The study's own recipe is
            first.
        recipe_indices: For each recipe, the index of its value in each dimension, shape (recipes,
            dimensions).
        features: Features of the recipes for the surrogate, shape (recipes, features).
        steps: Numbers that recipes share if they share a memory model, shape (recipes,).
        limits: Lowest and highest logarithm of each continuous value over the recipe's own, shape
            (ranges, 2).
        held_bytes: Bytes that each group holds at the widest network's peak, shape (groups,).
        smallest_bytes: Smallest target.
        largest_bytes: Largest target.
        chance: Accuracy of the reference point.
        reference_bytes: Peak of the reference point.
        widen: Whether proposals are relaxed (see `dse.sampling.relax`).
    """

    ladders: Sequence[Sequence[int]]
    peaks: Sequence[Peaks]
    recipe_indices: Ints
    features: Floats
    steps: Ints
    limits: Floats
    held_bytes: Floats
    smallest_bytes: int
    largest_bytes: int
    chance: float
    reference_bytes: int
    widen: bool = True

    def propose(
        self,
        history: History,
        *,
        target_bytes: int | None,
        rng: np.random.Generator,
        pending: History | None = None,
        earlier: History | None = None,
    ) -> Proposal:
        """Return the candidate to train next.

        Args:
            history: The candidates evaluated so far.
            target_bytes: Peak to aim at. If None, targets are drawn at random and the expected gain
                decides among them.
            rng: Random generator.
            pending: Candidates that other workers train; their accuracies are ignored. Each is
                taken to become as accurate as predicted, so that a draw adds to them.
            earlier: Candidates of earlier runs, on this run's scale of accuracy. They are learned
                from and bred from until this run has `OUTGROWN` of its own, and are not part of
                the front.
        """
        count = PROPOSALS
        if earlier is not None and len(history) >= OUTGROWN:
            earlier = None
        learned = history if earlier is None else history.joined(earlier)
        others = history[np.zeros(0, dtype=np.int64)] if pending is None else pending
        near = learned.near(target_bytes)
        if target_bytes is None:
            low, high = np.log([self.smallest_bytes, self.largest_bytes])
            aims = np.exp(rng.uniform(low, high, count)).astype(np.int64)
        else:
            aims = np.full(count, target_bytes, dtype=np.int64)
        if len(learned) < FIRST:
            aims = aims[:1]
        tried = near.recipes if earlier is None else history.near(target_bytes).recipes
        shares, recipes, shifts = self._directions(near, aims, rng, tried=tried)
        kept, needed = self._scaled(shares, recipes, aims)
        order = np.arange(len(kept))
        if len(learned) >= FIRST:
            surrogate = Surrogate.fit(
                self._seen(near.kept, near.recipes, near.shifts), near.accuracies
            )
            known = history
            if len(others):
                surrogate, known = self._believing(surrogate, history, others)
            means, deviations = surrogate.predict(self._seen(kept, recipes, shifts))
            gains = self._gains(means, deviations, known, needed)
            gains[needed > self.largest_bytes] = -np.inf  # even the smallest network is too large
            order = np.argsort(-gains, kind="stable")
        # Take the best proposal that is new. Relaxing may turn different proposals into one.
        proposal = Proposal((), 0, ())
        for index in order:
            chosen = tuple(int(channels) for channels in kept[index])
            recipe = int(recipes[index])
            if self.widen:
                chosen = relax(
                    chosen,
                    ladders=self.ladders,
                    peaks=self.peaks[recipe],
                    limit_bytes=int(aims[index]),
                )
            proposal = Proposal(chosen, recipe, tuple(shifts[index].tolist()))
            if not history.has(proposal) and not others.has(proposal):
                break
        return proposal

    def _scaled(self, shares: Floats, recipes: Ints, aims: Ints) -> tuple[Counts, Ints]:
        """Scale each direction to its target under its recipe. Return channels and peak bytes."""
        kept = np.empty(shares.shape, dtype=np.int64)
        needed = np.empty(len(shares), dtype=np.int64)
        for recipe in np.unique(recipes):
            own = recipes == recipe
            peaks = self.peaks[recipe]
            kept[own] = scale_all(
                shares[own], ladders=self.ladders, peaks=peaks, targets_bytes=aims[own]
            )
            needed[own] = peaks(kept[own])
        return kept, needed

    def _believing(
        self, surrogate: Surrogate, history: History, pending: History
    ) -> tuple[Surrogate, History]:
        """Return both as if the pending candidates had become as accurate as predicted."""
        inputs = self._seen(pending.kept, pending.recipes, pending.shifts)
        means, _ = surrogate.predict(inputs)
        believed = history.joined(replace(pending, accuracies=means))
        return surrogate.believing(inputs, means), believed

    def _gains(self, means: Floats, deviations: Floats, history: History, needed: Ints) -> Floats:
        return expected_gain(
            means,
            deviations,
            needed.astype(np.float64),
            accuracies=history.accuracies,
            known_peaks=history.peaks.astype(np.float64),
            chance=self.chance,
            largest=float(self.reference_bytes),
        )

    def _seen(self, kept: Counts, recipes: Ints, shifts: Floats) -> Floats:
        """Return the surrogate's inputs: log kept shares, recipe features and shifts."""
        tops = np.array([ladder[-1] for ladder in self.ladders])
        return np.column_stack([np.log(kept / tops), self.features[recipes], shifts])

    def _directions(
        self, history: History, aims: Ints, rng: np.random.Generator, *, tried: Ints
    ) -> tuple[Floats, Ints, Floats]:
        """Return a direction of kept shares, a recipe number and shifts for each target.

        Args:
            history: The candidates to breed from.
            aims: Targets in bytes, shape (n,).
            rng: Random generator.
            tried: Recipes whose memory models this run needed.
        """
        count, groups, every = len(aims), len(self.ladders), len(self.recipe_indices)
        fresh = count if len(history) < FIRST else int(count * FRESH_SHARE)
        shares = self._fresh(fresh, groups, rng)
        shifts = self._fresh_shifts(fresh, rng)
        recipes, steps = np.zeros(fresh, dtype=np.int64), self.steps
        if every > 1:
            untried = _UNTRIED_AT_FIRST if fresh == count else _UNTRIED
            known = np.append(self.steps[tried], self.steps[0])
            steps = np.union1d(known, self.steps[rng.integers(0, every, untried)])
            recipes = rng.choice(np.flatnonzero(np.isin(self.steps, steps)), fresh)
        if fresh == count:
            return shares, recipes, shifts
        (first, second), bred = self._bred(history, aims[fresh:], rng)
        moved = self._bred_shifts(history.shifts[first], history.shifts[second], rng)
        found = self._inherited(history.recipes[first], history.recipes[second], rng)
        new, times = np.unique(self.steps[found], return_counts=True)
        other = ~np.isin(new, steps)
        often = np.argsort(-times[other], kind="stable")[:_FOUND]
        steps = np.union1d(steps, new[other][often])
        found = np.where(np.isin(self.steps[found], steps), found, history.recipes[first])
        return (
            np.concatenate([shares, bred]),
            np.concatenate([recipes, found]),
            np.concatenate([shifts, moved]),
        )

    def _fresh_shifts(self, count: int, rng: np.random.Generator) -> Floats:
        """Return random shifts, many of which keep the recipe's own value."""
        low, high = self.limits.T
        drawn = rng.uniform(low, high, (count, len(self.limits)))
        return np.where(rng.uniform(size=drawn.shape) < _OWN_VALUE, 0.0, drawn)

    def _bred_shifts(self, first: Floats, second: Floats, rng: np.random.Generator) -> Floats:
        """Blend the shifts of two parents each, and mutate some."""
        blend = rng.uniform(size=first.shape)
        mutated = rng.uniform(size=first.shape) < _MUTATED
        noise = _SHIFT * rng.normal(size=first.shape) * mutated
        low, high = self.limits.T
        return np.clip(blend * first + (1 - blend) * second + noise, low, high)

    def _inherited(self, first: Ints, second: Ints, rng: np.random.Generator) -> Ints:
        """Breed recipes dimension by dimension. Where there is none, keep the first parent's."""
        if len(self.recipe_indices) == 1:
            return first
        sizes = self.recipe_indices.max(axis=0) + 1
        shape = (len(first), len(sizes))
        heads = rng.integers(0, 2, shape).astype(np.bool_)
        mine = np.where(heads, self.recipe_indices[first], self.recipe_indices[second])
        switched = rng.uniform(size=shape) < _SWITCHED
        mine = np.where(switched, rng.integers(0, sizes, shape), mine)
        places = np.ravel_multi_index(tuple(mine.T), tuple(sizes))
        known = np.ravel_multi_index(tuple(self.recipe_indices.T), tuple(sizes))  # ascending
        near = np.minimum(np.searchsorted(known, places), len(known) - 1)
        return np.where(known[near] == places, near, first)

    def _fresh(self, count: int, groups: int, rng: np.random.Generator) -> Floats:
        """Return random directions in which groups that hold more bytes keep less."""
        held = np.maximum(self.held_bytes, 1.0)
        # A power of 0 prunes all groups equally, 1 in inverse proportion to their bytes.
        powers = rng.uniform(0.0, 1.0, (count, 1))
        scatter = rng.normal(0.0, 1.0, (count, groups)) * rng.uniform(0.0, 0.5, (count, 1))
        shares: Floats = np.exp(scatter - powers * np.log(held / held.mean()))
        return shares

    def _bred(
        self, history: History, aims: Ints, rng: np.random.Generator
    ) -> tuple[tuple[Ints, Ints], Floats]:
        """Blend two parents near each target, which are accurate for their size, and mutate."""
        tops = np.array([ladder[-1] for ladder in self.ladders])
        logs = np.log(history.kept / tops)
        merit = history.merit()
        # Sample parents by weight: a Gaussian in the distance from the target, times the merit.
        away = np.abs(np.log(history.peaks)[None] - np.log(aims)[:, None])
        weights = np.exp(-((away / _NEAR) ** 2) / 2) * merit[None] + 1e-12
        weights /= weights.sum(axis=1, keepdims=True)
        cumulated = np.cumsum(weights, axis=1)
        first, second = (
            np.minimum((cumulated < rng.uniform(size=(len(aims), 1))).sum(axis=1), len(logs) - 1)
            for _ in range(2)
        )
        blend = rng.uniform(0.0, 1.0, (len(aims), 1))
        children = blend * logs[first] + (1 - blend) * logs[second]
        scatter = rng.choice(_SCATTERS, (len(aims), 1))
        mutated = rng.uniform(size=children.shape) < _MUTATED
        children = children + mutated * scatter * rng.normal(size=children.shape)
        shares: Floats = np.exp(children)
        return (first, second), shares
