"""Tunes the unpruned network's own recipe once, before anything is compared with it.

A weak reference would flatter every candidate. Learning rates are tried by short fine-tunings, up
to two more past an end of the ladder that is the best, and the best two rates with more seeds;
lengths are tried by full ones at the best rate. The selection part alone decides. Every training is
stored in the ledger, so a stopped run can resume, and so the run itself need not repeat the
trainings of the chosen recipe: short ones are scored at the rung and full ones on the validation
part too, as the run's own are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import optuna

from dse.candidate import Candidate
from dse.config import Study
from dse.errors import TrainingError
from dse.finetune.evaluation import Evaluation
from dse.names import Fidelity
from dse.results.reference import Attempt, Tuning
from dse.results.trials import BASELINE
from dse.search.handing_out import Job, hand_out
from dse.search.ledger import Keep, Ledger
from dse.search.progress import Meter, Observer
from dse.search.trainer import Evaluator, Trainer, rung_of
from dse.search.workers import Colleagues

REFERENCE = "reference recipe"
"""Study attribute with the tuned recipe."""

LEAST_GAIN = 0.005  # minimum gain of accuracy for which a longer training is chosen
_ROUNDED = 6  # significant digits of a rate
_MOST_BEYOND = 2  # rates tried past an end of the ladder
_LONGEST_STEP = 4.0  # largest factor between an end of the ladder and the rate tried past it


@dataclass(frozen=True, kw_only=True)
class Tuner:
    """Tunes the recipe of one run.

    Attributes:
        study: the study, as loaded from its file.
        archive: the Optuna study that results are stored in.
        build: makes the evaluator, once.
        predict: returns the predicted peak of a candidate's training step in bytes.
        observer: receives the run's events.
        meter: counts and times the run.
        colleagues: the other workers of the study, who share the trainings.
        keep: keeps an evaluation that the storage doesn't take.
    """

    study: Study
    archive: optuna.Study
    build: Callable[[], Evaluator]
    predict: Callable[[Candidate], int]
    observer: Observer
    meter: Meter
    colleagues: Colleagues
    keep: Keep | None = None

    def tuned(self) -> Tuning:
        """Return the run's recipe; tune it only if none is stored.

        A run that an older release began, or that has trained candidates already, keeps the study's
        recipe. So does one whose unpruned network can't be trained; a message reports it.
        """
        if (known := read_tuning(self.archive)) is not None:
            return known
        own = Tuning(
            learning_rate=self.study.training.learning_rate,
            full_epochs=self.study.proxy.full_epochs,
        )
        begun = any(key.startswith(BASELINE) for key in self.archive.user_attrs)
        if not self.study.reference.tune or begun or self.archive.get_trials(deepcopy=False):
            return own
        try:
            found = self._search()
        except TrainingError as error:
            self.observer.on_message(f"the unpruned network's recipe is not tuned: {error}")
            return own
        self.archive.set_user_attr(REFERENCE, found.to_json())
        self.observer.on_message(
            f"the unpruned network learns best at rate {found.learning_rate:g}, "
            f"{found.full_epochs:g} epochs in full ({len(found.attempts)} recipes tried); all "
            "candidates are trained with this recipe"
        )
        return found

    def _search(self) -> Tuning:
        rates, lengths, seeds = self._rates(), self._lengths(), self.study.reference.seeds
        again = min(2, len(rates)) * (seeds - 1)
        total = len(rates) + again + (len(lengths) * seeds if len(lengths) > 1 else 0)
        self.meter.begin("reference", total=total)
        self.observer.on_phase("reference", total)
        short = self.study.proxy.short_epochs
        self._share([(rate, short, "short", 0) for rate in rates])
        tried = {rate: self._attempt(rate, short, "short", 1) for rate in rates}
        self._go_beyond(tried, short)
        best = sorted(tried, key=lambda rate: tried[rate].rank, reverse=True)[:2]
        if seeds > 1:
            self._share([(rate, short, "short", seed) for rate in best for seed in range(1, seeds)])
            tried |= {
                rate: self._attempt(rate, short, "short", seeds, known=1)
                for rate in best
                if tried[rate].accuracies
            }
        rate = max(best, key=lambda one: tried[one].rank)
        if not tried[rate].accuracies:
            raise TrainingError(
                f"the unpruned network diverged at every learning rate from {min(tried):g} to "
                f"{max(tried):g}: lower training.learning_rate"
            )
        attempts = [tried[one] for one in sorted(tried)]
        chosen = self.study.proxy.full_epochs
        if len(lengths) > 1:
            chosen, longer = self._best_length(rate, lengths)
            attempts += longer
        return Tuning(learning_rate=rate, full_epochs=chosen, attempts=tuple(attempts))

    def _go_beyond(self, tried: dict[float, Attempt], short: float) -> None:
        """Continue the ladder past an end, by steps like its own, while the rate there is the best.

        If every rate diverged, lower ones are tried.

        Args:
            tried: attempts by rate; new ones are added.
            short: length of an attempt in epochs.
        """
        for _ in range(_MOST_BEYOND):
            rates = sorted(tried)
            best = max(rates, key=lambda rate: tried[rate].rank)  # the lowest if all diverged
            if len(rates) == 1 or best not in (rates[0], rates[-1]):
                return
            near = rates[1] if best == rates[0] else rates[-2]
            rate = _rounded(best * min(max(best / near, 1 / _LONGEST_STEP), _LONGEST_STEP))
            self.meter.total += 1
            tried[rate] = self._attempt(rate, short, "short", 1)

    def _best_length(self, rate: float, lengths: tuple[float, ...]) -> tuple[float, list[Attempt]]:
        """Lengthen the full training as long as each step gains enough accuracy."""
        attempts: list[Attempt] = []
        best: Attempt | None = None
        for epochs in lengths:
            self._share(
                [(rate, epochs, "full", seed) for seed in range(self.study.reference.seeds)]
            )
            one = self._attempt(rate, epochs, "full", self.study.reference.seeds)
            attempts.append(one)
            gained = bool(one.accuracies) and (
                best is None or one.rank[0] >= best.rank[0] + LEAST_GAIN
            )
            if best is not None and not gained:
                break
            best = one
        if best is None or not best.accuracies:
            raise TrainingError(
                f"the unpruned network diverged in full at learning rate {rate:g}: lower "
                "training.learning_rate"
            )
        return best.epochs, attempts

    def _share(self, wanted: Sequence[tuple[float, float, Literal["short", "full"], int]]) -> None:
        """Train ahead what an attempt will look up, together with the other workers.

        Args:
            wanted: rate, epochs, fidelity and seed index of each training.
        """
        if self.colleagues.number is None:  # an attempt trains it all the same, and shows it
            return
        hand_out((self._job(*one) for one in wanted), self.colleagues)

    def _job(
        self, rate: float, epochs: float, fidelity: Literal["short", "full"], seed_index: int
    ) -> Job:
        trainer, settings = self._trainer(rate, epochs, fidelity)

        def is_done() -> bool:
            if trainer.diverged(Candidate(), fidelity=fidelity, seed_index=seed_index):
                return True
            if fidelity == "full":
                return trainer.has(Candidate(), fidelity=fidelity, seed_index=seed_index)
            return trainer.knows(Candidate(), seed_index=seed_index)

        def run() -> None:
            if is_done():
                return
            with suppress(TrainingError):  # the attempt meets it again, and reports it
                trainer.score(Candidate(), fidelity=fidelity, seed_index=seed_index, **settings)

        return Job(key=f"{_scope(rate, epochs)}{fidelity}:{seed_index}", is_done=is_done, run=run)

    def _trainer(
        self, rate: float, epochs: float, fidelity: Literal["short", "full"]
    ) -> tuple[Trainer, dict[str, Any]]:
        """Return the trainer of one recipe, and how it is called."""
        full = epochs if fidelity == "full" else self.study.proxy.full_epochs
        study = Tuning(learning_rate=rate, full_epochs=full).with_recipe(self.study)
        rung = rung_of(study, lambda _accuracy: True) if fidelity == "short" else None
        trainer = Trainer(
            Ledger(self.archive, scope=_scope(rate, epochs), keep=self.keep),
            build=lambda: self.build().under(study),
            predict=self.predict,
            on_progress=self.observer.on_progress,
            colleagues=self.colleagues,
        )
        return trainer, {"read_validation": fidelity == "full", "rung": rung}

    def _attempt(
        self,
        rate: float,
        epochs: float,
        fidelity: Literal["short", "full"],
        seeds: int,
        *,
        known: int = 0,
    ) -> Attempt:
        """Train the unpruned network with one recipe.

        Args:
            rate: peak learning rate.
            epochs: length of the training.
            fidelity: fidelity of that length.
            seeds: number of seeds.
            known: how many of them were trained and reported before.
        """
        trainer, settings = self._trainer(rate, epochs, fidelity)
        evaluations: list[Evaluation] = []
        for seed_index in range(seeds):
            try:
                one = trainer.score(
                    Candidate(),
                    fidelity=fidelity,
                    seed_index=seed_index,
                    **settings,
                )
            except TrainingError as error:
                if not error.images_trained:  # training couldn't start, whatever the rate
                    raise
                self.observer.on_message(f"unpruned, rate {rate:g}: {error}")
                evaluations.clear()
                break
            evaluations.append(one)
            if seed_index < known:
                continue
            self.meter.done = min(self.meter.done + 1, self.meter.total)
            self.meter.add_time(fidelity, one.wall_seconds)
            self.observer.on_evaluation(
                f"unpruned, rate {rate:g}, {epochs:g} epochs", one.accuracy, self.meter.now
            )
        return Attempt(
            learning_rate=rate,
            epochs=epochs,
            fidelity=fidelity,
            accuracies=tuple(one.accuracy for one in evaluations),
            losses=tuple(one.loss for one in evaluations),
        )

    def _rates(self) -> tuple[float, ...]:
        """Learning rates to try, ascending: the ladder, and every rate of the joint space."""
        own, joint = self.study.training.learning_rate, self.study.space.joint
        ladder = (own * factor for factor in self.study.reference.learning_rates)
        listed: Iterator[float] = iter(joint.listed_rates if joint else ())
        return tuple(sorted({_rounded(rate) for rate in (*ladder, *listed)}))

    def _lengths(self) -> tuple[float, ...]:
        """Lengths to try in epochs, ascending; none shorter than the short fine-tuning."""
        proxy = self.study.proxy
        lengths = (factor * proxy.full_epochs for factor in self.study.reference.epochs)
        return tuple(sorted({max(one, proxy.short_epochs) for one in lengths}))


def _rounded(rate: float) -> float:
    return float(f"{rate:.{_ROUNDED}g}")


def scopes_of(tuning: Tuning, study: Study) -> Mapping[Fidelity, str]:
    """Return the ledger's scopes of the trainings with the tuned recipe; empty if none was tuned.

    Args:
        tuning: the tuned recipe.
        study: the study, which determines the length of short fine-tunings.
    """
    if not tuning.attempts:
        return {}
    lengths: dict[Fidelity, float] = {
        "short": study.proxy.short_epochs,
        "full": tuning.full_epochs,
    }
    return {name: _scope(tuning.learning_rate, epochs) for name, epochs in lengths.items()}


def _scope(rate: float, epochs: float) -> str:
    """Return the ledger's prefix of trainings with a recipe that is tried."""
    return f"reference:{rate:g}:{epochs:g}:"


def read_tuning(archive: optuna.Study) -> Tuning | None:
    """Return the tuned recipe; None if the study's own is used.

    Raises:
        RunError: if the stored recipe is damaged.
    """
    stored = archive.user_attrs.get(REFERENCE)
    return None if stored is None else Tuning.from_json(stored, source=REFERENCE)
