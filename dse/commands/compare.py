"""`dse compare`: several runs side by side."""

from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dse.commands import console
from dse.commands.complete import words_of
from dse.commands.options import Json, Paper, Trust, size_of
from dse.commands.paper import paper_answer, show_paper
from dse.errors import ConfigError
from dse.names import TRAINED_FIDELITIES, use

if TYPE_CHECKING:
    from dse.results.comparison import Comparison
    from dse.results.grouping import Group

SCHEMA_VERSION = 1


def compare(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Run folders, as dse run writes them."),
    ] = None,
    *,
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            metavar="NAME=RUN,RUN",
            help="Runs of one method, in place of RUN...; patterns such as runs/tpe-* are "
            "expanded; can be repeated.",
        ),
    ] = None,
    fidelity: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=words_of(TRAINED_FIDELITIES.items()),
            help="short: every candidate, on the selection part; full: finalists, on the "
            "validation part.",
        ),
    ] = "short",
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Peak memory of the reference point of hypervolumes. [the unpruned network's]",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")] = Path(
        "comparison"
    ),
    paper: Paper = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Compare several methods or seeds by attainment and hypervolume.

    Runs whose studies differ in nothing but their seed form a group, or give --group. Figures are
    PDF, SVG and PNG, with a CSV beside each; tables are CSV, Markdown and LaTeX. Runs whose data,
    network, metric or memory convention differ are refused.

    \b
    Examples:
      dse compare runs/a runs/b runs/c
      dse compare --group ours=runs/front-0,runs/front-1 --group 'tpe=runs/tpe-*' --out figures
      dse compare runs/* --fidelity full --reference 64MiB
    """  # noqa: D301  # \b keeps the lines after it as they are
    if bool(folders) == bool(group):
        raise ConfigError("give run folders, or groups with --group NAME=RUN,RUN, but not both")
    chosen = next((one for one in TRAINED_FIDELITIES if one == fidelity), None)
    if chosen is None:
        raise ConfigError(f"--fidelity {fidelity!r}: {use(TRAINED_FIDELITIES, given=fidelity)}")
    size_bytes = None if reference is None else size_of("--reference", reference)
    if size_bytes == 0:
        raise ConfigError("--reference must be above 0")
    named = [_parsed(text) for text in group or ()]

    from dse.errors import RunError
    from dse.report.compare_write import write_comparison
    from dse.report.paper.comparison import write_comparison_paper
    from dse.results.comparison import compare as compared

    with console.stdout_reserved():
        groups = _groups(folders or (), named, trust=trust)
        comparison = compared(groups, fidelity=chosen, reference_peak_bytes=size_bytes)
        try:
            files = write_comparison(comparison, out=out)
            parts = None
            if paper:
                pictures = files.pictures
                parts = write_comparison_paper(comparison, pictures=pictures, out=out / "paper")
        except OSError as error:
            raise RunError(f"{out} can't be written: {error.strerror}") from error
    for note in comparison.notes:
        console.note(note)
    if as_json:
        answer = _answer(comparison, files.index, files.pictures, files.tables)
        console.print_json(answer | paper_answer(parts))
        return
    _show(comparison)
    console.say(f"\nReport: {files.index}")
    for path in (*files.pictures, *files.tables):
        console.say(f"  {path}")
    show_paper(parts)


def _parsed(text: str) -> tuple[str, list[Path]]:
    """Parse NAME=RUN,RUN.

    Raises:
        ConfigError: if the name or the runs are missing.
    """
    name, _, runs = text.partition("=")
    places = [place.strip() for place in runs.split(",") if place.strip()]
    if not name.strip() or not places:
        raise ConfigError(f"--group {text!r} is not of the form NAME=RUN,RUN")
    # A folder may itself be called like a pattern.
    found = [[place] if Path(place).exists() else sorted(glob(place)) for place in places]  # noqa: PTH207  # absolute, too
    for place, matches in zip(places, found, strict=True):
        if not matches:
            raise ConfigError(f"--group {name}: there is no {place}")
    return name.strip(), [Path(one) for matches in found for one in matches]


def _groups(
    folders: Sequence[Path], named: Sequence[tuple[str, list[Path]]], *, trust: bool
) -> "Sequence[Group]":
    from dse.results.grouping import Group, grouped
    from dse.search.load import load_run

    if folders:
        return grouped([load_run(folder, trust=trust) for folder in folders])
    joined: dict[str, list[Path]] = {}
    for name, places in named:
        joined.setdefault(name, []).extend(places)
    return tuple(
        Group(label=name, runs=tuple(load_run(place, trust=trust) for place in places))
        for name, places in joined.items()
    )


def _show(comparison: "Comparison") -> None:
    """Print the groups, and below them what each reaches within the budgets."""
    from dse.report.compare_tables import budget_columns, groups_table
    from dse.report.wording import size_label

    table, within = groups_table(comparison), budget_columns(comparison)
    first = table.columns[: len(table.columns) - len(within)]
    console.show_table(
        [column.title for column in first],
        [[column.show(row) for column in first] for row in table.rows],
    )
    if within:
        measure = comparison.runs[0].measure
        console.say(f"\nBest {measure.title} within each budget{measure.unit}\n")
        console.show_table(
            ["", *map(size_label, comparison.budgets)],
            [[first[0].show(row), *(one.show(row) for one in within)] for row in table.rows],
        )


def _answer(
    comparison: "Comparison", index: Path, pictures: Sequence[Path], tables: Sequence[Path]
) -> dict[str, object]:
    groups = []
    for one in comparison.groups:
        share, ratio = comparison.hypervolume(one), comparison.ratio(one)
        groups.append(
            {
                "label": one.label,
                "runs": [str(run.folder) for run in one.runs],
                "hypervolumes": comparison.hypervolumes(one).tolist(),
                "hypervolume": share.mean,
                "interval": None if share.interval is None else list(share.interval),
                "ratio_to_first": None if ratio is None else ratio.mean,
                "ratio_interval": None
                if ratio is None or ratio.interval is None
                else list(ratio.interval),
            }
        )
    return {
        "version": SCHEMA_VERSION,
        "fidelity": comparison.fidelity,
        "reference_peak_bytes": comparison.reference_peak_bytes,
        "reference_accuracy": comparison.chance,
        "groups": groups,
        "notes": list(comparison.notes),
        "report": str(index.parent),
        "index": str(index),
        "pictures": [str(path) for path in pictures],
        "tables": [str(path) for path in tables],
    }
