"""A run's Optuna study, and what is stored in it before the first trial."""

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from dse.config import Study
from dse.measures import objective_title
from dse.results.front import maximised
from dse.results.varied import varied_to_json
from dse.sampling.search_space import SearchSpace
from dse.search.run_file import RunFile

FRAME = "frame"
"""Study attribute with what is known before the first trial: groups, reference, extreme peaks."""

CLASSES = "classes"
"""Key in the frame: the number of the network's outputs."""

CONVENTION = "convention"
"""Key in the frame: the convention by which peaks are counted."""

WORTHLESS = "worthless"
"""Key in the frame: value of the metric that is worth nothing, if the data determine it."""

JOINT = "joint"
"""Key in the frame: the values of each part of the recipe that varies."""


def open_archive(study: Study, file: RunFile, storage: BaseStorage) -> optuna.Study:
    """Create a run's Optuna study, or load it if it exists.

    Args:
        study: the study, which determines objectives and seed.
        file: the content of `run.json`.
        storage: the storage that holds the Optuna study.
    """
    search = study.search
    archive = optuna.create_study(
        study_name=file.study_name,
        storage=storage,
        sampler=RandomSampler(seed=study.seed),  # replaced before every draw
        directions=[
            StudyDirection.MAXIMIZE if more_is_better else StudyDirection.MINIMIZE
            for more_is_better in maximised(search.objectives)
        ],
        load_if_exists=True,
    )
    names = [objective_title(one, metric=study.metric) for one in search.objectives]
    if archive.metric_names != names:  # a new study, or one of an older release
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            archive.set_metric_names(names)
    return archive


def store_frame(archive: optuna.Study, frame: Mapping[str, Any], space: SearchSpace) -> None:
    """Store the frame, unless it is stored already.

    Args:
        archive: the run's Optuna study.
        frame: the frame without the joint space.
        space: the search space.
    """
    whole = {**frame, JOINT: {name: varied_to_json(one) for name, one in space.varied.items()}}
    if archive.user_attrs.get(FRAME) != whole:
        archive.set_user_attr(FRAME, whole)
