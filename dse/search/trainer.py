"""Training through the ledger: looked up first, stored before anyone else learns of it."""

import gc
from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import torch

from dse.candidate import Candidate
from dse.config import Study
from dse.errors import RunError, TrainingError
from dse.finetune.evaluation import Evaluation, Rung
from dse.names import Fidelity
from dse.search.failures import training_failure
from dse.search.ledger import Ledger
from dse.search.storage import STORAGE_ERRORS


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

    def under(self, study: Study) -> "Evaluator":
        """The same evaluator with another recipe of the study: its rate and its length."""


class Trainer:
    """Scores candidates, each at most once."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        build: Callable[[], Evaluator],
        predict: Callable[[Candidate], int],
        on_progress: Callable[[float], None],
    ) -> None:
        """Keep what is needed.

        Args:
            ledger: of the study.
            build: makes the evaluator, which may pretrain a network; not called before something
                has to be trained.
            predict: gives the bytes that a step of a candidate is predicted to hold.
            on_progress: is told the share of the training under way that is done.
        """
        self._ledger = ledger
        self._build = build
        self._predict = predict
        self._on_progress = on_progress

    def prepare(self) -> None:
        """Make the evaluator now, so that what fails in it is not laid to a candidate."""
        _ = self._evaluator

    def knows(self, candidate: Candidate) -> bool:
        """Say whether a candidate's whole short fine-tuning is known already."""
        known = self._ledger.find(candidate, fidelity="short", seed_index=0)
        return known is not None and not known.stopped

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
            TrainingError: if the training diverged, ran out of memory, or its network or data set
                raised an exception.
            RunError: if something could not be written or read that all trainings need.
        """
        known = self._ledger.find(candidate, fidelity=fidelity, seed_index=seed_index)
        unread = read_validation and known is not None and known.validation_accuracy is None
        if known is not None and not (whole and known.stopped) and not unread:
            return known
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
            raise  # no fault of the candidate's
        except (Exception, SystemExit) as error:  # noqa: BLE001  # code of the user's may do anything
            failure = training_failure(error, predicted_bytes=self._predict(candidate))
        if evaluation is None:  # outside the handler, which would keep the tensors of the training
            _release()
            raise failure or TrainingError(f"{candidate.digest} was not evaluated")
        self._ledger.store(candidate, evaluation, fidelity=fidelity, seed_index=seed_index)
        return evaluation

    @cached_property
    def _evaluator(self) -> Evaluator:
        return self._build()


def _release() -> None:
    """Give back the memory of a training that broke off."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where CUDA isn't in use


def rung_of(study: Study, judge: Callable[[float], bool]) -> Rung | None:
    """Return the rung of a study's short fine-tunings; None where it has none."""
    return None if study.search.climb is None else Rung(study.search.climb, judge)
