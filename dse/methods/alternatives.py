"""The alternatives that each baseline method offers for a study: pruned or with another recipe."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from dse import names
from dse.candidate import Candidate
from dse.config import Study
from dse.data import inputs_of
from dse.errors import ConfigError, NetworkError
from dse.memory.model import MemoryModel
from dse.methods.candidates import greedy_within, random_candidates, uniform_label
from dse.methods.greedy import Trajectory, limits_of, peak_greedy
from dse.names import dropped
from dse.networks.copies import copied
from dse.pruning.depth import find_depth, stages_of
from dse.registry import Registry
from dse.sampling.depth import usual_sets
from dse.sampling.joint import cannot_run, equal_parts, smaller_sizes
from dse.sampling.search_space import SearchSpace
from dse.step.checkpointing import block_names, trained_blocks
from dse.step.schemes import prepare_scheme
from dse.units import format_size

CURVE_POINTS = 9
RANDOM_DRAWS = 8
RANDOM_DRAWS_IN_RUN = 3
IMAGE_SHARES = (7 / 8, 3 / 4, 5 / 8, 1 / 2)
PARTS = (2, 4, 8)  # numbers of micro-batches that a batch is split into


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One way to train in less memory without a search.

    Attributes:
        method: the method that offers it.
        label: label in tables.
        candidate: channels to keep, and changes to the study's recipe.
        ratio: pruning ratio that all groups share, from 0 to 1; None if there is no such ratio.
    """

    method: str
    label: str
    candidate: Candidate
    ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The study that methods are applied to.

    Attributes:
        study: the study, with its budgets in bytes.
        network: the unpruned network without weights; only its shapes matter.
        space: search space, which limits how far each group may be pruned.
        model: memory model of the study's own training step.
        beyond_tensors_bytes: part of each budget that is not available to tensors.
    """

    study: Study
    network: nn.Module
    space: SearchSpace
    model: MemoryModel
    beyond_tensors_bytes: int = 0


Offer = Callable[[Subject], Iterator[Alternative]]


@dataclass(frozen=True, kw_only=True)
class MethodKind:
    """Registry entry of a baseline method.

    Attributes:
        offer: yields the method's alternatives for a study, the least invasive first; all of them
            are evaluated by `dse baseline`.
        offer_in_run: yields the alternatives that a run may score; None for those of `offer`.
        most_in_run: maximum number of them that a run scores, evenly spaced; None for all.
    """

    offer: Offer
    offer_in_run: Offer | None = None
    most_in_run: int | None = None


METHODS: Registry[MethodKind] = Registry("baseline method", names.BASELINE_METHODS)
"""The baseline methods; `dse.names.BASELINE_METHODS` describes them."""


def alternatives(method: str, subject: Subject) -> tuple[Alternative, ...]:
    """Return the alternatives of a method for a study, the least invasive first.

    Raises:
        ConfigError: if the method is unknown, or doesn't apply to the study's settings.
        NetworkError: if the network lacks what the method needs, such as blocks to freeze.
    """
    return tuple(METHODS[method].offer(subject))


def alternatives_in_run(method: str, subject: Subject) -> tuple[Alternative, ...]:
    """Return the alternatives of a method that a run of a study scores.

    Raises:
        ConfigError: if the method is unknown, or doesn't apply to the study's settings.
        NetworkError: if the network lacks what the method needs, such as blocks to freeze.
    """
    kind = METHODS[method]
    offered = tuple((kind.offer_in_run or kind.offer)(subject))
    return offered if kind.most_in_run is None else _evenly_spaced(offered, kind.most_in_run)


def _evenly_spaced(offered: tuple[Alternative, ...], count: int) -> tuple[Alternative, ...]:
    """Return at most `count` alternatives, the last one included."""
    count = min(count, len(offered))
    return tuple(offered[-(-(place + 1) * len(offered) // count) - 1] for place in range(count))


def greedy_for_budgets(subject: Subject) -> tuple[Trajectory, dict[int, Candidate]]:
    """Follow the greedy rule on a study's network, and find its first network within each budget.

    Returns:
        The whole trajectory, and candidates by budget in bytes, largest budget first; budgets that
        need no pruning, or can't be reached, are left out.
    """
    search, beyond = subject.study.search, subject.beyond_tensors_bytes
    trajectory = peak_greedy(
        subject.model,
        batch_size=subject.study.training.batch_size,
        limits=limits_of(subject.space.choices),
    )
    for_tensors = [budget - beyond for budget in sorted(search.budget_bytes, reverse=True)]
    found = greedy_within(trajectory, subject.model, for_tensors)
    return trajectory, {budget + beyond: candidate for budget, candidate in found.items()}


def _peak_greedy(subject: Subject) -> Iterator[Alternative]:
    trajectory, within = greedy_for_budgets(subject)
    offered: dict[Candidate, str] = {}
    for budget, candidate in within.items():
        offered.setdefault(candidate, f"peak-greedy, {format_size(budget)}")
    corners = trajectory.corners
    logs = np.log(trajectory.peak_bytes[corners].astype(np.float64))
    for share in np.linspace(0, 1, CURVE_POINTS)[1:].tolist():
        nearest = int(np.abs(logs - (logs[0] + share * (logs[-1] - logs[0]))).argmin())
        kept = trajectory.channels[corners[nearest]].tolist()
        size = format_size(int(trajectory.peak_bytes[corners[nearest]]))
        candidate = Candidate.from_kept(subject.model.groups, kept)
        offered.setdefault(candidate, f"peak-greedy to {size}")
    for candidate, label in sorted(offered.items(), key=lambda one: -_peak(subject, one[0])):
        yield Alternative(method="peak-greedy", label=label, candidate=candidate)


def _peak_greedy_in_run(subject: Subject) -> Iterator[Alternative]:
    """Yield the first network of the greedy rule that fits each budget, largest budget first."""
    _, within = greedy_for_budgets(subject)
    for budget, candidate in within.items():
        label = f"peak-greedy {format_size(budget)}"
        yield Alternative(method="peak-greedy", label=label, candidate=candidate)


def _peak(subject: Subject, candidate: Candidate) -> int:
    channels = candidate.kept(subject.model.groups)
    return int(subject.model.peaks(channels, batch_size=subject.study.training.batch_size))


def _uniform(subject: Subject) -> Iterator[Alternative]:
    for ratio in subject.study.search.uniform_baselines:
        yield Alternative(
            method="uniform",
            label=uniform_label(ratio),
            candidate=subject.space.uniform(ratio),
            ratio=ratio,
        )


def _random(subject: Subject) -> Iterator[Alternative]:
    drawn = random_candidates(subject.space, draws=RANDOM_DRAWS, seed=subject.study.seed)
    for number, candidate in enumerate(sorted(drawn, key=lambda one: -_peak(subject, one)), 1):
        yield Alternative(
            method="random",
            label=f"random ratios {number}",
            candidate=candidate,
        )


def _random_in_run(subject: Subject) -> Iterator[Alternative]:
    drawn = random_candidates(subject.space, draws=RANDOM_DRAWS_IN_RUN, seed=subject.study.seed)
    for number, candidate in enumerate(drawn, 1):
        yield Alternative(method="random", label=f"random {number}", candidate=candidate)


def _depth(subject: Subject) -> Iterator[Alternative]:
    blocks = find_depth(subject.network, inputs_of(subject.study.data).example(2)).blocks
    if not blocks:
        raise NetworkError(
            f"{subject.study.network.name!r} has no residual blocks that can be left out "
            "(dse memory with --explain says why): leave the baseline depth out"
        )
    for drop in usual_sets(stages_of(blocks)):
        count = len(dropped(drop))
        label = f"{count} of {len(blocks)} blocks left out"
        yield Alternative(method="depth", label=label, candidate=Candidate(drop=drop))


def _scheme(scheme: str) -> Callable[[Subject], Iterator[Alternative]]:
    def offer(subject: Subject) -> Iterator[Alternative]:
        example = inputs_of(subject.study.data).example(2)
        prepare_scheme(copied(subject.network), example, scheme)  # fails before anything trains
        yield _changed(subject, method=scheme, label=f"scheme {scheme}", scheme=scheme)

    return offer


def _freeze(subject: Subject) -> Iterator[Alternative]:
    block_names(subject.network)  # raises NetworkError if the network has no blocks
    for name in trained_blocks(subject.network):
        yield _changed(subject, method="freeze", label=f"from:{name}", scheme=f"from:{name}")


def _image_size(subject: Subject) -> Iterator[Alternative]:
    own = subject.study.data.image_size
    sizes = smaller_sizes(own, IMAGE_SHARES)
    channels, *_ = shape = subject.study.data.image_shape
    if inputs_of(subject.study.data).shape != shape or not subject.study.data.resizable:
        raise NetworkError(
            "the baseline image-size needs square images that no transform gives a size: leave it "
            "out"
        )
    troubles = {size: cannot_run(subject.network, size, channels=channels) for size in sizes}
    if all(trouble is not None for trouble in troubles.values()):
        raise NetworkError(
            f"{subject.study.network.name!r} runs on no smaller images than {own}x{own}"
            + "".join(f" ({trouble})" for trouble in list(troubles.values())[:1])
        )
    for size in (size for size, trouble in troubles.items() if trouble is None):
        label = f"images of {size}x{size}"
        yield _changed(subject, method="image-size", label=label, image_size=size)


def _micro_batch(subject: Subject) -> Iterator[Alternative]:
    training = subject.study.training
    whole = training.batch_size
    cuts = equal_parts(whole, PARTS)
    if not cuts:
        raise ConfigError(
            f"training.batch_size = {whole} can't be cut into equal parts of more than one image "
            f"(parts tried: {', '.join(map(str, PARTS))})"
        )
    for parts in cuts:
        yield _changed(
            subject,
            method="micro-batch",
            label=f"batches of {whole // parts}, {parts * training.accumulate} accumulated",
            batch_size=whole // parts,
            accumulate=parts * training.accumulate,
        )


def _checkpointing(subject: Subject) -> Iterator[Alternative]:
    block_names(subject.network)  # raises NetworkError if the network has no blocks
    yield _changed(
        subject, method="checkpointing", label="checkpointing by block", checkpointing="blocks"
    )


def _lean(subject: Subject) -> Iterator[Alternative]:
    yield _changed(subject, method="lean", label="lean", engine="lean")
    yield _changed(subject, method="lean", label="lean, least memory", engine="lean:least")


def _changed(subject: Subject, *, method: str, label: str, **changes: Any) -> Alternative:
    """Return the unpruned network under a changed recipe, without values equal to the study's."""
    study = subject.study
    own = {**study.data.model_dump(), **study.training.model_dump()}
    fields = {key: value for key, value in changes.items() if own[key] != value}
    return Alternative(method=method, label=label, candidate=Candidate(**fields))


METHODS.register("peak-greedy", MethodKind(offer=_peak_greedy, offer_in_run=_peak_greedy_in_run))
METHODS.register("uniform", MethodKind(offer=_uniform))
METHODS.register("random", MethodKind(offer=_random, offer_in_run=_random_in_run))
METHODS.register("depth", MethodKind(offer=_depth, most_in_run=2))
for _name in ("last", "norm", "bias", "lite-residual"):
    METHODS.register(_name, MethodKind(offer=_scheme(_name)))
METHODS.register("freeze", MethodKind(offer=_freeze, most_in_run=3))
METHODS.register("image-size", MethodKind(offer=_image_size, most_in_run=2))
METHODS.register("micro-batch", MethodKind(offer=_micro_batch, most_in_run=2))
METHODS.register("checkpointing", MethodKind(offer=_checkpointing))
METHODS.register("lean", MethodKind(offer=_lean))
