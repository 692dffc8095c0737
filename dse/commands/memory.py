"""`dse memory`: predict the peak of one training step, and explain it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.commands import console
from dse.commands.complete import studies, words_of
from dse.commands.options import Changes, Json, size_of
from dse.errors import ConfigError
from dse.names import (
    CHECKPOINTING,
    CONVENTIONS,
    MODES,
    OPTIMIZERS,
    PRECISIONS,
    SCHEMES,
    either,
)
from dse.units import format_size

if TYPE_CHECKING:
    from dse.footprint.predict import Footprint
    from dse.memory.explain import Explanation


def memory(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK_OR_STUDY",
            autocompletion=studies,
            help="torchvision:NAME, package.module:factory, a study file or a shipped study.",
        ),
    ],
    *,
    scheme: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEME",
            autocompletion=words_of(SCHEMES),
            help=f"What trains: {either(SCHEMES)}. [full]",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images per step. [8]")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, max=4096, metavar="N", help="Side of the images in pixels. [224]"),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=words_of(OPTIMIZERS.items()),
            help=f"{either(OPTIMIZERS)}. [sgd-momentum]",
        ),
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
            autocompletion=words_of(CONVENTIONS.items()),
            help="What is counted: "
            + "; ".join(f"{name} ({what})" for name, what in CONVENTIONS.items())
            + ".",
            show_default=True,
        ),
    ] = "tensors",
    element_bits: Annotated[
        int,
        typer.Option(metavar="N", help="Of each number in an arena: 32, 16 or 8.", min=8, max=32),
    ] = 32,
    accumulate: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Batches whose gradients are added up. [1]"),
    ] = None,
    checkpointing: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            autocompletion=words_of(CHECKPOINTING.items()),
            help="; ".join(f"{name}: {what}" for name, what in CHECKPOINTING.items()) + ". [none]",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=words_of(PRECISIONS.items()),
            help=f"{either(PRECISIONS)}. [float32]",
        ),
    ] = None,
    foreach: Annotated[
        bool | None,
        typer.Option("--foreach/--no-foreach", help="Update all tensors in one call. [no]"),
    ] = None,
    fused: Annotated[
        bool | None,
        typer.Option("--fused/--no-fused", help="Update without temporaries. [no]"),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=words_of(MODES.items()),
            help=f"{either(MODES)}. [training]",
        ),
    ] = None,
    changes: Changes = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What allocator and --measure look at: cpu, cuda or cuda:N. [cpu]",
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="For allocator: run every operator again instead of using what the cache knows of "
            "this machine.",
        ),
    ] = False,
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
        typer.Option(metavar="SIZE", help="Say what would make the step fit this RAM."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the step's memory: a .pdf, .png or .svg file."),
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
      dse memory torchvision:resnet18 --convention allocator --measure
    """  # noqa: D301  # \b keeps the lines after it as they are
    ram_bytes = None if ram is None else size_of("--ram", ram)
    if ram_bytes == 0:
        raise ConfigError(f"--ram is {ram}: give more than 0 bytes, as in 64MiB")
    if picture is not None and picture.suffix not in PICTURES:
        raise ConfigError(f"--picture {picture} must end in {', '.join(PICTURES)}")

    from dse.footprint.predict import Overrides, footprint

    with console.stdout_reserved():
        found = footprint(
            target,
            overrides=Overrides(
                scheme=scheme,
                batch_size=batch,
                image_size=image_size,
                optimizer=optimizer,
                accumulate=accumulate,
                checkpointing=checkpointing,  # type: ignore[arg-type]  # checked with the step
                precision=precision,  # type: ignore[arg-type]
                foreach=foreach,
                fused=fused,
                mode=mode,  # type: ignore[arg-type]
            ),
            classes=classes,
            ratio=ratio,
            candidate_file=candidate,
            changes=changes or (),
            convention=convention,
            element_bits=element_bits,
            device=device,
            probe=probe,
            measure=measure,
            explained=explain,
            ram_bytes=ram_bytes,
            on_progress=lambda what: console.note(f"trying {what}"),
            on_note=console.note,
        )
        if picture is not None:
            _draw(found, picture)
    if as_json:
        console.print_json(found.to_json())
    else:
        _show(found)


