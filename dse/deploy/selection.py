"""Which contender is chosen: the smallest of the most accurate ones, or the knee of the front.

Each contender that might be chosen runs a real training step first; one that holds more than the
budget is passed over.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dse.deploy.contenders import Contender, Pool, is_within
from dse.deploy.measure import Measure
from dse.deploy.ties import tied_with
from dse.memory.measure import Measurement
from dse.results.front import knee
from dse.results.records import RunRecords
from dse.units import format_size

Rule = Literal["accuracy", "knee"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A contender whose real step stayed within the budget.

    Attributes:
        chosen: the contender.
        measured: its training step on this machine.
        unpruned: the unpruned network at the same fidelity.
        rule: how it was chosen.
        leader: the most accurate contender that fits; the chosen one unless they are tied.
        tied: others that fit and are tied with the leader, smallest first, the leader included if
            it isn't chosen; None if no test was possible.
    """

    chosen: Contender
    measured: Measurement
    unpruned: Contender
    rule: Rule
    leader: Contender
    tied: tuple[Contender, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a choice must meet.

    Attributes:
        budget_bytes: bytes that a step may hold.
        max_drop: maximum loss against the unpruned network in points.
        measure: runs a contender's training step.
        held: what the measured bytes are; see `dse.deploy.choice.HELD`.
        notes: receives a line for each contender that is passed over.
    """

    budget_bytes: int
    max_drop: float
    measure: Measure
    held: str = "a real step held"
    notes: list[str] = field(default_factory=list)

    def step(self, one: Contender) -> Measurement | None:
        """Return the real step of a contender; None, with a note, if it exceeds the budget."""
        measured = self.measure(one.candidate)
        if measured.peak_bytes <= self.budget_bytes:
            return measured
        self.notes.append(
            f"{one.label} passed over: predicted {format_size(one.peak_bytes)}, but "
            f"{self.held} {measured.peak_bytes - self.budget_bytes:,} bytes more than the budget"
        )
        return None


def most_accurate(pool: Pool, terms: Terms) -> Found | None:
    """Choose the most accurate contender that fits, or the smallest one that is tied with it."""
    fitting = [one for one in pool.contenders if one.peak_bytes <= terms.budget_bytes]
    ranked = sorted(fitting, key=lambda one: (-one.selection_accuracy, one.peak_bytes))
    for leader in ranked:
        drop = pool.selection_drop(leader)
        if not is_within(drop, terms.max_drop):
            continue
        if not pool.qualifies(leader, max_drop=terms.max_drop):
            terms.notes.append(
                f"{leader.label} passed over: it loses {drop:.1f} points on the "
                f"selection part, but {pool.shown_drop(leader):.1f} on the validation part"
            )
            continue
        measured = terms.step(leader)
        if measured is not None:
            own = Found(
                chosen=leader,
                measured=measured,
                unpruned=pool.unpruned,
                rule="accuracy",
                leader=leader,
            )
            return _smallest_tied(own, pool, fitting, terms)
    return None


def _smallest_tied(found: Found, pool: Pool, fitting: list[Contender], terms: Terms) -> Found:
    """Return the smallest contender that is tied with the leader and fits, if there is any."""
    leader = found.leader
    others = [one for one in fitting if pool.qualifies(one, max_drop=terms.max_drop)]
    ties = tied_with(leader, others)
    chosen, measured = leader, found.measured
    left = list(ties or ())
    for one in [one for one in left if one.peak_bytes < leader.peak_bytes]:
        left.remove(one)
        step = terms.step(one)
        if step is not None:
            chosen, measured = one, step
            left.append(leader)
            terms.notes.append(
                f"{leader.label} is ahead by "
                f"{100 * (leader.selection_accuracy - one.selection_accuracy):.1f} points on the "
                f"selection part, but Welch's test over {len(leader.figures)} seeds finds no "
                f"difference (5 %), so the smaller {one.label} is chosen"
            )
            break
    return Found(
        chosen=chosen,
        measured=measured,
        unpruned=found.unpruned,
        rule="accuracy",
        leader=leader,
        tied=None if ties is None else tuple(sorted(left, key=lambda one: one.peak_bytes)),
    )


def at_knee(records: RunRecords, short: Pool, full: Pool | None, terms: Terms) -> Found | None:
    """Choose the knee of the front of the trials that fit.

    The knee is that of predicted peak and of accuracy after the short training, as a report marks
    it. If it loses too much, the knee of those that don't is taken instead.

    Args:
        records: records of a run.
        short: everything scored at `short`.
        full: everything fine-tuned in full, whose figures are shown and whose loss counts where
            the knee is among them.
        terms: what the choice must meet.

    Returns:
        None if there is no knee, for example with fewer than three members of the front.
    """
    shown = {one.candidate.digest: (short, one) for one in short.contenders}
    if full is not None:
        shown |= {one.candidate.digest: (full, one) for one in full.contenders}
    trials = [
        (trial.peak_bytes, trial.accuracy, *shown[trial.candidate.digest])
        for trial in records.complete
        if trial.peak_bytes <= terms.budget_bytes and trial.candidate.digest in shown
    ]
    all_allowed = False
    while (row := knee(np.array([t[:2] for t in trials]), maximise=(False, True))) is not None:
        _, _, pool, one = trials[row]
        if not pool.qualifies(one, max_drop=terms.max_drop):
            terms.notes.append(
                f"{one.label}, the knee of the front, passed over: it loses {pool.drop(one):.1f} "
                "points"
            )
            trials = [t for t in trials if t[2].qualifies(t[3], max_drop=terms.max_drop)]
            all_allowed = True
            continue
        measured = terms.step(one)
        if measured is not None:
            return Found(
                chosen=one, measured=measured, unpruned=pool.unpruned, rule="knee", leader=one
            )
        trials = [t for t in trials if t[3] is not one]
    where = "of those that lose little enough " if all_allowed else ""
    terms.notes.append(
        f"the front {where}has no knee (fewer than three members that fit, or none below the line "
        "between its ends): the most accurate candidate is chosen instead"
    )
    return None
