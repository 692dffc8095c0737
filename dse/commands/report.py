"""`dse report`: plots and tables of a run."""

from pathlib import Path
from typing import Annotated

import typer

from dse.commands import console
from dse.commands.options import (
    DeviceName,
    DevicesFile,
    Json,
    MaxDrop,
    Paper,
    Reserve,
    RunFolder,
    Storage,
    Trust,
    limit_of,
)
from dse.commands.paper import paper_answer, show_paper
from dse.deploy import DEFAULT_MAX_DROP

SCHEMA_VERSION = 1


def report(
    folder: RunFolder,
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write to. [RUN/report]")
    ] = None,
    ram: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Highlight the candidate that dse pick chooses for this RAM."
        ),
    ] = None,
    device: DeviceName = None,
    devices: DevicesFile = None,
    max_drop: MaxDrop = DEFAULT_MAX_DROP,
    reserve: Reserve = "0",
    paper: Paper = False,
    storage: Storage = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Write a run's report: a page to click, pictures and tables.

    The page, index.html, opens in a browser without a network and needs no other file. The report
    shows the front, the hypervolume over trials, the ratios along the front and the memory over
    one step. Pictures are PDF and PNG, in the width of a column and of a page; tables are CSV,
    Markdown and LaTeX.

    \b
    Examples:
      dse report runs/digits
      dse report runs/digits --ram 48MiB --out figures
      dse report runs/digits --device raspberry-pi-zero-2-w
      dse report runs/digits --paper     # also DIR/paper.zip, for LaTeX
    """  # noqa: D301  # \b keeps the lines after it as they are
    limit = limit_of(ram=ram, device=device, file=devices, reserve=reserve, max_drop=max_drop)

    from dse.deploy.lean_plan import candidate_plan
    from dse.deploy.pick import pick_for
    from dse.errors import DseError, RunError
    from dse.report.content import report_content
    from dse.report.page import warnings
    from dse.report.paper.run import write_paper
    from dse.report.selection import shown_candidate
    from dse.report.style import PAPER_FORMATS, REPORT_FORMATS
    from dse.report.write import write_report
    from dse.search.load import load_run
    from dse.search.run_models import run_models

    with console.stdout_reserved():
        records = load_run(folder, storage=storage, trust=trust)
        picked = None
        notes: tuple[str, ...] = ()
        if limit is not None:
            choice = pick_for(records, limit, max_drop=max_drop)
            notes = choice.notes
            if choice.chosen is None:  # the report shows why, so it is drawn anyway
                console.note(f"none is marked as picked: {choice.refusal}")
            else:
                picked = choice.chosen.candidate
        target = out or folder / "report"
        shown = shown_candidate(records, picked=picked)
        plan = None
        if shown is not None:
            try:
                plan = candidate_plan(records, shown.candidate)
            except DseError as error:  # what the run has stored can be shown without it
                console.note(f"the plan of the lean step of {shown.label} is not shown: {error}")
        models = run_models(records.folder)
        content = report_content(records, models=models, picked=picked, plan=plan)
        try:
            formats = PAPER_FORMATS if paper else REPORT_FORMATS
            files = write_report(content, out=target, formats=formats)
            parts = None
            if paper:
                parts = write_paper(content, pictures=files.pictures, out=target / "paper")
        except OSError as error:
            raise RunError(f"{target} can't be written: {error.strerror}") from error
    for line in dict.fromkeys((*notes, *warnings(records))):  # some are among both
        console.note(line)
    if as_json:
        console.print_json(
            {
                "version": SCHEMA_VERSION,
                "report": str(target),
                "index": str(files.index),
                "html": str(files.html),
                "pictures": [str(path) for path in files.pictures],
                "tables": [str(path) for path in files.tables],
                **paper_answer(parts),
            }
        )
        return
    console.say(f"Report: {files.html}")
    for path in (files.index, *files.pictures, *files.tables):
        console.say(f"  {path}")
    show_paper(parts)
