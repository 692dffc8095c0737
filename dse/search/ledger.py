"""All evaluations of a study, kept in its storage so that nothing is trained twice."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna

from dse.candidate import Candidate
from dse.errors import TrainingError
from dse.finetune.evaluation import Evaluation
from dse.names import Fidelity
from dse.search.patience import STORAGE_ERRORS

Keep = Callable[[str, Mapping[str, Any]], None]
"""Keeps an evaluation, a JSON object, under the name of the attribute that would hold it."""

_PREFIX = "evaluation:"
_DIVERGED = "diverged:"


class Ledger:
    """Evaluations by candidate, fidelity and seed index.

    An evaluation is stored before it is used anywhere, and looked up before anything is trained.
    A crash therefore loses at most the training in progress, and a storage that is gone not even
    that: the evaluation is kept elsewhere.
    """

    def __init__(
        self,
        study: optuna.Study,
        *,
        scope: str = "",
        unpruned_scopes: Mapping[Fidelity, str] | None = None,
        keep: Keep | None = None,
    ) -> None:
        """Open the ledger of a study.

        Args:
            study: the Optuna study whose attributes hold the evaluations.
            scope: prefix of all names, for trainings with a recipe that may not be the run's.
            unpruned_scopes: by fidelity, another scope in which evaluations of the unpruned network
                are looked up as well.
            keep: keeps an evaluation elsewhere if the storage doesn't take it.
        """
        self._keep = keep
        self._study = study
        self._scope = scope
        self._unpruned_scopes = unpruned_scopes or {}
        self._known: dict[str, Evaluation] = {}
        self._written: dict[str, Any] | None = None

    def find(
        self, candidate: Candidate, *, fidelity: Fidelity, seed_index: int = 0, fresh: bool = True
    ) -> Evaluation | None:
        """Return the stored evaluation, whichever process stored it; None if there is none.

        Args:
            candidate: the candidate.
            fidelity: how thoroughly it was evaluated.
            seed_index: which seed.
            fresh: read what other processes stored since the ledger was last read. Takes a while
                in a study of thousands of trials.
        """
        name = _name(candidate, fidelity, seed_index)
        key = _PREFIX + self._scope + name
        if key not in self._known:
            if fresh or self._written is None:
                self._written = self._study.user_attrs
            written = self._written
            stored = written.get(key)
            other = self._unpruned_scopes.get(fidelity)
            if stored is None and other is not None and candidate == Candidate():
                stored = written.get(_PREFIX + other + name)
            if stored is None:
                return None
            self._known[key] = Evaluation.from_json(stored)
        return self._known[key]

    def images_trained(self) -> int:
        """Return the images of all trainings ever stored, diverged ones included."""
        written = self._study.user_attrs
        scored = sum(v["images_trained"] for k, v in written.items() if k.startswith(_PREFIX))
        return int(scored + sum(v for k, v in written.items() if k.startswith(_DIVERGED)))

    def diverged(
        self, candidate: Candidate, *, fidelity: Fidelity, seed_index: int = 0
    ) -> int | None:
        """Return the images of a training that diverged; None if none did."""
        name = _DIVERGED + self._scope + _name(candidate, fidelity, seed_index)
        found: int | None = self._study.user_attrs.get(name)
        return found

    def store_diverged(
        self,
        candidate: Candidate,
        images_trained: int,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
    ) -> None:
        """Store the images of a training that diverged; `find` ignores it."""
        name = self._scope + _name(candidate, fidelity, seed_index)
        self._study.set_user_attr(_DIVERGED + name, images_trained)

    def store(
        self,
        candidate: Candidate,
        evaluation: Evaluation,
        *,
        fidelity: Fidelity,
        seed_index: int = 0,
    ) -> None:
        """Store an evaluation.

        Raises:
            TrainingError: if its accuracy is not finite; nothing is stored then.
        """
        accuracies = (evaluation.accuracy, evaluation.validation_accuracy or 0.0)
        if not all(map(math.isfinite, accuracies)):
            raise TrainingError(
                f"candidate {candidate.digest} at fidelity {fidelity}: accuracy {accuracies[0]} is "
                "not finite; lower training.learning_rate"
            )
        key = _PREFIX + self._scope + _name(candidate, fidelity, seed_index)
        try:
            self._study.set_user_attr(key, evaluation.to_json())
        except (*STORAGE_ERRORS, KeyboardInterrupt):  # a stop may come while the storage is away
            if self._keep is not None:
                self._keep(key, evaluation.to_json())
            raise
        self._known[key] = evaluation


def _name(candidate: Candidate, fidelity: Fidelity, seed_index: int) -> str:
    return f"{candidate.digest}:{fidelity}:{seed_index}"
