"""The result of fine-tuning and scoring a candidate once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from dse.errors import RunError
from dse.names import Fidelity

_Score = Annotated[float, Field(le=1, allow_inf_nan=False)]
_Loss = Annotated[float, Field(allow_inf_nan=False)]  # a user's own may be negative
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The score of one candidate at one fidelity with one seed.

    Attributes:
        candidate_digest: digest of the candidate.
        fidelity: `calibrate` (pruned, statistics recomputed, nothing trained), `short` or `full`.
        seed: seed of the training.
        accuracy: score on the selection part by the study's metric (see `dse.measures`), at most 1.
        validation_accuracy: the same on the validation part; None if it wasn't read.
        loss: mean loss on the selection part.
        wall_seconds: time from pruning to the last score.
        step_seconds: median time of the training steps; 0 if nothing was trained.
        images_trained: images of all training steps.
        images_forward: images that only went forward, to recompute statistics and to score.
        rung_accuracy: accuracy on the selection part at the rung; None if there was none.
        stopped: whether training stopped at the rung; accuracy and loss are then the rung's.
        correct: correct predictions by class on the selection part; None if an older release
            stored the evaluation.
        validation_correct: the same on the validation part; None if it wasn't read.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    candidate_digest: str
    fidelity: Fidelity
    seed: _Count
    accuracy: _Score
    validation_accuracy: _Score | None
    loss: _Loss
    wall_seconds: _Seconds
    step_seconds: _Seconds
    images_trained: _Count
    images_forward: _Count
    rung_accuracy: _Score | None = None
    stopped: bool = False
    correct: tuple[_Count, ...] | None = None
    validation_correct: tuple[_Count, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as a JSON object, from which `from_json` restores it."""
        dumped: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return dumped

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str = "evaluation") -> "Evaluation":
        """Restore an evaluation from the JSON object that `to_json` returned.

        Args:
            data: the JSON object.
            source: name of the object's origin, used in error messages.

        Raises:
            RunError: if a field is missing, unknown or of the wrong type; the message names it.
        """
        try:
            # Via JSON text, because a strict dataclass accepts tuples in JSON mode only.
            evaluation = _ADAPTER.validate_json(json.dumps(dict(data)))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "it"
            raise RunError(
                f"{source}: {place}: {first['msg']}; score the candidate anew"
            ) from error
        return evaluation


_ADAPTER = TypeAdapter(Evaluation)
