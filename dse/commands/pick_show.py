"""What `dse pick` prints for readers."""

from collections.abc import Iterator, Sequence

from dse.commands import console
from dse.deploy.choice import HARDLY_ANY, HELD, Pick
from dse.deploy.contenders import Contender
from dse.footprint.speed import Speed
from dse.units import format_deviation, format_size

_SIZES = {
    "pytorch": ("peak", "measured"),
    "executorch": ("arena", "exported"),
    "microcontroller": ("arena", "planned"),
}
"""What the predicted and the measured bytes are called."""


def show(choice: Pick) -> None:
    """Print one choice, if something fits, with its figures beside the unpruned network's."""
    chosen = choice.chosen
    if chosen is None:
        return
    console.say(f"\n{_heading(choice)}\n")
    measured = choice.measured_peak_bytes or 0
    rows = [_row(chosen.label, chosen, choice, held_bytes=measured)]
    if chosen.label != "unpruned":
        rows.append(_row("unpruned", choice.unpruned, choice))
    what = _SIZES[choice.runtime]
    heads = ["", choice.measure.title, f"predicted {what[0]}", "of unpruned", what[1], "left"]
    if choice.speed is None:  # steps of the run, perhaps of different hours of a busy machine
        heads.append("one step")
    console.show_table(heads, [row[: len(heads)] for row in rows])
    if chosen.candidate.recipe_text:
        console.say(f"\nIts recipe differs from the study's: {chosen.candidate.recipe_text}.")
    for line in _score_lines(choice, chosen):
        console.say(line)
    if choice.runtime != "microcontroller":  # whose prediction is the planner's own result
        error = chosen.peak_bytes / measured - 1
        why = choice.workspace_text if error < -HARDLY_ANY else ""
        console.say(
            f"{what[1].capitalize()}: {HELD[choice.runtime]} {format_size(measured)}; the "
            f"prediction is {format_deviation(error)}{why}."
        )
    if choice.speed is not None:
        for line in _speed_lines(choice.speed):
            console.say(line)


def show_table(choices: Sequence[Pick]) -> None:
    """Print several choices as a table, one row for each size or device."""
    title = choices[0].measure.title
    sizes = {choice.runtime for choice in choices}
    console.show_table(
        (
            *("RAM", "for a step", "picked", title, "points lost (95 %)"),
            *_SIZES[sizes.pop() if len(sizes) == 1 else "pytorch"],
            *("left", "step time", "forward"),
        ),
        [_summary(choice) for choice in choices],
    )
    console.say(
        f"\nPoints lost against the unpruned network, at most {choices[0].max_drop:g} allowed "
        "(--max-drop); in brackets Welch's 95 % interval over the seeds."
    )
    if any(choice.speed for choice in choices):
        console.say(
            "Step time and forward: times per sample as a share of the unpruned network's, "
            "measured in turns on this machine."
        )
    for choice in choices:
        if choice.tied and choice.chosen is not None:
            console.say(f"{_title(choice)}: {_ties(choice, choice.chosen)}")
    untested = [
        one for one in choices if one.chosen and one.rule == "accuracy" and one.tied is None
    ]
    if untested:
        console.say("Too few seeds for a test of ties: " + ", ".join(map(_title, untested)) + ".")


def note_lines(choices: Sequence[Pick]) -> list[str]:
    """Return the notes of all choices: those that all share once, others with their size."""
    if len(choices) == 1:
        return list(choices[0].notes)
    shared = [one for one in choices[0].notes if all(one in choice.notes for choice in choices)]
    return shared + [
        line if line.startswith(f"{_title(choice)}:") else f"{_title(choice)}: {line}"
        for choice in choices
        for line in choice.notes
        if line not in shared
    ]


def refusal_of(choices: Sequence[Pick]) -> str | None:
    """Return one line on the sizes that nothing fits; None if something fits each."""
    refused = [choice for choice in choices if choice.chosen is None]
    if not refused:
        return None
    text = "; ".join(choice.refusal for choice in refused)
    return text if len(choices) == 1 else f"{len(refused)} of {len(choices)}: {text}"


def _heading(choice: Pick) -> str:
    """Return the line above the figures of one choice."""
    what = "The knee of the front" if choice.rule == "knee" else "Picked"
    if choice.ram_bytes is None:
        return f"{what}, for any size of RAM:"
    device = choice.device
    if device is not None:
        return (
            f"{what} for {device.title}: {format_size(choice.ram_bytes)} of RAM, of which "
            f"{format_size(device.free.size)} are free for a training step ({device.free.basis}):"
        )
    return (
        f"{what} for {format_size(choice.ram_bytes)} of RAM, "
        f"{format_size(choice.reserve_bytes)} of it reserved (--reserve) for runtime, code and "
        "system:"
    )


def _title(choice: Pick) -> str:
    if choice.device is not None:
        return choice.device.name
    return "any" if choice.ram_bytes is None else format_size(choice.ram_bytes)


