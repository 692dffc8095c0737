"""Propose: the next candidate, bred from the front and chosen by what it is expected to add.

Memory costs nothing to know, so a proposal is a direction of kept shares scaled to a target. Many
are made: fresh ones for breadth, and ones bred from neighbours on the front. A surrogate trained on
all that was evaluated predicts their accuracies, and the one whose expected gain of hypervolume is
largest is trained. Where recipes vary too, a fresh proposal has any of them, and a bred one takes
each dimension from one of its parents.
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
"""So many candidates are drawn fresh before a surrogate is asked."""

_SCATTERS = (0.05, 0.15, 0.4)  # of bred log shares
_MUTATED = 0.5  # share of the groups that scatter
_UNTRIED = 2  # recipes that a draw may be the first to have; each needs a memory model
_SWITCHED = 0.1  # share of the bred recipes' dimensions that take any value
_NEAR = 0.3  # how far apart, in log bytes, parents of one proposal usually lie


@dataclass(frozen=True)
class History:
    """What was evaluated so far.

    Attributes:
        kept: (n, groups) channels.
        peaks: (n,) bytes.
        accuracies: (n,) shares.
        recipes: (n,) numbers of their recipes.
    """

    kept: Counts
    peaks: Ints
    accuracies: Floats
    recipes: Ints

    def __len__(self) -> int:
        return len(self.kept)


@dataclass(frozen=True)
class Proposer:
    """Proposes candidates of one space.

    Attributes:
        ladders: the counts that each group may keep, rising.
        peaks: of candidates, one function for each recipe, the study's own first.
        digits: (recipes, dimensions) which value of each dimension a recipe has.
        features: (recipes, features) of recipes, for the surrogate.
        held_bytes: (groups,) what each group holds at the widest network's peak.
        smallest_bytes: least that is aimed at.
        largest_bytes: most that is aimed at.
        chance: accuracy of the reference point.
        reference_bytes: peak of the reference point.
        widen: whether proposals are relaxed.
    """

    ladders: Sequence[Sequence[int]]
    peaks: Sequence[Peaks]
    digits: Ints
    features: Floats
    held_bytes: Floats
    smallest_bytes: int
    largest_bytes: int
    chance: float
    reference_bytes: int
    widen: bool = True

    def propose(
        self, history: History, *, target_bytes: int | None, rng: np.random.Generator
    ) -> tuple[tuple[int, ...], int]:
        """Return the channels of the candidate to train next, and its recipe's number.

        Args:
            history: what was evaluated.
            target_bytes: what to aim at; None to choose a target by what it promises.
            rng: source of chance.
        """
        count = PROPOSALS
        if target_bytes is None:
            low, high = np.log([self.smallest_bytes, self.largest_bytes])
            aims = np.exp(rng.uniform(low, high, count)).astype(np.int64)
        else:
            aims = np.full(count, target_bytes, dtype=np.int64)
        if len(history) < FIRST:
            aims = aims[:1]
        shares, recipes = self._directions(history, aims, rng)
        kept, needed = self._scaled(shares, recipes, aims)
        order = np.arange(len(kept))
        if len(history) >= FIRST:
            gains = self._gains(history, kept, needed, recipes)
            gains[needed > self.largest_bytes] = -np.inf  # its recipe needs more at its smallest
            order = np.argsort(-gains, kind="stable")
        rows = np.column_stack([history.recipes, history.kept])
        known = {tuple(row) for row in rows.tolist()}
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
            if (recipe, *chosen) not in known:
                break
        return chosen, recipe

    def _scaled(self, shares: Floats, recipes: Ints, aims: Ints) -> tuple[Counts, Ints]:
        """Channels of each direction, scaled to its aim under its recipe, and their peaks."""
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

    def _gains(self, history: History, kept: Counts, needed: Ints, recipes: Ints) -> Floats:
        surrogate = Surrogate.fit(self._seen(history.kept, history.recipes), history.accuracies)
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
        """What the surrogate sees of candidates: log kept shares, and their recipes."""
        tops = np.array([ladder[-1] for ladder in self.ladders])
        return np.column_stack([np.log(kept / tops), self.features[recipes]])

    def _directions(
        self, history: History, aims: Ints, rng: np.random.Generator
    ) -> tuple[Floats, Ints]:
        """A direction of kept shares and a recipe, for each target."""
        count, groups = len(aims), len(self.ladders)
        fresh = count if len(history) < FIRST else int(count * FRESH_SHARE)
        shares = self._fresh(fresh, groups, rng)
        recipes = np.zeros(count, dtype=np.int64)
        if len(self.digits) > 1:
            offered = np.union1d(
                np.append(history.recipes, 0), rng.integers(0, len(self.digits), _UNTRIED)
            )
            recipes[:fresh] = rng.choice(offered, fresh)
        if fresh == count:
            return shares, recipes
        picks, bred = self._bred(history, aims[fresh:], rng)
        if len(self.digits) > 1:
            first, second = (history.recipes[one] for one in picks)
            recipes[fresh:] = self._inherited(first, second, offered, rng)
        return np.concatenate([shares, bred]), recipes

    def _inherited(
        self, first: Ints, second: Ints, offered: Ints, rng: np.random.Generator
    ) -> Ints:
        """Recipes bred of two parents', dimension by dimension; the first's if none is offered."""
        sizes = self.digits.max(axis=0) + 1
        shape = (len(first), len(sizes))
        heads = rng.integers(0, 2, shape).astype(np.bool_)
        mine = np.where(heads, self.digits[first], self.digits[second])
        switched = rng.uniform(size=shape) < _SWITCHED
        mine = np.where(switched, rng.integers(0, sizes, shape), mine)
        found = np.ravel_multi_index(tuple(mine.T), tuple(sizes))
        return np.where(np.isin(found, offered), found, first)

    def _fresh(self, count: int, groups: int, rng: np.random.Generator) -> Floats:
        """The more bytes a group holds, the less it keeps of them, by a random power."""
        held = np.maximum(self.held_bytes, 1.0)
        powers = rng.uniform(0.0, 1.0, (count, 1))
        scatter = rng.normal(0.0, 1.0, (count, groups)) * rng.uniform(0.0, 0.5, (count, 1))
        shares: Floats = np.exp(scatter - powers * np.log(held / held.mean()))
        return shares

    def _bred(
        self, history: History, aims: Ints, rng: np.random.Generator
    ) -> tuple[tuple[Ints, Ints], Floats]:
        """Between two parents near the target, both among the best of their size, and scattered."""
        tops = np.array([ladder[-1] for ladder in self.ladders])
        logs = np.log(history.kept / tops)
        merit = _merit(history)
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


def _merit(history: History) -> Floats:
    """Weight of each candidate as a parent: falls with what the best of its size is ahead."""
    order = np.argsort(history.peaks, kind="stable")
    best = np.empty(len(history))
    best[order] = np.maximum.accumulate(history.accuracies[order])
    behind = best - history.accuracies
    merit: Floats = np.exp(-behind / 0.02)
    return merit
