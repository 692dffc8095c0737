"""The request of `dse memory`: which step, counted how, and what to report besides its peak."""

from dataclasses import dataclass
from pathlib import Path

from dse.inputs import InputSpec


@dataclass(frozen=True, kw_only=True)
class StepOverrides:
    """Settings of the step from the command line; None leaves the candidate's or the study's."""

    scheme: str | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_targets: tuple[str, ...] | None = None
    batch_size: int | None = None
    image_size: int | None = None
    optimizer: str | None = None
    accumulate: int | None = None
    checkpointing: str | None = None
    engine: str | None = None
    precision: str | None = None
    foreach: bool | None = None
    fused: bool | None = None
    optimizer_in_backward: bool | None = None
    mode: str | None = None


@dataclass(frozen=True, kw_only=True)
class FootprintRequest:
    """One call of `footprint`.

    Attributes:
        target: A network as in `dse.names.NETWORKS`, a study file or a shipped study.
        overrides: Settings that override the candidate's and the study's.
        classes: Number of outputs of the network; the study's, or 1000, if None.
        drop: Residual blocks to leave out, as in "layer3.1,layer4.1"; overrides the candidate's.
        ratio: Pruning ratio of every group that the study's space leaves free, from 0 to below 1.
            Overrides the candidate's channels.
        candidate_file: JSON file of a candidate.
        changes: Study keys to change, as in ``data.root=images``.
        convention: What is counted, one of ``dse.names.CONVENTIONS``.
        element_bits: Bits of a floating-point element, for the convention ``arena``.
        device: Device of the convention ``allocator`` and of the measurement; the study's, or the
            CPU, if None.
        probe: Whether the convention ``allocator`` runs every operator again, whatever its cache
            holds.
        measure: Whether to run a real step too.
        explain: Whether to explain the peak, by the convention ``tensors``.
        ram_bytes: Memory to find remedies for, by the convention ``tensors``; None for no remedies.
        inputs: Shape and type of one sample; the study's, or images, if None.
    """

    target: str
    overrides: StepOverrides = StepOverrides()  # immutable, so safe as a default
    classes: int | None = None
    drop: str | None = None
    ratio: float | None = None
    candidate_file: Path | None = None
    changes: tuple[str, ...] = ()
    convention: str = "tensors"
    element_bits: int = 32
    device: str | None = None
    probe: bool = False
    measure: bool = False
    explain: bool = False
    ram_bytes: int | None = None
    inputs: InputSpec | None = None