def _summary(choice: Pick) -> tuple[str, ...]:
    """Return the row of one choice in the table of several."""
    budget = "-" if choice.budget_bytes is None else format_size(choice.budget_bytes)
    chosen, held = choice.chosen, choice.measured_peak_bytes
    if chosen is None or held is None:
        return (_title(choice), budget, "nothing fits", *["-"] * 7)
    lost = f"{choice.drop or 0.0:.1f}"
    if choice.drop_interval is not None:
        low, high = choice.drop_interval
        lost += f" ({low:.1f} to {high:.1f})"
    return (
        _title(choice),
        budget,
        f"{chosen.label}{' (knee)' if choice.rule == 'knee' else ''}",
        choice.measure.text(chosen.accuracy),
        lost,
        format_size(chosen.peak_bytes),
        format_size(held),
        _left(choice, held),
        *(
            ("-", "-")
            if choice.speed is None
            else (f"{100 * one.median:.0f} %" for one in (choice.speed.step, choice.speed.forward))
        ),
    )


def _speed_lines(speed: Speed) -> Iterator[str]:
    """Yield what pruning does to the time of a training step and of a forward pass."""
    parts = {"a training step": speed.step, "a forward pass": speed.forward}
    texts = [
        f"{name} takes {100 * one.median:.0f} % of the unpruned network's time per sample "
        f"({100 * one.interval[0]:.0f} to {100 * one.interval[1]:.0f} %)"
        for name, one in parts.items()
    ]
    yield (
        f"Speed on this machine: {texts[0]} and {texts[1]}; medians of "
        f"{speed.rounds} rounds in turns, with 95 % intervals."
    )
    slow = [name for name, one in parts.items() if one.interval[1] >= 1]
    if slow:
        which = " and ".join(slow)
        be = "are" if len(slow) > 1 else "is"
        yield f"The choice pays in memory here, not in time: {which} {be} not clearly faster."


def _ties(choice: Pick, chosen: Contender) -> str:
    """Name what the seeds can't tell from the most accurate candidate that fits."""
    leader = choice.leader or chosen
    tied = [one for one in (chosen, *(choice.tied or ())) if one.label != leader.label]
    names = ", ".join(f"{one.label} ({format_size(one.peak_bytes)})" for one in tied)
    return (
        f"the seeds can't tell {leader.label}, the most accurate that fits, from {names} (Welch's "
        f"test, 5 %); {chosen.label} is the smallest of them."
    )


_POINTS = "points (hundredths of the metric's range)"


def _score_lines(choice: Pick, chosen: Contender) -> Iterator[str]:
    """Yield lines on the figures' origin, the loss, its uncertainty, and what the figures hide."""
    seeds = len(chosen.figures)
    tuned = "in full" if chosen.fidelity == "full" else "briefly"
    mean = "1 seed" if seeds == 1 else f"mean over {seeds} seeds"
    images = choice.class_images
    of = "" if images is None else f" of {sum(images.of(chosen.part)):,} images"
    title = choice.measure.title
    points = "points" if choice.measure.percent else _POINTS
    yield (
        f"\n{title[0].upper()}{title[1:]} on the {chosen.part} part{of}, fine-tuned {tuned}, "
        f"{mean}: {choice.drop or 0.0:+z.1f} {points} lost of the {choice.max_drop:g} allowed "
        "(--max-drop)."
    )
    if choice.drop_interval is not None:
        low, high = choice.drop_interval
        yield (
            f"95 % interval of the loss over the seeds: {low:+z.1f} to {high:+z.1f} points (Welch)."
        )
    elif seeds == 1 and chosen.label != choice.unpruned.label:
        yield "With one seed the scatter between trainings is unknown."
    if choice.tied:
        text = _ties(choice, chosen)
        yield f"{text[0].upper()}{text[1:]}"
    if choice.worst is not None:
        worst = choice.worst
        yield (
            f"Lowest recall of a class: {100 * worst.recall:.1f} %, {worst.label!r} "
            f"({worst.images} {worst.part} images)."
        )


def _row(
    title: str, one: Contender, choice: Pick, *, held_bytes: int | None = None
) -> tuple[str, ...]:
    """Return a table row; what is left follows from the measured step, or from the prediction."""
    return (
        title,
        choice.measure.text(one.accuracy),
        format_size(one.peak_bytes),
        f"{100 * one.peak_bytes / choice.unpruned.peak_bytes:.1f} %",
        "-" if held_bytes is None else format_size(held_bytes),
        _left(choice, held_bytes or one.peak_bytes),
        "-" if one.step_seconds is None else f"{1000 * one.step_seconds:.0f} ms",
    )


def _left(choice: Pick, held_bytes: int) -> str:
    if choice.budget_bytes is None:
        return "-"
    margin = choice.budget_bytes - held_bytes
    return format_size(margin) if margin >= 0 else f"{format_size(-margin)} too much"
