"""``dse init``: a commented study to start one's own from."""

from pathlib import Path
from typing import Annotated

import typer

from dse.commands import console
from dse.commands.options import Json
from dse.errors import ConfigError
from dse.shipped import starter_study


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path(
        "study.toml"
    ),
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Write a commented study to start from.

    \b
    Examples:
      dse init
      dse init flowers/study.toml
    """  # noqa: D301  # \b keeps the lines after it as they are
    if file.is_dir():
        raise ConfigError(f"{file} is a folder: name a file, as in {file / 'study.toml'}")
    if file.exists() and not force:
        raise ConfigError(f"{file} exists: give another name, or --force to overwrite it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(starter_study(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} can't be written: {error.strerror}") from error
    if as_json:
        console.print_json({"version": 1, "study": str(file)})
        return
    console.say(
        f"Wrote {file}. Change what it says about network, data and budgets, then:\n"
        f"  dse run {file} --dry-run    check it\n"
        f"  dse run {file}"
    )
