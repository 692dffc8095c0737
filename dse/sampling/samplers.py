"""Build the Optuna samplers that a study may name, always with an explicit seed.

The default, "front", is not among them: `dse.sampling.front_sampler` builds it from a proposer.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from dse import names
from dse.digests import derived_seed
from dse.registry import Registry

MakeSampler = Callable[[int, int], BaseSampler]
"""Builds a sampler from the study's seed and the seed of one draw."""

SAMPLERS: Registry[MakeSampler] = Registry("sampler", names.SAMPLERS)

# Optuna's default of 50 would spend most searches of this package (tens of trials) on the random
# first generation.
POPULATION = 20


def make_sampler(name: str, *, seed: int, draw: int, shared: bool = False) -> BaseSampler:
    """Build an Optuna sampler for one draw.

    A sampler keeps no state between draws, since it learns from the storage. A new sampler whose
    seed depends only on the draw's number therefore makes a resumed run draw as the uninterrupted
    run would have.

    Args:
        name: Name of the sampler, as in the study's `search.sampler`.
        seed: Seed of the study.
        draw: Number of draws settled before this one.
        shared: Whether other workers may train at the same time.

    Raises:
        ConfigError: If the name is unknown.
    """
    if shared and name == "tpe":
        return _tpe(seed, mixed(seed, draw), constant_liar=True)
    return SAMPLERS[name](seed, mixed(seed, draw))


def mixed(seed: int, draw: int) -> int:
    """Mix the study's seed and a draw's number into a seed below 2**32."""
    return derived_seed("sampler", seed, draw)


def _tpe(_seed: int, draw_seed: int, *, constant_liar: bool = False) -> BaseSampler:
    # Multivariate: ratios that are good together are drawn together (wide with wide), and a draw
    # fits one model instead of one per channel group.
    # A constant liar takes what other workers train for bad, so that draws keep away from it.
    with _experimental_allowed():
        return TPESampler(seed=draw_seed, multivariate=True, constant_liar=constant_liar)


def _nsga2(_seed: int, draw_seed: int) -> BaseSampler:
    return NSGAIISampler(seed=draw_seed, population_size=POPULATION)


def _nsga3(_seed: int, draw_seed: int) -> BaseSampler:
    with _experimental_allowed():
        return NSGAIIISampler(seed=draw_seed, population_size=POPULATION)


def _gp(_seed: int, draw_seed: int) -> BaseSampler:
    return GPSampler(seed=draw_seed)


def _qmc(seed: int, draw_seed: int) -> BaseSampler:
    # All draws share one sequence. The storage counts how far it has advanced.
    with _experimental_allowed():
        return QMCSampler(
            scramble=True,
            seed=seed,
            independent_sampler=RandomSampler(seed=draw_seed),
            warn_independent_sampling=False,
        )


def _random(_seed: int, draw_seed: int) -> BaseSampler:
    return RandomSampler(seed=draw_seed)


@contextmanager
def _experimental_allowed() -> Iterator[None]:
    """Silence Optuna's warning that a sampler is experimental.

    QMC has been experimental since Optuna 3.0 and NSGA-III since 3.2; both are unchanged in 5.0
    (checked 2026-11). Only their constructors may change, and these are called only here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


SAMPLERS.register("tpe", _tpe)
SAMPLERS.register("nsga2", _nsga2)
SAMPLERS.register("nsga3", _nsga3)
SAMPLERS.register("gp", _gp)
SAMPLERS.register("qmc", _qmc)
SAMPLERS.register("random", _random)
