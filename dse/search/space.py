"""From what a sampler draws to a candidate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import optuna

from dse.candidate import Candidate, kept_channels
from dse.config import GroupChoice, SpaceConfig, resolve_space
from dse.config.space import NamedGroup
from dse.errors import ConfigError

RATIO = "ratio:"


@dataclass(frozen=True)
class SearchSpace:
    """What may vary: for now a pruning ratio for each free channel group.

    Attributes:
        choices: one for each channel group, in execution order.
    """

    choices: tuple[GroupChoice, ...]

    @classmethod
    def resolve(cls, config: SpaceConfig, groups: Sequence[NamedGroup]) -> "SearchSpace":
        """Apply a search space's rules to the channel groups of a network.

        Raises:
            ConfigError: if a pattern matches no group, or nothing is left to vary.
        """
        space = cls(resolve_space(config, groups))
        if not space.free:
            raise ConfigError(
                f"search space {config.name!r} fixes all {len(space.choices)} channel groups, so "
                "there is nothing to search; widen space.ratio or lower space.floor"
            )
        return space

    @cached_property
    def free(self) -> tuple[GroupChoice, ...]:
        """The groups whose ratio is searched over."""
        return tuple(choice for choice in self.choices if choice.fixed is None)

    @cached_property
    def ladders(self) -> tuple[tuple[int, ...], ...]:
        """The counts that each group may keep, rising; a single one where it is fixed."""
        return tuple(map(_ladder, self.choices))

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all parameters that a draw sets."""
        return frozenset(RATIO + choice.name for choice in self.free)

    def draw(self, trial: optuna.Trial) -> dict[str, float]:
        """Let the sampler choose a ratio for each free group: parameter name to ratio."""
        return {
            RATIO + choice.name: trial.suggest_float(RATIO + choice.name, choice.low, choice.high)
            for choice in self.free
        }

    def candidate(self, drawn: Mapping[str, float]) -> Candidate:
        """Round drawn ratios to whole channels, within each group's multiple and floor."""
        return self._candidate([drawn.get(RATIO + choice.name) for choice in self.choices])

    def uniform(self, ratio: float) -> Candidate:
        """Prune every free group by one ratio, inside or outside its range."""
        return self._candidate([ratio] * len(self.choices))

    def smallest(self) -> Candidate:
        """Prune every group as far as the space allows."""
        return self._candidate([choice.high for choice in self.choices])

    def shares(self, drawn: Mapping[str, float]) -> tuple[float, ...]:
        """Return the share of its channels that each group keeps by a draw, before rounding."""
        return tuple(
            1 - (drawn[RATIO + choice.name] if choice.fixed is None else choice.fixed)
            for choice in self.choices
        )

    def ratios(self, kept: Sequence[int]) -> dict[str, float]:
        """Return a draw that is rounded to these channels: parameter name to ratio.

        Args:
            kept: channels of each group, on its ladder.
        """
        return {
            RATIO + choice.name: min(choice.high, max(choice.low, 1 - count / choice.channels))
            for choice, count in zip(self.choices, kept, strict=True)
            if choice.fixed is None
        }

    def _candidate(self, ratios: Sequence[float | None]) -> Candidate:
        kept = [
            kept_channels(
                choice.channels,
                choice.fixed if choice.fixed is not None else ratio or 0.0,
                multiple=choice.multiple,
                floor=choice.floor,
            )
            for choice, ratio in zip(self.choices, ratios, strict=True)
        ]
        return Candidate.from_kept(self.choices, kept)


def _ladder(choice: GroupChoice) -> tuple[int, ...]:
    fewest, most = (
        kept_channels(choice.channels, ratio, multiple=choice.multiple, floor=choice.floor)
        for ratio in (choice.high, choice.low)
    )
    between = range((fewest // choice.multiple + 1) * choice.multiple, most, choice.multiple)
    return (fewest, *between, most) if fewest < most else (fewest,)
