"""Trains one candidate with several seeds, each as a job of its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from dse.errors import TrainingError
from dse.finetune.evaluation import Evaluation
from dse.names import Fidelity
from dse.search.entrants import Entrant
from dse.search.handing_out import Job
from dse.search.left_out import forget_failure, note_failure
from dse.search.session import Session

_KEYS = {"short": "repeat", "full": "final"}  # what the workers of a study claim


@dataclass
class Seeded:
    """The trainings of one entrant at one fidelity, one for each seed.

    Attributes:
        session: the run's session.
        entrant: what is trained.
        fidelity: `full` also reads the accuracy on the validation part.
        what: what failures call it, such as "finalist".
        seeds: numbers of the seeds.
        store: called with the evaluations in the order of the seeds, once all are known.
        required: raise what a training raises, instead of leaving the entrant out.
    """

    session: Session
    entrant: Entrant
    fidelity: Fidelity
    what: str
    seeds: Sequence[int]
    store: Callable[[list[Evaluation]], None]
    required: bool = False
    _found: dict[int, Evaluation] = field(default_factory=dict)
    _failed: bool = False

    def jobs(self) -> Iterator[Job]:
        """Yield one job for each seed. The last one to end stores the result."""
        for seed_index in self.seeds:
            yield Job(
                key=f"{_KEYS[self.fidelity]} {self.entrant.candidate.digest} {seed_index}",
                is_done=partial(self._is_done, seed_index),
                run=partial(self._run, seed_index),
            )

    def _is_done(self, seed_index: int) -> bool:
        trainer, candidate = self.session.trainer, self.entrant.candidate
        if self._failed:
            return True
        if self.fidelity == "full":
            return trainer.has(candidate, fidelity="full", seed_index=seed_index)
        return trainer.knows(candidate, seed_index=seed_index)

    def _run(self, seed_index: int) -> None:
        if self._failed:
            return
        entrant, meter = self.entrant, self.session.meter
        try:
            evaluation = self.session.trainer.score(
                entrant.candidate,
                fidelity=self.fidelity,
                seed_index=seed_index,
                read_validation=self.fidelity == "full",
            )
        except TrainingError as error:
            if self.required:
                place = f"{entrant.label} at fidelity {self.fidelity}"
                raise TrainingError(f"{place}: {error}") from error
            self._failed = True
            note_failure(self.session, self.what, entrant.label, entrant.candidate, error)
            return
        self._found[seed_index] = evaluation
        meter.done += 1
        meter.add_time(self.fidelity, evaluation.wall_seconds)
        self.session.observer.on_evaluation(entrant.label, evaluation.accuracy, meter.now)
        if len(self._found) == len(self.seeds):
            forget_failure(self.session, self.what, entrant.label)
            self.store([self._found[one] for one in sorted(self._found)])
