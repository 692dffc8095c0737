"""Where the recorded candidates come from: plain samplers, and the search's own operators."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from world import Kept, World

from dse.sampling.aim import scale, target
from dse.sampling.history import History
from dse.sampling.propose import FIRST
from dse.sampling.relax import relax

UNIFORM = (0.0, 0.25, 0.5, 0.75, 0.9)
Direction = Callable[[np.random.Generator, World], NDArray[np.float64]]


class Source(Protocol):
    """Draws candidates, and learns what they scored."""

    name: str
    count: int

    def ask(self) -> Kept:
        """Draw a candidate."""

    def tell(self, accuracy: float, peak_bytes: int, /) -> None:
        """Learn the score of the last one."""


@dataclass
class Plain:
    """What a user would write: Optuna over the ratios, both objectives reported, nothing else."""

    name: str
    count: int
    world: World
    sampler: BaseSampler
    study: optuna.Study = field(init=False)
    trial: optuna.Trial = field(init=False)

    def __post_init__(self) -> None:
        """Begin a study in memory."""
        self.study = optuna.create_study(directions=["maximize", "minimize"], sampler=self.sampler)

    def ask(self) -> Kept:
        """Draw by Optuna."""
        self.trial = self.study.ask()
        space = self.world.space
        return space.candidate(space.draw(self.trial)).kept(space.choices)

    def tell(self, accuracy: float, peak_bytes: int) -> None:
        """Tell both objectives."""
        self.study.tell(self.trial, [accuracy, peak_bytes])


@dataclass
class Aimed:
    """Random directions, scaled to targets over the whole range of peaks and relaxed."""

    name: str
    count: int
    world: World
    direction: Direction
    seed: int
    drawn: int = 0

    def ask(self) -> Kept:
        """Draw by the target's number."""
        world = self.world
        rng = np.random.default_rng((self.seed, self.drawn))
        limit = target(
            self.drawn,
            smallest_bytes=world.peak_bytes(world.smallest),
            largest_bytes=world.unpruned_peak_bytes,
            budgets=(),
            seed=self.seed,
        )
        ladders, peaks = world.space.ladders, world.peaks
        shares = self.direction(rng, world)
        kept = scale(shares.tolist(), ladders=ladders, peaks=peaks, target_bytes=limit)
        return relax(kept, ladders=ladders, peaks=peaks, limit_bytes=limit)

    def tell(self, _accuracy: float, _peak_bytes: int) -> None:
        """Count it."""
        self.drawn += 1


@dataclass
class Proposed:
    """The search's own proposals, after uniform pruning by a few ratios.

    Attributes:
        aimed: whether targets are spread over memory, or chosen by what they promise.
    """

    name: str
    count: int
    world: World
    seed: int
    aimed: bool
    results: list[tuple[Kept, int, float]] = field(default_factory=list)
    proposed: Kept = ()

    def ask(self) -> Kept:
        """Propose by the results so far."""
        world, number = self.world, len(self.results)
        if number < len(UNIFORM):
            choices = world.space.choices
            self.proposed = world.space.uniform(UNIFORM[number]).kept(choices)
            return self.proposed
        history = History.of(
            kept=np.array([kept for kept, _, _ in self.results]),
            peaks=np.array([peak for _, peak, _ in self.results]),
            accuracies=np.array([accuracy for _, _, accuracy in self.results]),
        )
        limit = target(
            number - len(UNIFORM),
            smallest_bytes=world.proposer.smallest_bytes,
            largest_bytes=world.proposer.largest_bytes,
            budgets=(),
            seed=self.seed,
        )
        self.proposed, *_ = world.proposer.propose(
            history,
            target_bytes=limit if self.aimed or number < FIRST else None,
            rng=np.random.default_rng((self.seed, number)),
        )
        return self.proposed

    def tell(self, accuracy: float, peak_bytes: int) -> None:
        """Remember it."""
        self.results.append((self.proposed, peak_bytes, accuracy))


def uniform_shares(rng: np.random.Generator, world: World) -> NDArray[np.float64]:
    """Every group on its own, as a plain random sampler draws."""
    return 1 - rng.uniform(0.0, 0.9, len(world.full))


def smooth_shares(rng: np.random.Generator, world: World) -> NDArray[np.float64]:
    """Profiles over the depth of the network, with some scatter from group to group."""
    depth = np.linspace(0.0, 1.0, len(world.full))
    waves = np.cos(np.pi * np.outer(np.arange(1, 4), depth))
    profile = (rng.normal(0.0, 0.5, 3) / np.arange(1, 4) ** 0.5) @ waves
    return np.exp(profile + rng.normal(0.0, rng.uniform(0.0, 0.4), len(depth)))


def cheap_shares(rng: np.random.Generator, world: World) -> NDArray[np.float64]:
    """The more bytes a group holds at the peak of the whole network, the less it keeps of them."""
    held = world.held
    scatter = rng.normal(0.0, 0.25, len(held))
    return np.exp(-rng.uniform(0.0, 1.0) * np.log(held) + scatter)


def sources(world: World) -> list[Source]:
    """List the sources in the order of their turns."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return [
        Proposed("proposed", 400, world, seed=4, aimed=False),
        Aimed("aimed cheap", 400, world, cheap_shares, seed=3),
        Proposed("proposed, aimed", 400, world, seed=5, aimed=True),
        Plain("plain tpe", 400, world, TPESampler(seed=0)),
        Aimed("aimed smooth", 400, world, smooth_shares, seed=2),
        Plain("plain nsga2", 400, world, NSGAIISampler(seed=0)),
        Aimed("aimed uniform", 400, world, uniform_shares, seed=1),
    ]
