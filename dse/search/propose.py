"""Propose: the next candidate, bred from the front and chosen by what it is expected to add.

Memory costs nothing to know, so a proposal is a direction of kept shares scaled to a target. Many
are made: fresh ones for breadth, and ones bred from neighbours on the front. A surrogate trained on
all that was evaluated predicts their accuracies, and the one whose expected gain of hypervolume is
largest is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.search.aim import scale_all
from dse.search.gain import expected_gain
from dse.search.relax import Counts, Peaks, relax
from dse.search.surrogate import Surrogate

Floats = NDArray[np.float64]

PROPOSALS = 256
FRESH_SHARE = 0.25
FIRST = 8
"""So many candidates are drawn fresh before a surrogate is asked."""

_SCATTERS = (0.05, 0.15, 0.4)  # of bred log shares
_MUTATED = 0.5  # share of the groups that scatter
_NEAR = 0.3  # how far apart, in log bytes, parents of one proposal usually lie


@dataclass(frozen=True)
class History:
    """What was evaluated so far.

    Attributes:
        kept: (n, groups) channels.
        peaks: (n,) bytes.
        accuracies: (n,) shares.
    """

    kept: Counts
    peaks: NDArray[np.int64]
    accuracies: Floats

    def __len__(self) -> int:
        return len(self.kept)


@dataclass(frozen=True)
class Proposer:
    """Proposes candidates of one space.

    Attributes:
        ladders: the counts that each group may keep, rising.
        peaks: of candidates.
        held_bytes: (groups,) what each group holds at the widest network's peak.
        smallest_bytes: least that is aimed at.
        largest_bytes: most that is aimed at.
        chance: accuracy of the reference point.
        reference_bytes: peak of the reference point.
        widen: whether proposals are relaxed.
    """

    ladders: Sequence[Sequence[int]]
    peaks: Peaks
    held_bytes: Floats
    smallest_bytes: int
    largest_bytes: int
    chance: float
    reference_bytes: int
    widen: bool = True

    def propose(
        self, history: History, *, target_bytes: int | None, rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Return the channels of the candidate to train next.

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
        shares = self._shares(history, aims, rng)
        kept = scale_all(shares, ladders=self.ladders, peaks=self.peaks, targets_bytes=aims)
        order = np.arange(len(kept))
        if len(history) >= FIRST:
            order = np.argsort(-self._gains(history, kept), kind="stable")
        known = {tuple(row) for row in history.kept.tolist()}
        chosen: tuple[int, ...] = ()
        for index in order:
            chosen = tuple(int(channels) for channels in kept[index])
            if self.widen:
                chosen = relax(
                    chosen, ladders=self.ladders, peaks=self.peaks, limit_bytes=int(aims[index])
                )
            if chosen not in known:
                break
        return chosen

    def _gains(self, history: History, kept: Counts) -> Floats:
        tops = np.array([ladder[-1] for ladder in self.ladders])
        surrogate = Surrogate.fit(np.log(history.kept / tops), history.accuracies)
        means, deviations = surrogate.predict(np.log(kept / tops))
        return expected_gain(
            means,
            deviations,
            self.peaks(kept).astype(np.float64),
            accuracies=history.accuracies,
            known_peaks=history.peaks.astype(np.float64),
            chance=self.chance,
            largest=float(self.reference_bytes),
        )

    def _shares(
        self, history: History, aims: NDArray[np.int64], rng: np.random.Generator
    ) -> Floats:
        """Directions, one for each target."""
        count, groups = len(aims), len(self.ladders)
        fresh = count if len(history) < FIRST else int(count * FRESH_SHARE)
        first = self._fresh(fresh, groups, rng)
        if fresh == count:
            return first
        return np.concatenate([first, self._bred(history, aims[fresh:], rng)])

    def _fresh(self, count: int, groups: int, rng: np.random.Generator) -> Floats:
        """The more bytes a group holds, the less it keeps of them, by a random power."""
        held = np.maximum(self.held_bytes, 1.0)
        powers = rng.uniform(0.0, 1.0, (count, 1))
        scatter = rng.normal(0.0, 1.0, (count, groups)) * rng.uniform(0.0, 0.5, (count, 1))
        shares: Floats = np.exp(scatter - powers * np.log(held / held.mean()))
        return shares

    def _bred(self, history: History, aims: NDArray[np.int64], rng: np.random.Generator) -> Floats:
        """Between two parents near the target, both among the best of their size, and scattered."""
        tops = np.array([ladder[-1] for ladder in self.ladders])
        logs = np.log(history.kept / tops)
        merit = _merit(history)
        away = np.abs(np.log(history.peaks)[None] - np.log(aims)[:, None])
        weights = np.exp(-((away / _NEAR) ** 2) / 2) * merit[None] + 1e-12
        weights /= weights.sum(axis=1, keepdims=True)
        cumulated = np.cumsum(weights, axis=1)
        picks = [
            np.minimum((cumulated < rng.uniform(size=(len(aims), 1))).sum(axis=1), len(logs) - 1)
            for _ in range(2)
        ]
        blend = rng.uniform(0.0, 1.0, (len(aims), 1))
        children = blend * logs[picks[0]] + (1 - blend) * logs[picks[1]]
        scatter = rng.choice(_SCATTERS, (len(aims), 1))
        mutated = rng.uniform(size=children.shape) < _MUTATED
        children = children + mutated * scatter * rng.normal(size=children.shape)
        shares: Floats = np.exp(children)
        return shares


def _merit(history: History) -> Floats:
    """Weight of each candidate as a parent: falls with what the best of its size is ahead."""
    order = np.argsort(history.peaks, kind="stable")
    best = np.empty(len(history))
    best[order] = np.maximum.accumulate(history.accuracies[order])
    behind = best - history.accuracies
    merit: Floats = np.exp(-behind / 0.02)
    return merit
