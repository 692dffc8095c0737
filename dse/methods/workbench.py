"""A study's channel groups, search space and memory models, each built when first needed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dse.candidate import Candidate, with_recipe
from dse.config import Study
from dse.config.space import LimitedGroup
from dse.data import inputs_of, transforms_of
from dse.engines.engine import study_plan, takes_plans
from dse.engines.network import run_by
from dse.errors import DataError, DseError, MemoryModelError
from dse.memory.cache import compiled_model
from dse.memory.model import MemoryModel
from dse.memory.trace import check_single_image
from dse.names import Mode
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.depth import stages_of
from dse.pruning.groups import Survey, survey_channels
from dse.pruning.shorten import Shortener
from dse.sampling.depth import depth_choice
from dse.sampling.joint import JointChoice, joint_choices, joint_ranges
from dse.sampling.search_space import SearchSpace
from dse.step.settings import StepSettings
from dse.tasks.task import step_task

# Steps are traced with two images because batch norm can't train on a single 1x1 map.
_TRACED_BATCH = 2

# Fields of a recipe that no memory model depends on, and those that a model of inference doesn't.
_FREE = ("batch_size", "learning_rate", "length", "importance", "reconstruct")
_OF_TRAINING = ("optimizer", "accumulate", "checkpointing", "engine")

_OWN = Candidate()  # stands for the study's own recipe


class ModelStore(Protocol):
    """Keeps compiled memory models, such as in a run folder."""

    def load(self, recipe: Candidate, mode: Mode) -> MemoryModel | None:
        """Return a recipe's stored model; None if there is none that can be used."""

    def save(self, recipe: Candidate, mode: Mode, model: MemoryModel) -> None:
        """Store a recipe's model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Workbench:
    """What is known about a study before anything is trained.

    Attributes:
        study: the study.
        network: the unpruned network without weights; only its shapes matter.
        classes: number of its outputs.
        store: where compiled memory models are kept beside the cache; None for nowhere.
    """

    study: Study
    network: nn.Module
    classes: int
    store: ModelStore | None = None

    @cached_property
    def example(self) -> Tensor:
        """Input that the network is traced with: (2, 3, size, size)."""
        return inputs_of(self.study.data).example(_TRACED_BATCH)

    @cached_property
    def survey(self) -> Survey:
        """The network's channels that can be pruned, and why others can't be."""
        return survey_channels(self.network, self.example)

    @cached_property
    def shortener(self) -> Shortener:
        """Leaves blocks out of the network."""
        return Shortener(self.network, self.example)

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The network's channel groups."""
        return self.survey.groups

    @cached_property
    def space(self) -> SearchSpace:
        """The search space; see `space_of`."""
        groups = self.model().groups
        depth = depth_choice(
            self.study.space.joint,
            stages=lambda: stages_of(self.shortener.depth.blocks),
            vanishing=lambda drop: self.shortener.vanishing(self.groups, drop),
        )
        return space_of(self.study, self.network, groups, depth=depth)

    def model(self, candidate: Candidate = _OWN, mode: Mode = "training") -> MemoryModel:
        """Return the memory model of a candidate's recipe; each is compiled once.

        Raises:
            DseError: if it can't be compiled; the message names how the recipe differs from the
                study.
        """
        key = (memory_recipe(candidate, mode), mode)
        if key not in self._models:
            self._models[key] = self._stored(*key)
        return self._models[key]

    @cached_property
    def _models(self) -> dict[tuple[Candidate, Mode], MemoryModel]:
        return {}

    def _stored(self, recipe: Candidate, mode: Mode) -> MemoryModel:
        if self.store is None:
            return self._compiled(recipe, mode)
        model = self.store.load(recipe, mode)
        if model is None:
            model = self._compiled(recipe, mode)
            self.store.save(recipe, mode, model)
        return model

    def _compiled(self, recipe: Candidate, mode: Mode) -> MemoryModel:
        own = with_recipe(self.study, recipe)
        settings = replace(StepSettings.of(own.training), mode=mode)
        inputs = inputs_of(own.data)
        example = inputs.example(_TRACED_BATCH)
        try:
            loss = step_task(own, outputs=self.classes, inputs=inputs).loss
            whole = self.shortener.shortened(recipe.drop)
            groups = self.shortener.groups(self.groups, recipe.drop)
            plan = study_plan(
                whole,
                example,
                settings=settings,
                batch_size=self.study.training.batch_size,
                loss=loss,
            )
            network = run_by(whole, example, plan)
            return compiled_model(network, example, settings=settings, groups=groups, loss=loss)
        except DseError as error:
            if not recipe.recipe_text:
                raise
            place = "baselines" if self.study.space.joint is None else "space.joint"
            raise type(error)(f"{place}, {recipe.recipe_text}: {error}") from error


