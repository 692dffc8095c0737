"""Choose what each block does: the least time within a budget, or the least memory at all.

Blocks run one after the other, and back in reverse. While a block runs, in either direction, what
lives is what the blocks before it hold, the gradients of the blocks behind it, and what the block
itself needs at that moment. Of the past only the bytes held matter, so dynamic programming over the
blocks finds the best choices: for every time (in small whole units), the fewest bytes held.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.engines.block_costs import Cost

UNITS = 2000  # of time, in the time of the fastest choices

Ints = NDArray[np.int64]
_NEVER = np.int64(2**62)


@dataclass(frozen=True)
class Block:
    """A block's choices.

    Attributes:
        costs: One per choice.
        entry_bytes: Bytes of the value that it reads.
        gradient_bytes: Bytes of its parameters' gradients, 0 if they live throughout the step.
    """

    costs: tuple[Cost, ...]
    entry_bytes: int
    gradient_bytes: int


@dataclass(frozen=True)
class Step:
    """A training step as a sequence of blocks.

    Attributes:
        blocks: The blocks in order, the loss included.
        resident_bytes: What lives throughout the step.
        optimizer_bytes: The most that lives while the optimizer runs.
    """

    blocks: tuple[Block, ...]
    resident_bytes: int
    optimizer_bytes: int

    def peak_bytes(self, chosen: Sequence[int]) -> int:
        """Return the peak of a step in which every block does as chosen."""
        peak = self.optimizer_bytes
        held, kept = 0, False
        behind = self.gradients_behind()
        for block, choice, later in zip(self.blocks, chosen, behind, strict=True):
            cost = block.costs[choice]
            peak = max(peak, self._needs(cost, held, later, kept=kept))
            held += _added(block, cost, kept=kept)
            kept = cost.holds_output
        return peak

    def held_bytes(self, chosen: Sequence[int]) -> list[int]:
        """Return the bytes that each block holds from its forward to its backward pass."""
        held, kept = [], False
        for block, choice in zip(self.blocks, chosen, strict=True):
            cost = block.costs[choice]
            held.append(_added(block, cost, kept=kept))
            kept = cost.holds_output
        return held

    def seconds(self, chosen: Sequence[int]) -> float:
        """Return the estimated time of a step."""
        return sum(b.costs[choice].seconds for b, choice in zip(self.blocks, chosen, strict=True))

    def gradients_behind(self) -> list[int]:
        """Return for each block the bytes of gradients of all later blocks."""
        total, behind = 0, []
        for block in reversed(self.blocks):
            behind.append(total)
            total += block.gradient_bytes
        return behind[::-1]

    def _needs(self, cost: Cost, held: int, later: int, *, kept: bool) -> int:
        backward = cost.backward_bytes_kept if kept else cost.backward_bytes
        if backward:
            backward += later
        return self.resident_bytes + held + max(cost.forward_bytes, backward)

    def least_bytes(self) -> int:
        """Return the least peak that any choices have."""
        if self.resident_bytes > self.optimizer_bytes:
            raise ValueError("the optimizer's step holds less than what is resident")
        low, high = self.optimizer_bytes - 1, self.optimizer_bytes
        while not self._feasible(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if self._feasible(middle):
                high = middle
            else:
                low = middle
        return high

    def _feasible(self, budget: int) -> bool:
        """Whether any choices fit: only the fewest bytes held matter, input kept or not."""
        states: dict[bool, int] = {False: 0}
        for block, later in zip(self.blocks, self.gradients_behind(), strict=True):
            reached: dict[bool, int] = {}
            for kept, held in states.items():
                for cost in block.costs:
                    if self._needs(cost, held, later, kept=kept) <= budget:
                        now = held + _added(block, cost, kept=kept)
                        flag = cost.holds_output
                        reached[flag] = min(now, reached.get(flag, now))
            states = reached
        return bool(states)

    def fastest(self, budget: int) -> tuple[int, list[int]] | None:
        """Return the least time, in units, and the choices that take it within a budget.

        Returns:
            None if no choices fit.
        """
        if budget < self.optimizer_bytes:
            return None
        units, behind = self._units(), self.gradients_behind()
        size = sum(max(own) for own in units) + 1
        held = {False: np.full(size, _NEVER), True: np.full(size, _NEVER)}
        held[False][0] = 0
        trail: list[dict[bool, Ints]] = []
        for block, later, own in zip(self.blocks, behind, units, strict=True):
            reached = {flag: np.full(size, _NEVER) for flag in (False, True)}
            back = {flag: np.full(size, -1, dtype=np.int64) for flag in (False, True)}
            for kept in (False, True):
                for choice, cost in enumerate(block.costs):
                    room = budget - self._needs(cost, 0, later, kept=kept)
                    if room < 0:
                        continue
                    start = own[choice]
                    source = held[kept][: size - start]
                    now = np.where(source <= room, source + _added(block, cost, kept=kept), _NEVER)
                    target = reached[cost.holds_output][start:]
                    better = now < target
                    target[better] = now[better]
                    back[cost.holds_output][start:][better] = 2 * choice + kept
            held = reached
            trail.append(back)
        ends = [(int(np.argmax(held[f] < _NEVER)), f) for f in held if (held[f] < _NEVER).any()]
        if not ends:
            return None
        time, flag = min(ends)
        return time, self._traced_back(trail, units, time, flag=flag)

    @staticmethod
    def _traced_back(
        trail: Sequence[dict[bool, Ints]], units: Sequence[Sequence[int]], time: int, *, flag: bool
    ) -> list[int]:
        chosen = []
        left = time
        for back, own in zip(reversed(trail), reversed(units), strict=True):
            choice, kept = divmod(int(back[flag][left]), 2)
            chosen.append(choice)
            left -= own[choice]
            flag = bool(kept)
        return chosen[::-1]

    def _units(self) -> list[list[int]]:
        fastest = sum(min(cost.seconds for cost in block.costs) for block in self.blocks)
        unit = fastest / UNITS
        return [[round(cost.seconds / unit) for cost in block.costs] for block in self.blocks]

    def best(self, budget: int) -> list[int] | None:
        """Return the choices of least time within a budget, and among them those of least peak.

        The peak therefore never falls as the budget grows.

        Returns:
            None if no choices fit.
        """
        found = self.fastest(budget)
        if found is None:
            return None
        time, chosen = found
        low, high = self.optimizer_bytes - 1, self.peak_bytes(chosen)
        while high - low > 1:
            middle = (low + high) // 2
            other = self.fastest(middle)
            if other is not None and other[0] == time:
                chosen = other[1]
                high = min(middle, self.peak_bytes(chosen))
            else:
                low = middle
        return chosen


def _added(block: Block, cost: Cost, *, kept: bool) -> int:
    """Return the bytes that a block adds to what is held: its own, and its input if anyone does."""
    return cost.held_bytes + block.entry_bytes * (kept or cost.holds_input)
