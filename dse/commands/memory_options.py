"""Options of ``dse memory`` that no other command has."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from dse.commands.complete import studies, words_of
from dse.names import (
    CHECKPOINTING,
    CONVENTIONS,
    ENGINES,
    MODES,
    NETWORKS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEMES,
    either,
    explained,
)


def _word(words: Iterable[tuple[str, str]], *, text: str, metavar: str = "NAME") -> Any:
    """Return an option whose value is a word of a table, which completion offers."""
    return typer.Option(metavar=metavar, autocompletion=words_of(words), help=text)


Target = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK_OR_STUDY",
        autocompletion=studies,
        help=f"{either(NETWORKS)}; or a study file or a shipped study.",
    ),
]
Scheme = Annotated[
    str | None,
    _word(SCHEMES.items(), text=f"What trains: {either(SCHEMES)}. [full]", metavar="SCHEME"),
]
LoraRank = Annotated[
    int | None,
    typer.Option(metavar="N", help="Rank of the adapters of --scheme lora. [8]"),
]
LoraAlpha = Annotated[
    float | None,
    typer.Option(metavar="X", help="Scales what adapters add by alpha / rank. [the rank]"),
]
LoraTargets = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,NAME",
        help="Linear layers that get adapters, or ends of their names, as in qkv. [all]",
    ),
]
Batch = Annotated[int | None, typer.Option(min=1, metavar="N", help="Images per step. [8]")]
ImageSize = Annotated[
    int | None,
    typer.Option(min=1, max=4096, metavar="N", help="Side of the images in pixels. [224]"),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Sizes of one sample without the batch: 1x28x28, 1x16000 (a signal), 128:int64 "
        "(tokens). [images]",
    ),
]
Optimizer = Annotated[
    str | None, _word(OPTIMIZERS.items(), text=f"{either(OPTIMIZERS)}. [sgd-momentum]")
]
Classes = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Outputs of the network. [1000]")
]
Ratio = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", help="Prune every free channel group by this share, from 0 to below 1."
    ),
]
Drop = Annotated[
    str | None,
    typer.Option(
        metavar="BLOCKS",
        help="Leave out these residual blocks, as in layer3.1,layer4.1 (--explain lists them).",
    ),
]
CandidateFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Prune as in this candidate (JSON); flags override it."),
]
Convention = Annotated[
    str,
    _word(CONVENTIONS.items(), text=f"What is counted. {explained(CONVENTIONS.items())}."),
]
ElementBits = Annotated[
    int,
    typer.Option(metavar="N", help="Bits of each number, for arena: 32, 16 or 8.", min=8, max=32),
]
Accumulate = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Batches whose gradients are added up. [1]"),
]
Checkpointing = Annotated[
    str | None,
    _word(CHECKPOINTING.items(), text=f"{explained(CHECKPOINTING.items())}. [none]"),
]
Engine = Annotated[
    str | None,
    _word(
        ENGINES.items(),
        text=f"{explained(ENGINES.items())}. lean with --ram takes that size. [stock]",
        metavar="ENGINE",
    ),
]
Precision = Annotated[
    str | None, _word(PRECISIONS.items(), text=f"{either(PRECISIONS)}. [float32]")
]
Foreach = Annotated[
    bool | None,
    typer.Option("--foreach/--no-foreach", help="Update all tensors in one call. [no]"),
]
Fused = Annotated[
    bool | None,
    typer.Option("--fused/--no-fused", help="Update without temporaries. [no]"),
]
InBackward = Annotated[
    bool | None,
    typer.Option(
        "--optimizer-in-backward/--no-optimizer-in-backward",
        help="Update each parameter in the backward pass and drop its gradient. [no]",
    ),
]
Mode = Annotated[str | None, _word(MODES.items(), text=f"{either(MODES)}. [training]")]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Device of allocator and of --measure: cpu, cuda or cuda:N. [cpu]",
    ),
]
Probe = Annotated[
    bool,
    typer.Option(
        "--probe",
        help="For allocator: run every operator again instead of using the results that are cached "
        "for this machine.",
    ),
]
Measure = Annotated[bool, typer.Option("--measure", help="Also run a real step, and compare.")]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain", help="Show what is held, the next peaks, and what pruning would save."
    ),
]
Ram = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Show which single changes make the step fit this RAM; with --engine lean, plan the "
        "step within it.",
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw the step's memory: a .pdf, .png or .svg file."),
]
