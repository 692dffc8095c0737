"""Options of ``dse memory`` that no other command has."""

from pathlib import Path
from typing import Annotated

import typer

from dse.commands.complete import studies, words_of
from dse.names import (
    CHECKPOINTING,
    CONVENTIONS,
    MODES,
    OPTIMIZERS,
    PRECISIONS,
    SCHEMES,
    either,
)

Target = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK_OR_STUDY",
        autocompletion=studies,
        help="torchvision:NAME, package.module:factory, a study file or a shipped study.",
    ),
]
Scheme = Annotated[
    str | None,
    typer.Option(
        metavar="SCHEME",
        autocompletion=words_of(SCHEMES),
        help=f"What trains: {either(SCHEMES)}. [full]",
    ),
]
Batch = Annotated[int | None, typer.Option(min=1, metavar="N", help="Images per step. [8]")]
ImageSize = Annotated[
    int | None,
    typer.Option(min=1, max=4096, metavar="N", help="Side of the images in pixels. [224]"),
]
Optimizer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=words_of(OPTIMIZERS.items()),
        help=f"{either(OPTIMIZERS)}. [sgd-momentum]",
    ),
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
CandidateFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Prune as this candidate (JSON) says; flags override it."),
]
Convention = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=words_of(CONVENTIONS),
        help="What is counted: "
        + "; ".join(f"{name} ({what})" for name, what in CONVENTIONS.items())
        + ".",
        show_default=True,
    ),
]
ElementBits = Annotated[
    int,
    typer.Option(metavar="N", help="Of each number in an arena: 32, 16 or 8.", min=8, max=32),
]
Accumulate = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Batches whose gradients are added up. [1]"),
]
Checkpointing = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        autocompletion=words_of(CHECKPOINTING.items()),
        help="; ".join(f"{name}: {what}" for name, what in CHECKPOINTING.items()) + ". [none]",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=words_of(PRECISIONS.items()),
        help=f"{either(PRECISIONS)}. [float32]",
    ),
]
Foreach = Annotated[
    bool | None,
    typer.Option("--foreach/--no-foreach", help="Update all tensors in one call. [no]"),
]
Fused = Annotated[
    bool | None,
    typer.Option("--fused/--no-fused", help="Update without temporaries. [no]"),
]
Mode = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=words_of(MODES.items()),
        help=f"{either(MODES)}. [training]",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What allocator and --measure look at: cpu, cuda or cuda:N. [cpu]",
    ),
]
Probe = Annotated[
    bool,
    typer.Option(
        "--probe",
        help="For allocator: run every operator again instead of using what the cache knows of "
        "this machine.",
    ),
]
Measure = Annotated[bool, typer.Option("--measure", help="Run a real step too, and compare.")]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain", help="Say what is held, the next peaks, and what pruning would save."
    ),
]
Ram = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Say what would make the step fit this RAM."),
]
Picture = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw the step's memory: a .pdf, .png or .svg file."),
]
