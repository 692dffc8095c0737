"""``dse memory``: what one training step holds at its peak, and where that is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dse.commands import console
from dse.commands.options import Json, size_of
from dse.units import format_size

if TYPE_CHECKING:
    from dse.footprint import Footprint
    from dse.memory.explain import Explanation


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
        str,
        typer.Option(
            metavar="NAME",
            help="What is counted: tensors, or allocator (kernel workspace on this CPU, too).",
            show_default=True,
        ),
    ] = "tensors",
    measure: Annotated[
        bool, typer.Option("--measure", help="Run a real step too, and compare.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Say what is held, the next peaks, and what pruning would save."
        ),
    ] = False,
    ram: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Say the largest batch whose step fits this RAM."),
    ] = None,
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
      dse memory torchvision:mobilenet_v2 --explain --ram 512MiB
    """  # noqa: D301  # \b keeps the lines after it as they are
    ram_bytes = None if ram is None else size_of("--ram", ram)

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
            explained=explain,
            ram_bytes=ram_bytes,
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
    if found.largest_batch_size is not None and found.ram_bytes is not None:
        console.say(
            f"\nLargest batch that fits {format_size(found.ram_bytes)} (convention tensors): "
            + (str(found.largest_batch_size) if found.largest_batch_size else "none, not even 1")
        )
    if found.explanation is not None:
        _explain(found.explanation)


def _explain(found: "Explanation") -> None:
    """Tables of what is held at the peak, the highest moments, and what pruning saves."""
    console.say(f"\nThe {SHOWN} largest holdings at the peak:\n")
    rows = [
        (h.category.replace("_", " "), h.module, h.operator, format_size(h.bytes))
        for h in found.holdings[:SHOWN]
    ]
    console.show_table(("category", "module", "made by", "bytes"), rows, left=3)
    console.say("\nThe highest moments:\n")
    rows = [(m.phase, m.module, m.operator, format_size(m.bytes)) for m in found.moments]
    console.show_table(("phase", "module", "operator", "held"), rows, left=3)
    console.say("\nWhat pruning one group alone saves at the peak:\n")
    table = [
        (
            s.group,
            str(s.channels),
            format_size(round(s.bytes_per_channel)),
            format_size(s.largest_saving_bytes),
            str(s.useful_until),
        )
        for s in found.savings[:SHOWN]
    ]
    header = ("group", "channels", "each saves", "at most", "down to")
    console.show_table(header, table)


SHOWN = 10  # rows of a table; --json has them all

CONVENTIONS: dict[str, Any] = {
    "tensors": "what parameters, autograd and optimizer hold; kernels' workspace isn't counted",
    "allocator": "tensors, and what this CPU's kernels book while they run",
}
