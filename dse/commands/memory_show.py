"""Show a footprint: tables on the terminal, or a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from dse.candidate import depth_text
from dse.commands import console
from dse.errors import ConfigError
from dse.names import CONVENTIONS
from dse.report.plan_table import PLAN_HEADER, plan_rows
from dse.units import format_deviation, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dse.footprint.footprint import Footprint
    from dse.footprint.lean_step import LeanStep
    from dse.memory.explain import Explanation
    from dse.pruning.depth import Depth
    from dse.pruning.shares import WholeLayers
    from dse.report.memory_plot import Panel

SHOWN = 10  # maximum number of rows in a table; --json has all

NOTABLE = 0.001  # smaller differences, relative to the measured peak, aren't explained


def show(found: "Footprint") -> None:
    """Print a footprint as tables."""
    _show_peak(found)
    if found.lean is not None:
        _show_plan(found, found.lean)
    if found.measured_peak_bytes is not None:
        _show_measurement(found, found.measured_peak_bytes)
    if found.ram_bytes is not None:
        _show_remedies(found, found.ram_bytes)
    if found.explanation is not None:
        _explain(found.explanation)
        _show_whole(found.whole)
    if found.depth is not None:
        _show_depth(found.depth)


def _show_peak(found: "Footprint") -> None:
    from dse.report.wording import optimizer_and_extras

    at = found.breakdown
    peak = at.peak_bytes
    console.say(f"{_title(found)}, {optimizer_and_extras(found.settings)}")
    console.say(
        f"Peak of one {_step_name(found)}: {format_size(peak)} ({peak:,} bytes), activations "
        f"{format_size(at.peak_activation_bytes)} of it"
    )
    learned = f" (each run alone on {found.device})" if found.probed else ""
    console.say(f"Convention {found.convention}: {CONVENTIONS[found.convention]}{learned}\n")
    rows = [
        (name.replace("_", " "), f"{held:,}", format_size(held), f"{100 * held / peak:.1f} %")
        for name, held in at.categories.items()
    ]
    rows.append(("together", f"{peak:,}", format_size(peak), "100.0 %"))
    console.show_table(("held at the peak", "bytes", "", "share"), rows)
    console.say(f"\nReached in {at.phase}, at {at.operator} of {at.module or 'the step itself'}")
    if found.convention == "tensors":
        console.say(_what_kernels_add(found))


def _what_kernels_add(found: "Footprint") -> str:
    """Say how far below this machine's allocator the convention is."""
    with_kernels = found.allocator_peak_bytes
    if with_kernels is None:
        return (
            f"On {found.device}, kernels allocate more while they run: --convention allocator "
            "finds out how much, once"
        )
    more = with_kernels / found.breakdown.peak_bytes - 1
    return (
        f"On {found.device}, with what kernels allocate while they run: "
        f"{format_size(with_kernels)} ({100 * more:+.1f} %), --convention allocator"
    )


def _show_plan(found: "Footprint", lean: "LeanStep") -> None:
    """Print what each block of a lean step does."""
    share = found.breakdown.peak_bytes / lean.stock_peak_bytes
    time = "" if lean.plan.time is None else f", at an estimated {lean.plan.time:.2f} x its time"
    console.say(
        f"\nEngine {found.settings.engine}: {100 * share:.1f} % of stock PyTorch's "
        f"{format_size(lean.stock_peak_bytes)}{time}\n"
    )
    console.show_table(PLAN_HEADER, plan_rows(lean.plan), left=2)


def _show_measurement(found: "Footprint", measured_bytes: int) -> None:
    error = found.relative_error or 0.0
    console.say(
        f"Measured: {format_size(measured_bytes)} ({measured_bytes:,} bytes); the prediction is "
        f"{format_deviation(error)}"
    )
    if found.convention == "tensors" and error < -NOTABLE:
        console.say("The difference is workspace of kernels, which --convention allocator counts")


def _title(found: "Footprint") -> str:
    network = " ".join(filter(None, (found.network, depth_text(found.drop))))
    return (
        f"{network}, scheme {found.settings.scheme}, batch {found.batch_size}, "
        f"{found.inputs.sample_text}"
    )


