"""`dse pick`: choose the best candidate for a device."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dse.commands import console
from dse.commands.options import (
    Json,
    MaxDrop,
    Reserve,
    RunFolder,
    Storage,
    Trust,
    ram_bytes_of,
    ram_of,
    size_of,
)
from dse.deploy import DEFAULT_MAX_DROP
from dse.errors import InfeasibleError
from dse.units import format_size

if TYPE_CHECKING:
    from dse.deploy.choice import Pick
    from dse.deploy.contenders import Contender


def pick(
    folder: RunFolder,
    *,
    ram: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="RAM of the device, such as 64MiB or 1.5GB, or a share of what the unpruned "
            "network needs, such as 25%.",
        ),
    ],
    max_drop: MaxDrop = DEFAULT_MAX_DROP,
    reserve: Reserve = "0",
    storage: Storage = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Choose the best candidate for a RAM size.

    That is the best one by the study's metric that fits and loses at most --max-drop against the
    unpruned network. One real training step of it is measured; if that holds too much, the next
    candidate is tried. The exit status is 1 if nothing fits; the message then names the smallest
    size that would.

    \b
    Examples:
      dse pick runs/digits --ram 48MiB
      dse pick runs/digits --ram 64MB --reserve 8MB --max-drop 1 --json
      dse pick runs/digits --ram 50%
    """  # noqa: D301  # \b keeps the lines after it as they are
    wanted = ram_of(ram)
    reserve_bytes = size_of("--reserve", reserve)

    from dse.deploy.pick import pick_for
    from dse.search.load import load_run

    with console.stdout_reserved():
        records = load_run(folder, storage=storage, trust=trust)
        choice = pick_for(
            records,
            ram_bytes=ram_bytes_of(wanted, unpruned_peak_bytes=records.unpruned_peak_bytes),
            reserve_bytes=reserve_bytes,
            max_drop=max_drop,
        )
    if as_json:
        console.print_json(choice.to_json())
    for line in choice.notes:
        console.note(line)
    if choice.chosen is None:
        raise InfeasibleError(choice.refusal)
    if not as_json:
        _show(choice, choice.chosen)


def _show(choice: "Pick", chosen: "Contender") -> None:
    from dse.deploy.choice import WORKSPACE
    from dse.metrics import TITLES

    console.say(
        f"\nPicked for {format_size(choice.ram_bytes)} of RAM, "
        f"{format_size(choice.reserve_bytes)} of it reserved (--reserve) for runtime, code and "
        "system:\n"
    )
    measured = choice.measured_peak_bytes or 0
    rows = [_row(chosen.label, chosen, choice, held_bytes=measured)]
    if chosen.label != "unpruned":
        rows.append(_row("unpruned", choice.unpruned, choice))
    sizes = ("predicted peak", "of unpruned", "measured", "left")
    console.show_table(("", TITLES[choice.metric], *sizes, "one step"), rows)
    if chosen.candidate.recipe_text:
        console.say(f"\nIts recipe differs from the study's: {chosen.candidate.recipe_text}.")
    for line in _score_lines(choice, chosen):
        console.say(line)
    off = 100 * (chosen.peak_bytes / measured - 1)
    console.say(
        f"Measured: a real step held {format_size(measured)}; the prediction is off by {off:+.3f} %"
        f"{WORKSPACE if off < -1 else ''}."
    )


def _score_lines(choice: "Pick", chosen: "Contender") -> Iterator[str]:
    """Yield lines on the figures' origin, the loss, its uncertainty, and what the figures hide."""
    from dse.metrics import TITLES

    seeds = len(chosen.figures)
    tuned = "in full" if chosen.fidelity == "full" else "briefly"
    mean = "1 seed" if seeds == 1 else f"mean over {seeds} seeds"
    images = choice.class_images
    of = "" if images is None else f" of {sum(images.of(chosen.part)):,} images"
    title = TITLES[choice.metric]
    yield (
        f"\n{title[0].upper()}{title[1:]} on the {chosen.part} part{of}, fine-tuned {tuned}, "
        f"{mean}: {choice.drop or 0.0:+.1f} points lost of the {choice.max_drop:g} allowed "
        "(--max-drop)."
    )
    if choice.drop_interval is not None:
        low, high = choice.drop_interval
        yield (
            f"95 % interval of the loss over the seeds: {low:+.1f} to {high:+.1f} points (Welch)."
        )
    elif seeds == 1 and chosen.label != choice.unpruned.label:
        yield "With one seed the scatter between trainings is unknown."
    if choice.worst is not None:
        worst = choice.worst
        yield (
            f"Lowest recall of a class: {100 * worst.recall:.1f} %, {worst.label!r} "
            f"({worst.images} {worst.part} images)."
        )


def _row(
    title: str, one: "Contender", choice: "Pick", *, held_bytes: int | None = None
) -> tuple[str, ...]:
    """Return a table row; what is left follows from the measured step, or from the prediction."""
    margin = choice.budget_bytes - (held_bytes or one.peak_bytes)
    return (
        title,
        f"{100 * one.accuracy:.1f} %",
        format_size(one.peak_bytes),
        f"{100 * one.peak_bytes / choice.unpruned.peak_bytes:.1f} %",
        "-" if held_bytes is None else format_size(held_bytes),
        format_size(margin) if margin >= 0 else f"{format_size(-margin)} too much",
        "-" if one.step_seconds is None else f"{1000 * one.step_seconds:.0f} ms",
    )
