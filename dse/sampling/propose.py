"""Propose: choose the next candidate to train by its expected gain of hypervolume.

Memory is free to compute, so each proposal is a direction of kept shares that is scaled to a target
peak. Some directions are random, for exploration, and others are bred from neighbours on the front.
A surrogate fitted to all evaluated candidates predicts the accuracy of every proposal, and the
proposal with the largest expected gain of hypervolume is chosen. If recipes vary too, a random
proposal has a random recipe, and a bred one takes each dimension from one of its two parents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.sampling.aim import scale_all
from dse.sampling.gain import expected_gain
from dse.sampling.relax import Counts, Peaks, relax
from dse.sampling.surrogate import Surrogate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PROPOSALS = 256
FRESH_SHARE = 0.25
FIRST = 8
"""Number of evaluated candidates below which draws are random, without a surrogate."""
MOST_LEARNED = 500
"""Number of evaluated candidates, those nearest to the target, that one draw learns from."""

_SCATTERS = (0.05, 0.15, 0.4)  # standard deviations of the noise added to bred log shares
_MUTATED = 0.5  # share of the groups that get this noise
_UNTRIED = 2  # untried recipes that one draw may offer, since each needs its own memory model
_SWITCHED = 0.1  # share of the bred recipes' dimensions that are redrawn at random
_NEAR = 0.3  # width, in log bytes, of the Gaussian that picks parents near the target


@dataclass(frozen=True)
class History:
    """The candidates evaluated so far.

    Attributes:
        kept: Channels kept, shape (n, groups).
        peaks: Peak bytes, shape (n,).
        accuracies: Accuracies from 0 to 1, shape (n,).
        recipes: Numbers of their recipes, shape (n,).
    """

    kept: Counts
    peaks: Ints
    accuracies: Floats
    recipes: Ints

    def __len__(self) -> int:
        return len(self.kept)

    def near(self, target_bytes: int | None) -> "History":
        """Return the candidates whose peaks are the nearest to a target, as a ratio.

        Args:
            target_bytes: the target; None for a choice spread over all peaks.
        """
        if len(self) <= MOST_LEARNED:
            return self
        if target_bytes is None:
            places = np.linspace(0, len(self) - 1, MOST_LEARNED).astype(np.int64)
            rows = np.sort(np.argsort(self.peaks, kind="stable")[places])
        else:
            away = np.abs(np.log(self.peaks) - np.log(target_bytes))
            rows = np.sort(np.argpartition(away, MOST_LEARNED)[:MOST_LEARNED])
        return History(self.kept[rows], self.peaks[rows], self.accuracies[rows], self.recipes[rows])

    def has(self, kept: Sequence[int], recipe: int) -> bool:
        """Whether a candidate is among them."""
        same = (self.recipes == recipe) & (self.kept == np.asarray(kept)).all(axis=1)
        return bool(same.any())


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
    ) -> tuple[tuple[int, ...], int]:
        """Return the channels of the candidate to train next, and the number of its recipe.

        Args:
            history: The candidates evaluated so far.
            target_bytes: Peak to aim at. If None, targets are drawn at random and the expected gain
                decides among them.
            rng: Random generator.
            pending: Candidates that other workers train; their accuracies are ignored. Each is
                taken to become as accurate as predicted, so that a draw adds to them.
        """
        count = PROPOSALS
        others = _none_of(history) if pending is None else pending
        near = history.near(target_bytes)
        if target_bytes is None:
            low, high = np.log([self.smallest_bytes, self.largest_bytes])
            aims = np.exp(rng.uniform(low, high, count)).astype(np.int64)
        else:
            aims = np.full(count, target_bytes, dtype=np.int64)
        if len(history) < FIRST:
            aims = aims[:1]
        shares, recipes = self._directions(near, aims, rng)
        kept, needed = self._scaled(shares, recipes, aims)
        order = np.arange(len(kept))
        if len(history) >= FIRST:
            surrogate = Surrogate.fit(self._seen(near.kept, near.recipes), near.accuracies)
            known = history
            if len(others):
                surrogate, known = self._believing(surrogate, history, others)
            gains = self._gains(surrogate, known, kept, needed, recipes)
            gains[needed > self.largest_bytes] = -np.inf  # even the smallest network is too large
            order = np.argsort(-gains, kind="stable")
        # Take the best proposal that is new. Relaxing may turn different proposals into one.
        chosen: tuple[int, ...] = ()
        recipe = 0
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
            if not history.has(chosen, recipe) and not others.has(chosen, recipe):
                break
        return chosen, recipe

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
        inputs = self._seen(pending.kept, pending.recipes)
        means, _ = surrogate.predict(inputs)
        believed = History(
            np.concatenate([history.kept, pending.kept]),
            np.concatenate([history.peaks, pending.peaks]),
            np.concatenate([history.accuracies, means]),
            np.concatenate([history.recipes, pending.recipes]),
        )
        return surrogate.believing(inputs, means), believed

    def _gains(
        self,
        surrogate: Surrogate,
        history: History,
        kept: Counts,
        needed: Ints,
        recipes: Ints,
    ) -> Floats:
        means, deviations = surrogate.predict(self._seen(kept, recipes))
        return expected_gain(
            means,
            deviations,
            needed.astype(np.float64),
            accuracies=history.accuracies,
            known_peaks=history.peaks.astype(np.float64),
            chance=self.chance,
            largest=float(self.reference_bytes),
        )

    def _seen(self, kept: Counts, recipes: Ints) -> Floats:
        """Return the surrogate's inputs: log kept shares and recipe features."""
        tops = np.array([ladder[-1] for ladder in self.ladders])
        return np.column_stack([np.log(kept / tops), self.features[recipes]])

    def _directions(
        self, history: History, aims: Ints, rng: np.random.Generator
    ) -> tuple[Floats, Ints]:
        """Return a direction of kept shares and a recipe number for each target."""
        count, groups = len(aims), len(self.ladders)
        fresh = count if len(history) < FIRST else int(count * FRESH_SHARE)
        shares = self._fresh(fresh, groups, rng)
        recipes = np.zeros(count, dtype=np.int64)
        if len(self.recipe_indices) > 1:
            offered = np.union1d(
                np.append(history.recipes, 0), rng.integers(0, len(self.recipe_indices), _UNTRIED)
            )
            recipes[:fresh] = rng.choice(offered, fresh)
        if fresh == count:
            return shares, recipes
        picks, bred = self._bred(history, aims[fresh:], rng)
        if len(self.recipe_indices) > 1:
            first, second = (history.recipes[one] for one in picks)
            recipes[fresh:] = self._inherited(first, second, offered, rng)
        return np.concatenate([shares, bred]), recipes

    def _inherited(
        self, first: Ints, second: Ints, offered: Ints, rng: np.random.Generator
    ) -> Ints:
        """Breed recipes dimension by dimension. Where none is offered, keep the first parent's."""
        sizes = self.recipe_indices.max(axis=0) + 1
        shape = (len(first), len(sizes))
        heads = rng.integers(0, 2, shape).astype(np.bool_)
        mine = np.where(heads, self.recipe_indices[first], self.recipe_indices[second])
        switched = rng.uniform(size=shape) < _SWITCHED
        mine = np.where(switched, rng.integers(0, sizes, shape), mine)
        found = np.ravel_multi_index(tuple(mine.T), tuple(sizes))
        return np.where(np.isin(found, offered), found, first)

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
        merit = _merit(history)
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


def _none_of(history: History) -> History:
    """Return a history of no candidates, of the same groups."""
    return History(history.kept[:0], history.peaks[:0], history.accuracies[:0], history.recipes[:0])


def _merit(history: History) -> Floats:
    """Weight of each parent: decays with the accuracy gap to the best of equal or less memory."""
    order = np.argsort(history.peaks, kind="stable")
    best = np.empty(len(history))
    best[order] = np.maximum.accumulate(history.accuracies[order])
    behind = best - history.accuracies
    merit: Floats = np.exp(-behind / 0.02)
    return merit
