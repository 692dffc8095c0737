"""Trains through the ledger: looks results up first, and stores them before they are used."""

import gc
from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import torch

from dse.candidate import Candidate
from dse.config import Study
from dse.errors import RunError, TrainingError
from dse.finetune.evaluation import Evaluation
from dse.finetune.rung import Rung
from dse.names import Fidelity
from dse.search.failures import training_failure
from dse.search.ledger import Ledger
from dse.search.patience import STORAGE_ERRORS
from dse.search.workers import Alone, Colleagues


class Evaluator(Protocol):
    """Fine-tunes and scores candidates; `dse.finetune.proxy.Proxy` implements it."""

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
        """Score a candidate; the result depends only on the arguments."""

    def under(self, study: Study) -> "Evaluator":
        """The same evaluator with another recipe of the study: its rate and its length."""


class Trainer:
    """Scores candidates and trains each at most once."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        build: Callable[[], Evaluator],
        predict: Callable[[Candidate], int],
        on_progress: Callable[[float], None],
        colleagues: Colleagues | None = None,
    ) -> None:
        """Create a trainer.

        Args:
            ledger: the study's ledger.
            build: makes the evaluator, which may pretrain a network; called only when something
                has to be trained.
            predict: returns the predicted peak of a candidate's training step in bytes.
            on_progress: called with the share of the current training that is done, from 0 to 1.
            colleagues: the other workers of the study.
        """
        self.colleagues = colleagues or Alone()
        self._ledger = ledger
        self._build = build
        self._predict = predict
        self._on_progress = on_progress

    def prepare(self) -> None:
        """Build the evaluator now, so that its errors don't count as a candidate's failure."""
        _ = self._evaluator

    def knows(self, candidate: Candidate, *, seed_index: int = 0) -> bool:
        """Return whether a candidate's complete fine-tuning at `short` is stored."""
        known = self._ledger.find(candidate, fidelity="short", seed_index=seed_index)
        return known is not None and not known.stopped

    def has(self, candidate: Candidate, *, fidelity: Fidelity, seed_index: int = 0) -> bool:
        """Return whether a training with its accuracy on the validation part is stored."""
        known = self._ledger.find(candidate, fidelity=fidelity, seed_index=seed_index)
        return known is not None and known.validation_accuracy is not None

    def diverged(self, candidate: Candidate, *, fidelity: Fidelity, seed_index: int = 0) -> bool:
        """Return whether a training that diverged is stored."""
        found = self._ledger.diverged(candidate, fidelity=fidelity, seed_index=seed_index)
        return found is not None

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
        fresh: bool = True,
    ) -> Evaluation:
        """Return a candidate's evaluation; train it only if none is stored.

        A training that was stopped at its rung is returned as it is, unless `whole` is set. `fresh`
        is that of `Ledger.find`.

        Raises:
            TrainingError: if the training diverged, ran out of memory, or its network or data set
                raised an exception.
            RunError: if a file that all trainings need can't be written or read.
        """
        known = self._ledger.find(candidate, fidelity=fidelity, seed_index=seed_index, fresh=fresh)
        unread = read_validation and known is not None and known.validation_accuracy is None
        if known is not None and not (whole and known.stopped) and not unread:
            return known
        if fresh and self.colleagues.number is not None:
            self._check_divergence(candidate, fidelity, seed_index)
        evaluator = self._evaluator
        evaluation, failure = None, None
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
        except (RunError, *STORAGE_ERRORS):
            raise  # not the candidate's fault
        except (Exception, SystemExit) as error:  # noqa: BLE001  # user code may raise anything
            failure = training_failure(error, predicted_bytes=self._predict(candidate))
        if evaluation is None:  # outside the handler, which would keep the training's tensors alive
            _release()
            raise failure or TrainingError(f"{candidate.digest} was not evaluated")
        self._ledger.store(candidate, evaluation, fidelity=fidelity, seed_index=seed_index)
        return evaluation

    def _check_divergence(self, candidate: Candidate, fidelity: Fidelity, seed_index: int) -> None:
        """Don't repeat what diverged for another worker.

        Raises:
            TrainingError: if this training diverged for another worker.
        """
        images = self._ledger.diverged(candidate, fidelity=fidelity, seed_index=seed_index)
        if images is not None:
            failure = TrainingError("the training diverged; lower training.learning_rate")
            failure.images_trained = images
            raise failure

    @cached_property
    def _evaluator(self) -> Evaluator:
        return self._build()


def _release() -> None:
    """Free the memory of a training that failed."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing if CUDA isn't in use


def rung_of(study: Study, judge: Callable[[float], bool]) -> Rung | None:
    """Return the rung of a study's short fine-tunings; None if it has none."""
    return None if study.search.climb is None else Rung(study.search.climb, judge)
