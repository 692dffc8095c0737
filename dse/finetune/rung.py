"""Scores a network at its rung, a point of the training at which the training may stop."""

from collections.abc import Callable
from dataclasses import dataclass

from dse.finetune.loop import Score


@dataclass(frozen=True)
class Rung:
    """A point in the training at which a candidate may be stopped.

    Attributes:
        share: share of the training after which the network is scored, from 0 to 1.
        judge: called with the accuracy on the selection part; returns whether to continue.
    """

    share: float
    judge: Callable[[float], bool]


class Halt:
    """Scores a network once at its rung, and decides whether the training continues.

    Attributes:
        score: score at the rung; None before it.
        stopped: whether the rung's judge decided to stop.
    """

    def __init__(self, rung: Rung | None, *, score: Callable[[], Score], metric: str) -> None:
        """Begin before the training.

        Args:
            rung: the rung; None if the training always goes on.
            score: scores the network as it is now.
            metric: metric that the rung's judge is given.
        """
        self._rung, self._score, self._metric = rung, score, metric
        self.score: Score | None = None
        self.stopped = False
        self._step: float | None = None  # share of the training that one step takes

    def __call__(self, share: float) -> bool:
        """Return whether the training continues.

        Args:
            share: share of the training that is done, from 0 to 1.
        """
        rung = self._rung
        self._step = self._step or share
        # A rung that falls on the last step is moved to the step before, or it would save nothing.
        due = share >= rung.share or share + 1.5 * self._step > 1 if rung else False
        if rung is not None and self.score is None and due and share < 1:
            self.score = self._score()
            self.stopped = not rung.judge(self.score.by(self._metric))
        return not self.stopped
