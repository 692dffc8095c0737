"""The default sampler: wraps `dse.sampling.propose` in Optuna's sampler interface."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from dse.candidate import Candidate
from dse.config import SearchConfig
from dse.results.trials import (
    ACCURACY,
    ADMITTED,
    BASELINE,
    CANDIDATE,
    EXPECTED,
    FAILURE,
    PEAK_BYTES,
)
from dse.sampling.blas import one_blas_thread
from dse.sampling.history import History
from dse.sampling.propose import Proposer
from dse.sampling.search_space import SearchSpace
from dse.sampling.warm_start import Row, calibrated

STEERED_BY = ("accuracy", "peak_bytes")


def unsteered(search: SearchConfig) -> str | None:
    """Return a warning if the sampler ignores some of the study's objectives, otherwise None."""
    others = [one for one in search.objectives if one not in STEERED_BY]
    if search.sampler != "front" or not others:
        return None
    return (
        f"search.sampler = 'front' is steered by {' and '.join(STEERED_BY)} alone; "
        f"{', '.join(others)} belong to the front, but don't influence what is drawn"
    )


class Evaluated:
    """The scored candidates of a study, each parsed once however many draws learn from it.

    Baselines come first, then trials in the order in which they ended. A trial stopped at its rung
    has its expected accuracy, and one whose training diverged has chance accuracy.
    """

    def __init__(
        self, space: SearchSpace, *, chance: float, earlier: Iterable[Sequence[Row]] = ()
    ) -> None:
        """Start without candidates.

        Args:
            space: The search space. Candidates with a recipe outside it are left out, since their
                accuracies are not comparable.
            chance: Accuracy of guessing, from 0 to 1.
            earlier: What each of several earlier runs scored.
        """
        self._space = space
        self._chance = chance
        self._earlier_runs = tuple(earlier)
        self._earlier: History | None = None
        self._texts: set[str] = set()
        self._seen: set[int] = set()
        self._first = 0  # number below which all trials have been seen
        self._history: History | None = None

    def update(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> History:
        """Return all scored candidates, including baselines, without repetitions.

        The baselines are read once: all are scored before the first draw.

        Args:
            study: The Optuna study.
            trials: All its trials by number.
        """
        new = []
        if self._history is None:
            new += _baselines(study)
        for trial in trials[self._first :]:
            if trial.state.is_finished() and trial.number not in self._seen:
                self._seen.add(trial.number)
                new += self._scored(trial)
        while self._first in self._seen:
            self._seen.remove(self._first)
            self._first += 1
        rows = []
        for text, peak_bytes, accuracy in new:
            if text not in self._texts:
                self._texts.add(text)
                rows.append((text, peak_bytes, accuracy))
        known = history_of(rows, self._space)
        if self._history is not None:
            known = self._history.joined(known)
        elif self._earlier_runs:  # the baselines tell what their accuracies mean here
            accuracies = {text: accuracy for text, _, accuracy in rows}
            found = [row for run in self._earlier_runs for row in calibrated(run, accuracies)]
            self._earlier = history_of(found, self._space)
        self._history = known
        return known

    @property
    def earlier(self) -> History | None:
        """What earlier runs found, on this run's scale; None without any, or before an update."""
        return self._earlier

    def _scored(self, trial: FrozenTrial) -> list[tuple[str, int, float]]:
        written = trial.user_attrs
        accuracy = written.get(ACCURACY, written.get(EXPECTED))
        if written.get(FAILURE) == "training":
            accuracy = self._chance
        if CANDIDATE not in written or accuracy is None:
            return []
        return [(written[CANDIDATE], written[PEAK_BYTES], accuracy)]


def history_of(rows: Iterable[tuple[str, int, float]], space: SearchSpace) -> History:
    """Parse candidates; those whose recipe lies outside the space are left out.

    Args:
        rows: Candidate (JSON), peak bytes and accuracy of each.
        space: The search space.
    """
    found = []
    for text, peak_bytes, accuracy in rows:
        candidate = Candidate.from_json(text)
        recipe = space.recipe_number(candidate)
        if recipe is not None:
            kept, shifts = candidate.kept(space.choices), space.shifts(candidate)
            found.append((kept, peak_bytes, accuracy, recipe, shifts))
    groups = len(space.choices)
    return History(
        kept=np.array([row[0] for row in found], dtype=np.int64).reshape(-1, groups),
        peaks=np.array([row[1] for row in found], dtype=np.int64),
        accuracies=np.array([row[2] for row in found], dtype=np.float64),
        recipes=np.array([row[3] for row in found], dtype=np.int64),
        shifts=np.array([row[4] for row in found]).reshape(len(found), len(space.ranges)),
    )


def _baselines(study: optuna.Study) -> list[tuple[str, int, float]]:
    """Return candidate (JSON), peak bytes and accuracy of every scored baseline."""
    found = []
    for key, value in sorted(study.user_attrs.items()):
        if key.startswith(BASELINE) and isinstance(value, Mapping):
            candidate = Candidate.model_validate(value["candidate"])
            found.append((candidate.canonical_json(), value["peak_bytes"], value["accuracy"]))
    return found


class FrontSampler(BaseSampler):
    """Draws the candidate with the largest expected gain of hypervolume.

    It computes the memory of its proposals, and scales and relaxes them itself. A study that uses
    it therefore evaluates the drawn ratios without further changes.
    """

    def __init__(
        self,
        proposer: Proposer,
        space: SearchSpace,
        *,
        target_bytes: int | None,
        seed: int,
        evaluated: Evaluated | None = None,
    ) -> None:
        """Initialise the sampler for one draw.

        Args:
            proposer: Proposes candidates.
            space: The search space.
            target_bytes: Peak memory to aim at. If None, the proposer chooses.
            seed: Seed of this draw.
            evaluated: The study's scored candidates, if earlier draws have read them.
        """
        self._evaluated = evaluated or Evaluated(space, chance=proposer.chance)
        self._proposer = proposer
        self._space = space
        self._target_bytes = target_bytes
        self._rng = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002  # the space is fixed, whatever was drawn before
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """Return the distributions of all parameters of the space."""
        return dict(self._space.distributions)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Draw one candidate."""
        trials = study.get_trials(deepcopy=False)
        history = self._evaluated.update(study, trials)
        with one_blas_thread():
            proposal = self._proposer.propose(
                history,
                target_bytes=self._target_bytes,
                rng=self._rng,
                pending=self._pending(trials),
                earlier=self._evaluated.earlier,
            )
        return dict(
            self._space.parameters(proposal.kept, recipe=proposal.recipe, shifts=proposal.shifts)
        )

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter outside the space at random."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _pending(self, trials: Sequence[FrozenTrial]) -> History:
        """Collect the candidates that are being trained."""
        rows = [
            (one.user_attrs[ADMITTED], one.user_attrs.get(PEAK_BYTES, 1), 0.0)
            for one in trials
            if not one.state.is_finished() and ADMITTED in one.user_attrs
        ]
        return history_of(rows, self._space)
