"""From a draw to the candidate that is evaluated: aimed at a target, and relaxed."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dse.candidate import Candidate
from dse.config import SearchConfig
from dse.search.aim import scale, target
from dse.search.costs import Costs
from dse.search.propose import Proposer
from dse.search.relax import relax
from dse.search.space import SearchSpace


@dataclass(frozen=True)
class Shape:
    """Aims and relaxes, as far as the study asks for it.

    Attributes:
        space: what may vary.
        costs: tells the peaks.
        search: gives budgets and switches.
        seed: the study's.
    """

    space: SearchSpace
    costs: Costs
    search: SearchConfig
    seed: int

    @cached_property
    def smallest_bytes(self) -> int:
        """Peak of the smallest network of the space."""
        return self._peak(tuple(ladder[0] for ladder in self.space.ladders))

    @cached_property
    def largest_bytes(self) -> int:
        """The largest budget, or the peak of the widest network where that is less."""
        widest = tuple(ladder[-1] for ladder in self.space.ladders)
        return min(max(self.search.budgets), self._peak(widest))

    def target(self, draw: int) -> int | None:
        """Return the bytes that a draw aims at; None if the study doesn't aim.

        Args:
            draw: how many draws came before.
        """
        if not self.search.aim:
            return None
        return target(
            draw,
            smallest_bytes=self.smallest_bytes,
            largest_bytes=self.largest_bytes,
            budgets=self.search.budgets,
            seed=self.seed,
        )

    def proposer(self, chance: float) -> Proposer:
        """Make what the default sampler proposes with.

        Args:
            chance: accuracy of the reference point.
        """
        widest = [ladder[-1] for ladder in self.space.ladders]
        whole = [choice.channels for choice in self.space.choices]
        return Proposer(
            ladders=self.space.ladders,
            peaks=self.peaks,
            held_bytes=self.costs.held_bytes(widest),
            smallest_bytes=self.smallest_bytes,
            largest_bytes=self.largest_bytes,
            chance=chance,
            reference_bytes=self._peak(tuple(whole)),
            widen=self.search.relax,
        )

    def candidate(self, drawn: Mapping[str, float], *, target_bytes: int | None) -> Candidate:
        """Return what is evaluated for a draw.

        Args:
            drawn: parameter name to ratio.
            target_bytes: what it aims at; None to take the ratios as they are.
        """
        candidate = self.space.candidate(drawn)
        if target_bytes is None and not self.search.relax:
            return candidate
        return Candidate.from_kept(
            self.space.choices,
            self.kept(
                self.space.shares(drawn),
                rounded=candidate.kept(self.space.choices),
                target_bytes=target_bytes,
            ),
        )

    def kept(
        self,
        shares: tuple[float, ...],
        *,
        rounded: tuple[int, ...],
        target_bytes: int | None,
    ) -> tuple[int, ...]:
        """Return the channels that each group keeps, aimed and relaxed.

        Args:
            shares: (groups,) kept shares before rounding.
            rounded: (groups,) channels after rounding.
            target_bytes: what to aim at; None to start from `rounded`.
        """
        ladders = self.space.ladders
        kept = rounded
        if target_bytes is not None:
            kept = scale(shares, ladders=ladders, peaks=self.peaks, target_bytes=target_bytes)
        if self.search.relax:
            kept = relax(kept, ladders=ladders, peaks=self.peaks, limit_bytes=target_bytes)
        return kept

    def peaks(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Predicted peaks of one training step, (n, groups) channels to (n,)."""
        return self.costs.peaks(kept)

    def _peak(self, kept: tuple[int, ...]) -> int:
        return int(self.peaks(np.array([kept], dtype=np.int64))[0])