def memory_recipe(candidate: Candidate, mode: Mode = "training") -> Candidate:
    """Return the part of a candidate's recipe that its memory model depends on.

    The batch size is left out because it is a free dimension of a model. `accumulate` is capped at
    2: from the second micro-batch on, gradients are added into the same buffers.

    Args:
        candidate: a candidate; its channels are ignored.
        mode: mode of the step.
    """
    changes: dict[str, int | None] = dict.fromkeys(_FREE)
    if mode == "inference":
        changes |= dict.fromkeys(_OF_TRAINING)
    elif candidate.accumulate is not None:
        changes["accumulate"] = min(candidate.accumulate, 2)
    return candidate.recipe.model_copy(update=changes)


def step_numbers(recipes: Sequence[Candidate]) -> NDArray[np.int64]:
    """Return numbers, (recipes,), that recipes share if they share a memory model of training."""
    numbers: dict[Candidate, int] = {}
    return np.array([numbers.setdefault(memory_recipe(one), len(numbers)) for one in recipes])


def space_of(
    study: Study,
    network: nn.Module,
    groups: Sequence[LimitedGroup],
    *,
    depth: tuple[JointChoice, ...] = (),
) -> SearchSpace:
    """Build a study's search space.

    Args:
        study: the study.
        network: the unpruned network; it is run on images of the study's size.
        groups: channel groups of the network.
        depth: the dimension that leaves blocks out, if there is one.

    Raises:
        DseError: if a key of `space` names something that the network doesn't have, or batches of
            one image are requested on which batch norm can't train.
    """
    example = inputs_of(study.data).example(_TRACED_BATCH)
    choices = joint_choices(
        study, network, example=example, takes_plans=lambda: takes_plans(network, example)
    )
    space = SearchSpace.resolve(
        study.space,
        groups,
        joint=(*choices, *depth),
        ranges=joint_ranges(study),
    )
    _check_single_images(study, network, space)
    _check_transforms(study, space)
    return space


def _check_transforms(study: Study, space: SearchSpace) -> None:
    """Check up front that the study's transforms run on images of every size in the space.

    Raises:
        DataError: if one doesn't; the message names the size.
    """
    sizes = {recipe.image_size for recipe in space.recipes if recipe.image_size is not None}
    for side in sorted(sizes - {study.data.image_size}):
        data = study.data.model_copy(update={"image_size": side})
        try:
            transforms_of(data, inputs_of(data), task=study.task)
        except DataError as error:
            raise DataError(
                f"on images of {side}x{side} px, which the search varies, {error}; or set "
                "space.joint.fixed_images = true"
            ) from error


def _check_single_images(study: Study, network: nn.Module, space: SearchSpace) -> None:
    """Check up front that batch norm can train on every batch of one image in the space.

    Raises:
        MemoryModelError: if batch norm can't train under some recipe; the message names the key.
    """
    alone = {
        (recipe.scheme or study.training.scheme, recipe.image_size or study.data.image_size): recipe
        for recipe in space.recipes
        if (recipe.batch_size or study.training.batch_size) == 1
    }
    for (scheme, side), recipe in alone.items():
        try:
            example = inputs_of(with_recipe(study, recipe).data).example(_TRACED_BATCH)
            check_single_image(network, example, scheme=scheme)
        except MemoryModelError as error:
            place = "space.joint.batch_size" if recipe.batch_size else "training.batch_size"
            raise MemoryModelError(
                f"{place} holds 1, and under scheme {scheme} on {side}x{side} px {error}"
            ) from error
