"""Draws trials with a sampler whose seed and target depend on the number of the draw alone."""

from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from dse.results.trials import drawn, draws_before, settled


class DrawSampler(BaseSampler):
    """Delegates each trial to a sampler made for its draw.

    The number of a draw counts the draws before it, also those that other workers still train. So
    workers that draw at once have draws of their own, and a resumed run draws as the uninterrupted
    one would have.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        """Initialise the sampler.

        Args:
            make: makes the sampler of one draw from the draw's number.
        """
        self._make = make
        self._made: tuple[int, int, BaseSampler] | None = None  # of which trial and draw
        self._settled = 0  # trials at the start that are all settled, and will stay so
        self._drawn = 0  # how many of them were drawn

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the distributions that the draw's sampler draws together."""
        return self._of(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw parameters together."""
        return self._of(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a single parameter."""
        own = self._of(study, trial)
        return own.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Prepare the draw."""
        self._of(study, trial).before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: optuna.trial.TrialState,
        values: Any,
    ) -> None:
        """Clean up after the draw."""
        self._of(study, trial).after_trial(study, trial, state, values)

    def draw_of(self, study: optuna.Study, number: int) -> int:
        """Return which draw a trial is.

        Args:
            study: the Optuna study.
            number: number of the trial; the sampler keeps the draw of the newest one alone.
        """
        return self._made_for(study, number)[0]

    def _of(self, study: optuna.Study, trial: FrozenTrial) -> BaseSampler:
        return self._made_for(study, trial.number)[1]

    def _made_for(self, study: optuna.Study, number: int) -> tuple[int, BaseSampler]:
        """Return the draw and the sampler of a trial."""
        if self._made is None or self._made[0] != number:
            draw = self._draws_before(study.get_trials(deepcopy=False), number)
            self._made = (number, draw, self._make(draw))
        return self._made[1:]

    def _draws_before(self, trials: list[FrozenTrial], number: int) -> int:
        """Count the draws below a number, looking once only at trials that are settled.

        Args:
            trials: all trials of the study, by number.
            number: number of the trial that is drawn.
        """
        for trial in trials[self._settled : number]:
            if not settled(trial):
                break
            self._settled += 1
            self._drawn += drawn(trial)
        return self._drawn + draws_before(trials[self._settled :], number)
