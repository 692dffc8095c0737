"""What `dse report --paper` and `dse compare --paper` print."""

from typing import TYPE_CHECKING

from dse.commands import console

if TYPE_CHECKING:
    from dse.report.paper.package import PaperFiles


def paper_answer(parts: "PaperFiles | None") -> dict[str, object]:
    """Return the part of the JSON answer; empty without --paper."""
    if parts is None:
        return {}
    return {"paper": {"folder": str(parts.folder), "archive": str(parts.archive)}}


def show_paper(parts: "PaperFiles | None") -> None:
    """Print where the paper's parts are; nothing without --paper."""
    if parts is not None:
        console.say(f"For a paper: {parts.archive} ({len(parts.names)} files of {parts.folder})")
