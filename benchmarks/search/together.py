"""Do several workers search as well as one? The search itself, on recorded candidates.

    python benchmarks/search/together.py [--workers 8] [--seeds 10]

Workers run the search's own loop in turn, on a clock that advances when all of them train or wait:
nothing is trained, and nothing takes time but trainings, which last in proportion to the memory of
the step, within a fifth. Compares hypervolumes after as many evaluations, whoever made them, and
writes together.md beside this file.
"""

import argparse
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import optuna
from interpolated import InterpolatedEvaluator
from interpolated_world import interpolated_world
from measures import history, ratio, with_interval
from methods import Point, session_of, study_of
from optuna.storages import InMemoryStorage
from recorded import HERE, STUDIES
from world import World

from dse.candidate import Candidate
from dse.finetune.evaluation import Evaluation
from dse.search.baselines import score_baselines
from dse.search.loop import sample
from dse.search.seeding import seed_trials
from dse.search.workers import claimed

COUNTS = (25, 50, 100)
_HEAD = """\
# Several workers, and one

Rewritten by `python benchmarks/search/together.py`. Hypervolume as a share of the box, as in
[comparison_digits.md](comparison_digits.md), after as many evaluations, five baselines counted.
{workers} workers run the search's loop on a simulated clock; nothing is trained. Means over
searches, 95 % t and Welch intervals.

| world | searches | evaluations | one worker | {workers} workers | ratio | trained twice |
| :--- | ---: | ---: | ---: | ---: | ---: | ---: |"""
ASKS = 3  # looks of a waiting worker without news, after which it waits for some


@dataclass
class Stage:
    """Lets one worker run at a time, on a clock of its own.

    Attributes:
        now: seconds on that clock.
        wakes: when each worker that trains ends.
        looks: how often each worker that waits has looked since something happened.
    """

    ready: list[int]
    now: float = 0.0
    wakes: dict[int, float] = field(default_factory=dict)
    looks: dict[int, int] = field(default_factory=dict)
    turn: int = -1
    changed: threading.Condition = field(default_factory=threading.Condition)

    def begin(self) -> None:
        """Give the first turn."""
        with self.changed:
            self._choose()

    def train(self, worker: int, seconds: float) -> None:
        """Let others run until so many seconds have passed."""
        self.wakes[worker] = self.now + seconds
        self._news()
        self._leave(worker)

    def wait(self, worker: int) -> None:
        """Let others run."""
        self.looks[worker] = self.looks.get(worker, 0) + 1
        self._leave(worker)

    def enter(self, worker: int) -> None:
        """Wait for the first turn."""
        with self.changed:
            self.changed.wait_for(lambda: self.turn == worker)

    def end(self, _worker: int) -> None:
        """Let the others run for good."""
        self._news()
        with self.changed:
            self._choose()

    def _news(self) -> None:
        self.looks = dict.fromkeys(self.looks, 0)

    def _leave(self, worker: int) -> None:
        with self.changed:
            self._choose()
            self.changed.wait_for(lambda: self.turn == worker)

    def _choose(self) -> None:
        """Give the turn to a worker that can go on; else let the next training end."""
        waiting = [one for one, looks in self.looks.items() if looks < ASKS]
        if self.ready:
            self.turn = self.ready.pop(0)
        elif waiting:
            self.turn = min(waiting, key=lambda one: (self.looks[one], one))
        elif self.wakes:
            self.turn = min(self.wakes, key=lambda one: (self.wakes[one], one))
            self.now = self.wakes.pop(self.turn)
            self._news()
        else:
            self.turn = -1
        self.changed.notify_all()


@dataclass
class Together:
    """The other workers, all of them alive."""

    number: int
    stage: Stage
    claims: set[str]
    count: int

    def take(self, key: str) -> bool:
        """Claim a piece of work."""
        if key in self.claims:
            return False
        self.claims.add(key)
        return True

    def release(self, key: str) -> None:
        """Give up a claim."""
        self.claims.remove(key)

    def living(self) -> frozenset[int]:
        """All."""
        return frozenset(range(self.count))

    def beside(self) -> int:
        """All but this one."""
        return self.count - 1

    def stale(self, keys: Iterable[str]) -> frozenset[str]:  # noqa: ARG002
        """None."""
        return frozenset()

    def pause(self) -> None:
        """Let the others run."""
        self.stage.wait(self.number)


