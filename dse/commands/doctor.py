"""`dse doctor`: repair a journal file whose last lines were torn."""

from pathlib import Path
from typing import Annotated

import typer

from dse.commands import console
from dse.commands.options import Json
from dse.errors import ConfigError

SCHEMA_VERSION = 1


def doctor(
    storage: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="The journal, such as journal:///shared/study.log, or the path of its file.",
        ),
    ],
    *,
    as_json: Json = False,
) -> None:
    """Repair a torn journal file, after a backup.

    Lines that can't be read are taken out under the journal's lock. Databases repair themselves.

    \b
    Examples:
      dse doctor journal:///shared/study.log
      dse doctor study.log
    """  # noqa: D301  # \b keeps the lines after it as they are
    from dse.search.journal_repair import repair_journal
    from dse.search.storage_urls import JOURNAL, parsed_url

    path = Path(storage)
    if "://" in storage:
        url = parsed_url(storage)
        if url.drivername != JOURNAL or not url.database:
            raise ConfigError(
                "only journals can be repaired: give a URL such as journal:///shared/study.log"
            )
        path = Path(url.database)
    found = repair_journal(path)
    if as_json:
        backup = None if found.backup is None else str(found.backup)
        console.print_json(
            {
                "version": SCHEMA_VERSION,
                "journal": str(path),
                "lines": found.lines,
                "dropped": found.dropped,
                "backup": backup,
            }
        )
    elif found.backup is None:
        console.say(f"{path} is whole: {found.lines} lines")
    else:
        lines = "1 line" if found.dropped == 1 else f"{found.dropped} lines"
        console.say(f"{path}: {lines} taken out, {found.lines} kept; copied to {found.backup}")
