"""The command line: one command a room, and nothing of its own."""

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import dse
from dse.commands.baseline import baseline
from dse.commands.export import export
from dse.commands.init import init
from dse.commands.memory import memory
from dse.commands.pick import pick
from dse.commands.report import report
from dse.commands.run import run
from dse.errors import DseError

UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h

app = typer.Typer(
    name="dse",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for _command in (memory, run, report, pick, export, baseline, init):
    app.command()(_command)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it so
    if wanted:
        typer.echo(f"dse {dse.__version__}")
        raise typer.Exit


@app.callback()
def top(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, not one line alone.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and leave."
        ),
    ] = False,
) -> None:
    """Find the pruned network and fine-tuning recipe that learn best in little memory.

    \b
    The usual order:
      dse memory torchvision:mobilenet_v2     what one training step holds, and where
      dse run digits                          search: writes runs/digits, may be interrupted
      dse report runs/digits                  pictures and tables
      dse pick runs/digits --ram 48MiB        the best candidate that fits
      dse export runs/digits --ram 48MiB --out bundle    train it and write its weights
      dse init study.toml                     a commented study to start your own from

    Every command takes --json and prints one JSON object to stdout; messages go to stderr. Exit
    status: 0 done, 1 nothing fits, 2 wrong input, 70 an error in dse, 130 interrupted.
    """  # noqa: D301  # \b keeps the lines after it as they are
    del debug, version  # main() looks for --debug itself; the version has been shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: those of the process if None.

    Returns:
        The exit status. Typer itself gives 2 for wrong usage and 130 for Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        app(given, prog_name="dse")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except DseError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error), error.exit_status)
    except Exception as error:  # noqa: BLE001  # the outermost edge: users see no traceback
        if debug:
            traceback.print_exc()
        said = str(error).strip() or "no message"
        return _fail(
            f"unexpected {type(error).__name__}: {said} (dse --debug ... shows where)", UNEXPECTED
        )
    return 0


def _fail(message: str, status: int) -> int:
    """Print one line to stderr and return the exit status."""
    sys.stderr.write(f"dse: error: {' '.join(message.split())}\n")
    return status
