"""``dse memory``: what one training step holds at its peak, and where that is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dse.commands import console
from dse.commands.options import Json
from dse.units import format_size

if TYPE_CHECKING:
    from dse.footprint import Footprint


def memory(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK_OR_STUDY",
            help="torchvision:NAME, package.module:factory, a study file or a shipped study.",
        ),
    ],
    *,
    scheme: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEME", help="What trains: full, last, norm, bias or from:MODULE. [full]"
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images per step. [8]")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Side of the images in pixels. [224]")
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="sgd, sgd-momentum, adam or adamw. [sgd-momentum]"),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Outputs of the network. [1000]")
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Prune every free channel group by this share, from 0 to below 1."
        ),
    ] = None,
    candidate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Prune as this candidate (JSON) says; flags override it."
        ),
    ] = None,
    convention: Annotated[
        str, typer.Option(metavar="NAME", help="What is counted: tensors.", show_default=True)
    ] = "tensors",
    measure: Annotated[
        bool, typer.Option("--measure", help="Run a real step too, and compare.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Predict the peak memory of one training step.

    A study brings its own settings; flags override them, and the defaults in brackets hold for a
    bare network. Nothing is downloaded: weights don't matter here.

    \b
    Examples:
      dse memory torchvision:mobilenet_v2
      dse memory torchvision:resnet18 --scheme last --batch 32 --measure
      dse memory torchvision:mobilenet_v2 --ratio 0.5 --json
      dse memory digits --optimizer adam
    """  # noqa: D301  # \b keeps the lines after it as they are
    from dse.footprint import footprint

    with console.stdout_reserved():
        found = footprint(
            target,
            scheme=scheme,
            batch_size=batch,
            image_size=image_size,
            optimizer=optimizer,
            classes=classes,
            ratio=ratio,
            candidate_file=candidate,
            convention=convention,
            measure=measure,
        )
    if as_json:
        console.print_json(found.to_json())
    else:
        _show(found)


def _show(found: "Footprint") -> None:
    peak = found.breakdown.peak_bytes
    console.say(
        f"{found.network}, scheme {found.scheme}, batch {found.batch_size}, "
        f"{found.image_size}x{found.image_size} pixels, {found.optimizer}"
    )
    console.say(
        f"Peak of one training step: {format_size(peak)} ({peak:,} bytes), activations "
        f"{format_size(found.breakdown.peak_activation_bytes)} of it"
    )
    console.say(f"Convention {found.convention}: {CONVENTIONS[found.convention]}\n")
    rows = [
        (name.replace("_", " "), f"{held:,}", format_size(held), f"{100 * held / peak:.1f} %")
        for name, held in found.breakdown.categories.items()
    ]
    rows.append(("together", f"{peak:,}", format_size(peak), "100.0 %"))
    console.show_table(("held at the peak", "bytes", "", "share"), rows)
    at = found.breakdown
    console.say(f"\nReached in {at.phase}, at {at.operator} of {at.module or 'the step itself'}")
    if found.measured_peak_bytes is not None:
        console.say(
            f"Measured: {format_size(found.measured_peak_bytes)} "
            f"({found.measured_peak_bytes:,} bytes); the prediction is off by "
            f"{100 * (found.relative_error or 0.0):+.3f} %"
        )


CONVENTIONS: dict[str, Any] = {
    "tensors": "what parameters, autograd and optimizer hold; kernels' workspace isn't counted"
}
