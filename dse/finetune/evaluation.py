"""What is known of a candidate after it was fine-tuned once."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from dse.errors import RunError
from dse.names import Fidelity

_Share = Annotated[float, Field(ge=0, le=1)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The score of one candidate at one fidelity with one seed.

    Attributes:
        candidate_digest: Of the candidate.
        fidelity: `calibrate` (pruned, statistics recomputed, nothing trained), `short` or `full`.
        seed: That the training ran with.
        accuracy: On the selection part, from 0 to 1, by the study's metric (`search.metric`).
        validation_accuracy: The same on the validation part; None where it wasn't read.
        loss: Mean cross-entropy on the selection part.
        wall_seconds: Of everything, from pruning to the last score.
        step_seconds: Median of the training steps; 0 where nothing was trained.
        images_trained: Images of all training steps.
        images_forward: Images that went forward only, to recompute statistics and to be scored.
        rung_accuracy: On the selection part, at the rung; None where there was none.
        stopped: Whether it ended at the rung: accuracy and loss are those of the rung then.
        correct: Images of each class put right, on the selection part; None in what an older
            release stored.
        validation_correct: The same on the validation part; None where it wasn't read.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    candidate_digest: str
    fidelity: Fidelity
    seed: _Count
    accuracy: _Share
    validation_accuracy: _Share | None
    loss: _Seconds
    wall_seconds: _Seconds
    step_seconds: _Seconds
    images_trained: _Count
    images_forward: _Count
    rung_accuracy: _Share | None = None
    stopped: bool = False
    correct: tuple[_Count, ...] | None = None
    validation_correct: tuple[_Count, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as a JSON object; `from_json` gives an equal one back."""
        dumped: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return dumped

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, source: str = "evaluation") -> "Evaluation":
        """Read what `to_json` gave.

        Args:
            data: The JSON object.
            source: Where it came from, for the message.

        Raises:
            RunError: A field is missing, unknown or of the wrong kind; names the first one.
        """
        try:
            # As JSON text: a strict dataclass is read from nothing else.
            evaluation = _ADAPTER.validate_json(json.dumps(dict(data)))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "it"
            raise RunError(
                f"{source}: {place}: {first['msg']}; score the candidate anew"
            ) from error
        return evaluation


_ADAPTER = TypeAdapter(Evaluation)


@dataclass(frozen=True)
class Rung:
    """A place on the way up where a candidate may be given up.

    Attributes:
        share: Of the training, after which it is scored on the selection part.
        judge: Is given that accuracy, and says whether to go on.
    """

    share: float
    judge: Callable[[float], bool]