def _step_name(found: "Footprint") -> str:
    return "training step" if found.settings.mode == "training" else "forward pass"


def _panels(found: "Footprint") -> "list[Panel]":
    """Return the step's memory, below that of the stock step if it is lean."""
    from dse.report.memory_plot import Panel

    if found.lean is None:
        return [Panel(label=found.network, timeline=found.timeline)]
    return [
        Panel(label=f"{found.network}, stock", timeline=found.lean.stock_timeline),
        Panel(label=f"{found.network}, {found.settings.engine}", timeline=found.timeline),
    ]


def draw(found: "Footprint", path: Path) -> None:
    """Draw the memory over the step.

    Raises:
        ConfigError: If the file can't be written.
    """
    from dse.report.memory_plot import memory_figure
    from dse.report.style import paper_style
    from dse.report.wording import optimizer_and_extras

    with paper_style():
        figure = memory_figure(
            _panels(found),
            caption=[
                _title(found),
                optimizer_and_extras(found.settings),
                f"convention {found.timeline_convention}",
            ],
            width="page",
            stacked=True,
        )
        try:
            figure.savefig(path)
        except OSError as error:
            raise ConfigError(f"--picture {path} can't be written: {error.strerror}") from error
    console.note(f"drew {path}")


def _show_remedies(found: "Footprint", ram_bytes: int) -> None:
    unchanged, *others = found.remedies
    room, lean = format_size(ram_bytes), found.lean_peak_bytes
    if unchanged.fits:
        console.say(
            f"\nIt fits {room} with {format_size(ram_bytes - unchanged.peak_bytes)} to spare "
            "(convention tensors); with one thing changed:\n"
        )
    else:
        console.say(
            f"\nIt needs {format_size(unchanged.peak_bytes - ram_bytes)} more than {room} "
            "(convention tensors); with one thing changed:\n"
        )
    rows = [
        (
            f"{remedy.change} {remedy.value}" if remedy.value else "as it is",
            format_size(remedy.peak_bytes),
            "yes" if remedy.fits else "no",
            str(remedy.largest_batch_size or "none"),
            *(() if lean is None else (f"{remedy.peak_bytes / lean:.2f} x",)),
        )
        for remedy in (unchanged, *others)
    ]
    beside = () if lean is None else ("of the lean step",)
    console.show_table(("change", "peak", "fits", "largest batch that fits", *beside), rows)
    if found.unprunable is not None:
        console.say(f"\nPruning was not tried: {found.unprunable}")


def _explain(found: "Explanation") -> None:
    """Print what is held at the peak, the highest moments, and what pruning saves."""
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


def _show_depth(depth: "Depth") -> None:
    """Print the residual blocks that can be left out, and why others can't be."""
    from dse.pruning.groups import layers_by_reason

    blocks = [f"{one.name}{_with(one.after)}" for one in depth.blocks]
    console.say(f"\nBlocks that can be left out (--drop): {', '.join(blocks) or 'none'}")
    if depth.refused:
        console.say("\nOther blocks stay:\n")
        by_reason = list(layers_by_reason(depth.refused).items())
        rows = [(_first_of(names), reason) for reason, names in by_reason[:SHOWN]]
        console.show_table(("blocks", "reason"), rows, left=2, wrapped=True)


def _with(after: "Sequence[str]") -> str:
    return f" (with its {' and '.join(dict.fromkeys(after))})" if after else ""


def _show_whole(whole: "Sequence[WholeLayers]") -> None:
    """Print which layers can't be pruned, and why."""
    if not whole:
        return
    console.say("\nWhat stays whole, with the share of the parameters that no pruning removes:\n")
    rows = [
        (f"{100 * each.share:.1f} %", _first_of(each.layers), each.reason) for each in whole[:SHOWN]
    ]
    if rest := whole[SHOWN:]:
        layers = sum(len(each.layers) for each in rest)
        share = sum(each.share for each in rest)
        rows.append((f"{100 * share:.1f} %", f"{layers} more layers", f"{len(rest)} other reasons"))
    console.show_table(("share", "layers", "reason"), rows, left=3, wrapped=True)


def _first_of(layers: "Sequence[str]") -> str:
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return f"{layers[0]}{more}"
