"""What one evaluation of a candidate found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from dse.errors import RunError

Fidelity = Literal["calibrate", "short", "full"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A candidate pruned, fine-tuned and scored.

    Attributes:
        candidate_digest: of the candidate.
        fidelity: ``calibrate`` (no training), ``short`` or ``full``.
        seed: of shuffling, augmentation and dropout.
        accuracy: from 0 to 1, on the selection part.
        validation_accuracy: from 0 to 1, on the validation part; None where that wasn't read.
        loss: mean cross-entropy on the selection part.
        wall_seconds: of pruning, training and scoring.
        step_seconds: median of the training steps; 0 without training.
        images_trained: forward and backward.
        images_forward: forward alone, for calibration and scoring.
    """

    candidate_digest: str
    fidelity: Fidelity
    seed: int
    accuracy: float
    validation_accuracy: float | None
    loss: float
    wall_seconds: float
    step_seconds: float
    images_trained: int
    images_forward: int

    def to_json(self) -> dict[str, Any]:
        """A plain object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Evaluation":
        """Read what ``to_json`` wrote.

        Raises:
            RunError: the fields aren't these.
        """
        names = {field.name for field in fields(cls)}
        if set(content) != names:
            raise RunError(
                f"a stored evaluation has the fields {sorted(content)}, not {sorted(names)}; "
                "it was written by another version: use another --out folder"
            )
        return cls(**content)
