"""A study as one candidate has it: with what the candidate changes of its recipe."""

from dse.candidate import Candidate
from dse.config import DataConfig, ProxyConfig, Study, TrainingConfig

_TRAINING = ("scheme", "batch_size", "accumulate", "checkpointing", "optimizer", "learning_rate")
_DATA = ("image_size",)
_PROXY = ("importance", "reconstruct")


def applied(study: Study, candidate: Candidate) -> Study:
    """Return the study with a candidate's recipe; channels are no part of it."""
    said = candidate.recipe.model_dump(exclude_none=True)
    if not any(key in said for key in (*_TRAINING, *_DATA, *_PROXY)):
        return study
    training = {key: said[key] for key in _TRAINING if key in said}
    if said.get("optimizer", study.training.optimizer) != study.training.optimizer:
        training["nesterov"] = False  # it belongs to the study's own optimizer
    return study.model_copy(
        update={
            "training": TrainingConfig.model_validate(study.training.model_dump() | training),
            "data": DataConfig.model_validate(
                study.data.model_dump() | {key: said[key] for key in _DATA if key in said}
            ),
            "proxy": ProxyConfig.model_validate(
                study.proxy.model_dump() | {key: said[key] for key in _PROXY if key in said}
            ),
        }
    )
