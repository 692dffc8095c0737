"""Optuna's samplers that a study may name, always built explicitly and always seeded.

The default, "front", isn't among them: it is built from a proposer (`dse.sampling.front_sampler`).
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

# Optuna's 50 would spend most searches of this package (tens of trials) on the random first
# generation.
POPULATION = 20


def make_sampler(name: str, *, seed: int, draw: int) -> BaseSampler:
    """Build an Optuna sampler for one draw.

    A sampler keeps no state of its own between draws (what it learns from lies in the storage), so
    a fresh one whose seed follows from the draw's number gives a continued run the draws that the
    uninterrupted one would have made.

    Args:
        name: as in the study's `search.sampler`.
        seed: the study's.
        draw: how many draws were settled before this one.

    Raises:
        ConfigError: if the name is unknown.
    """
    return SAMPLERS[name](seed, mixed(seed, draw))


def mixed(seed: int, draw: int) -> int:
    """Mix the study's seed and a draw's number into a seed below 2**32."""
    return derived_seed("sampler", seed, draw)


def _tpe(_seed: int, draw_seed: int) -> BaseSampler:
    # Drawing all ratios together keeps what belongs together on the front (wide with wide), and
    # costs one model per draw in place of one per channel group.
    return TPESampler(seed=draw_seed, multivariate=True, constant_liar=False)


def _nsga2(_seed: int, draw_seed: int) -> BaseSampler:
    return NSGAIISampler(seed=draw_seed, population_size=POPULATION)


def _nsga3(_seed: int, draw_seed: int) -> BaseSampler:
    with _experimental_allowed():
        return NSGAIIISampler(seed=draw_seed, population_size=POPULATION)


def _gp(_seed: int, draw_seed: int) -> BaseSampler:
    return GPSampler(seed=draw_seed)


def _qmc(seed: int, draw_seed: int) -> BaseSampler:
    # The sequence is one for the whole study; the storage counts how far it has gone.
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
    """Build a sampler that Optuna calls experimental, without its warning.

    QMC has been so since Optuna 3.0, NSGA-III since 3.2, both unchanged in 5.0 (seen 2026-11): only
    their constructors may change, which are called here alone.
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