@dataclass
class Slow:
    """Scores candidates after a while, and notes them in the order in which they end."""

    inner: InterpolatedEvaluator
    worker: int
    stage: Stage
    points: list[Point]
    trained: Counter[str]

    @property
    def images_trained(self) -> int:
        """Of one evaluation."""
        return self.inner.images_trained

    @property
    def images_forward(self) -> int:
        """Of one evaluation."""
        return self.inner.images_forward

    def under(self, _study: object) -> "Slow":
        """Recipes change nothing."""
        return self

    def evaluate(self, candidate: Candidate, **settings: object) -> Evaluation:
        """Score a candidate."""
        world = self.inner.interpolation.world
        kept = candidate.kept(world.space.choices)
        peak_bytes = world.peak_bytes(kept)
        self.trained[candidate.digest] += 1
        self.stage.looks.pop(self.worker, None)
        self.stage.train(self.worker, seconds_of(candidate, peak_bytes / world.unpruned_peak_bytes))
        found = self.inner.evaluate(candidate, **settings)
        self.points.append(Point(peak_bytes, found.accuracy, 0.0, self.inner.mean(kept)))
        return found


def seconds_of(candidate: Candidate, share: float) -> float:
    """How long a training takes, of a candidate's own."""
    chance = np.random.default_rng(int(candidate.digest[:8], 16))
    return float((0.2 + share) * np.exp(chance.normal(0.0, 0.2)))


def searched(
    world: World, inner: InterpolatedEvaluator, *, seed: int, evaluations: int, workers: int
) -> tuple[list[Point], int]:
    """Search; return what was evaluated in the order in which it ended, and repeated trainings."""
    study = study_of(world, seed=seed, evaluations=evaluations, changed={})
    stage = Stage(ready=list(range(workers)))
    storage, points, trained = InMemoryStorage(), list[Point](), Counter[str]()
    claims, failed = set[str](), list[BaseException]()

    def work(number: int) -> None:
        stage.enter(number)
        try:
            session = session_of(
                world,
                study,
                Slow(inner, number, stage, points, trained),
                storage=storage,
                colleagues=Together(number, stage, claims, workers),
            )
            baselines = score_baselines(session)
            with claimed(session.colleagues, "baselines as trials"):
                seed_trials(session, baselines)
            sample(session, deadline=None)
        except BaseException as error:  # noqa: BLE001  # raised by the caller
            failed.append(error)
        finally:
            stage.looks.pop(number, None)
            stage.end(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    stage.begin()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return points, sum(trained.values()) - len(trained)


def main() -> None:
    """Compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=max(COUNTS))
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    page = [_HEAD.format(workers=arguments.workers)]
    for name in STUDIES:
        page += rows_of(name, arguments)
    (HERE / "together.md").write_text("\n".join(page) + "\n", encoding="utf-8")


def rows_of(name: str, arguments: argparse.Namespace) -> list[str]:
    """Search one world, and return its rows of the table."""
    world, inner = interpolated_world(name)
    reached: dict[int, list[np.ndarray]] = {1: [], arguments.workers: []}
    repeated = 0
    for seed in range(arguments.seeds):
        for workers, found in reached.items():
            points, again = searched(
                world, inner, seed=seed, evaluations=arguments.evaluations, workers=workers
            )
            repeated += again
            found.append(history(world, points)[: arguments.evaluations])
        ends = [f"{found[-1][-1]:.4f}" for found in reached.values()]
        print(name, seed, *ends, f"{repeated} trained twice so far", flush=True)
    one, many = (np.array(found) for found in reached.values())
    lines = []
    for count in (one for one in COUNTS if one <= arguments.evaluations):
        own, others = many[:, count - 1], one[:, count - 1]
        found = ratio(own, others)
        low, high = found["interval"] or (np.nan, np.nan)
        lines.append(
            f"| {name} | {arguments.seeds} | {count} | {with_interval(others)} | "
            f"{with_interval(own)} | {found['value']:.3f} ({low:.3f} to {high:.3f}) | {repeated} |"
        )
    return lines


if __name__ == "__main__":
    main()
