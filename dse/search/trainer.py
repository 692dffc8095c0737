"""Training through the ledger: looked up first, stored before anyone else learns of it."""

from collections.abc import Callable
from functools import cached_property
from typing import Protocol

from dse.candidate import Candidate
from dse.config import Study
from dse.errors import TrainingError
from dse.finetune.evaluation import Evaluation, Rung
from dse.results.records import Fidelity
from dse.search.ledger import Ledger


class Evaluator(Protocol):
    """Fine-tunes and scores candidates; `dse.finetune.proxy.Proxy` is the real one."""

    def evaluate(
        self,
        candidate: Candidate,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
        read_validation: bool = False,
        on_progress: Callable[[float], None] | None = None,
        rung: Rung | None = None,
    ) -> Evaluation:
        """Score a candidate; the result depends on nothing but the arguments."""


class Trainer:
    """Scores candidates, each at most once."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        build: Callable[[], Evaluator],
        on_progress: Callable[[float], None],
    ) -> None:
        """Keep what is needed.

        Args:
            ledger: of the study.
            build: makes the evaluator, which may pretrain a network; not called before something
                has to be trained.
            on_progress: is told the share of the training under way that is done.
        """
        self._ledger = ledger
        self._build = build
        self._on_progress = on_progress

    def prepare(self) -> None:
        """Make the evaluator now, so that what fails in it is not laid to a candidate."""
        _ = self._evaluator

    @property
    def images_trained(self) -> int:
        """Images of all trainings of the study, diverged ones included."""
        return self._ledger.images_trained()

    def score(
        self,
        candidate: Candidate,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
        read_validation: bool = False,
        rung: Rung | None = None,
        whole: bool = False,
    ) -> Evaluation:
        """Return a candidate's evaluation, trained now if it never was.

        One that was given up at its rung stays so, unless the `whole` training is asked for.

        Raises:
            TrainingError: if the training diverged.
        """
        known = self._ledger.find(candidate, fidelity=fidelity, seed_index=seed_index)
        if known is not None and not (whole and known.stopped):
            return known
        evaluator = self._evaluator
        try:
            evaluation = evaluator.evaluate(
                candidate,
                fidelity=fidelity,
                seed_index=seed_index,
                read_validation=read_validation,
                on_progress=self._on_progress,
                rung=rung,
            )
        except TrainingError as error:
            if error.images_trained:
                self._ledger.store_diverged(
                    candidate, error.images_trained, fidelity=fidelity, seed_index=seed_index
                )
            raise
        self._ledger.store(candidate, evaluation, fidelity=fidelity, seed_index=seed_index)
        return evaluation

    @cached_property
    def _evaluator(self) -> Evaluator:
        return self._build()


def rung_of(study: Study, judge: Callable[[float], bool]) -> Rung | None:
    """Return the rung of a study's short fine-tunings; None where it has none."""
    return None if study.search.climb is None else Rung(study.search.climb, judge)