def _show(found: "Footprint") -> None:
    peak = found.breakdown.peak_bytes
    console.say(f"{_title(found)}, {found.settings.optimizer}{_extras(found)}")
    console.say(
        f"Peak of one {_step_name(found)}: {format_size(peak)} ({peak:,} bytes), activations "
        f"{format_size(found.breakdown.peak_activation_bytes)} of it"
    )
    learned = f" (each run alone on {found.device})" if found.probed else ""
    counted = dict[str, str](CONVENTIONS.items())
    console.say(f"Convention {found.convention}: {counted[found.convention]}{learned}\n")
    rows = [
        (name.replace("_", " "), f"{held:,}", format_size(held), f"{100 * held / peak:.1f} %")
        for name, held in found.breakdown.categories.items()
    ]
    rows.append(("together", f"{peak:,}", format_size(peak), "100.0 %"))
    console.show_table(("held at the peak", "bytes", "", "share"), rows)
    at = found.breakdown
    console.say(f"\nReached in {at.phase}, at {at.operator} of {at.module or 'the step itself'}")
    if found.measured_peak_bytes is not None:
        error = found.relative_error or 0.0
        console.say(
            f"Measured: {format_size(found.measured_peak_bytes)} "
            f"({found.measured_peak_bytes:,} bytes); the prediction is off by {100 * error:+.3f} %"
        )
        if found.convention == "tensors" and error < -NOTABLE:
            console.say("The rest is workspace of kernels: --convention allocator counts it")
    if found.ram_bytes is not None:
        _show_remedies(found, found.ram_bytes)
    if found.explanation is not None:
        _explain(found.explanation)


def _title(found: "Footprint") -> str:
    return (
        f"{found.network}, scheme {found.settings.scheme}, batch {found.batch_size}, "
        f"{found.image_size}x{found.image_size} pixels"
    )


def _extras(found: "Footprint") -> str:
    """Return the settings of the step that differ from the defaults."""
    step = found.settings
    extras = [
        f"{step.accumulate} batches accumulated" if step.accumulate > 1 else "",
        "checkpointed by block" if step.checkpointing == "blocks" else "",
        step.precision if step.precision != "float32" else "",
        "foreach" if step.foreach else "",
        "fused" if step.fused else "",
    ]
    return "".join(f", {extra}" for extra in extras if extra)


def _step_name(found: "Footprint") -> str:
    return "training step" if found.settings.mode == "training" else "forward pass"


def _draw(found: "Footprint", path: Path) -> None:
    from dse.report.memory_plot import Panel, memory_figure
    from dse.report.style import paper_style

    with paper_style():
        figure = memory_figure(
            [Panel(label=found.network, timeline=found.timeline)],
            caption=[
                _title(found),
                f"{found.settings.optimizer}{_extras(found)}",
                "convention " + ("allocator" if found.convention == "allocator" else "tensors"),
            ],
            width="page",
        )
        try:
            figure.savefig(path)
        except OSError as error:
            raise ConfigError(f"--picture {path} can't be written: {error.strerror}") from error
    console.note(f"drew {path}")


def _show_remedies(found: "Footprint", ram_bytes: int) -> None:
    as_asked, *others = found.remedies
    room = format_size(ram_bytes)
    if as_asked.fits:
        console.say(
            f"\nIt fits {room} with {format_size(ram_bytes - as_asked.peak_bytes)} to spare "
            "(convention tensors); with one thing changed:\n"
        )
    else:
        console.say(
            f"\nIt needs {format_size(as_asked.peak_bytes - ram_bytes)} more than {room} "
            "(convention tensors); with one thing changed:\n"
        )
    rows = [
        (
            f"{remedy.change} {remedy.value}" if remedy.value else "as it is",
            format_size(remedy.peak_bytes),
            "yes" if remedy.fits else "no",
            str(remedy.largest_batch_size or "none"),
        )
        for remedy in (as_asked, *others)
    ]
    console.show_table(("change", "peak", "fits", "largest batch that fits"), rows)
    if found.unprunable is not None:
        console.say(f"\nPruning isn't among them: {found.unprunable}")


def _explain(found: "Explanation") -> None:
    """Print tables of what is held at the peak, the highest moments, and savings by pruning."""
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


SHOWN = 10  # maximum number of rows in a table; --json has all

NOTABLE = 0.001  # smaller differences, relative to the measured peak, aren't explained

PICTURES = (".pdf", ".png", ".svg")
