"""The default sampler: wraps `dse.sampling.propose` in Optuna's sampler interface."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from dse.candidate import Candidate
from dse.config import SearchConfig
from dse.results.trials import ACCURACY, BASELINE, CANDIDATE, EXPECTED, FAILURE, PEAK_BYTES
from dse.sampling.blas import one_blas_thread
from dse.sampling.propose import History, Proposer
from dse.sampling.search_space import SearchSpace

STEERED_BY = ("accuracy", "peak_bytes")


def unsteered(search: SearchConfig) -> str | None:
    """Return a warning if the sampler ignores some of the study's objectives, otherwise None."""
    others = [one for one in search.objectives if one not in STEERED_BY]
    if search.sampler != "front" or not others:
        return None
    return (
        f"search.sampler = 'front' is steered by {' and '.join(STEERED_BY)} alone; "
        f"{', '.join(others)} count in the front, but nothing is drawn for their sake"
    )


class FrontSampler(BaseSampler):
    """Draws the candidate with the largest expected gain of hypervolume.

    It computes the memory of its proposals, and scales and relaxes them itself. A study that uses
    it therefore evaluates the drawn ratios without further changes.
    """

    def __init__(
        self, proposer: Proposer, space: SearchSpace, *, target_bytes: int | None, seed: int
    ) -> None:
        """Initialise the sampler for one draw.

        Args:
            proposer: Proposes candidates.
            space: The search space.
            target_bytes: Peak memory to aim at. If None, the proposer chooses.
            seed: Seed of this draw.
        """
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
        history = self._history(study)
        with one_blas_thread():
            kept, recipe = self._proposer.propose(
                history, target_bytes=self._target_bytes, rng=self._rng
            )
        return dict(self._space.parameters(kept, recipe=recipe))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter outside the space at random."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _history(self, study: optuna.Study) -> History:
        """Collect the scored candidates, including baselines, without repetitions."""
        scored: dict[str, tuple[tuple[int, ...], int, float, int]] = {}
        for text, peak_bytes, accuracy in _scored(study, chance=self._proposer.chance):
            candidate = Candidate.from_json(text)
            recipe = self._space.recipe_number(candidate)
            if recipe is None:
                continue  # its recipe is outside the space, so its accuracy is not comparable
            kept = candidate.kept(self._space.choices)
            scored.setdefault(text, (kept, peak_bytes, accuracy, recipe))
        rows = list(scored.values())
        groups = len(self._space.choices)
        return History(
            kept=np.array([row[0] for row in rows], dtype=np.int64).reshape(-1, groups),
            peaks=np.array([row[1] for row in rows], dtype=np.int64),
            accuracies=np.array([row[2] for row in rows], dtype=np.float64),
            recipes=np.array([row[3] for row in rows], dtype=np.int64),
        )


def _scored(study: optuna.Study, *, chance: float) -> list[tuple[str, int, float]]:
    """Return candidate (JSON), peak bytes and accuracy of every scored baseline and trial.

    Baselines come first, then trials by number. A trial stopped at its rung has its expected
    accuracy, and one whose training diverged has chance accuracy.
    """
    found = []
    for key, value in sorted(study.user_attrs.items()):
        if key.startswith(BASELINE) and isinstance(value, Mapping):
            candidate = Candidate.model_validate(value["candidate"])
            found.append((candidate.canonical_json(), value["peak_bytes"], value["accuracy"]))
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    for trial in study.get_trials(deepcopy=False, states=ended):
        written = trial.user_attrs
        accuracy = written.get(ACCURACY, written.get(EXPECTED))
        if written.get(FAILURE) == "training":
            accuracy = chance
        if CANDIDATE in written and accuracy is not None:
            found.append((written[CANDIDATE], written[PEAK_BYTES], accuracy))
    return found
