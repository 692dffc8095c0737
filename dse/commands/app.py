"""The application: registers the commands, and defines the options and help of `dse` itself."""

from typing import Annotated

import typer

import dse
from dse.commands.baseline import baseline
from dse.commands.compare import compare
from dse.commands.doctor import doctor
from dse.commands.export import export
from dse.commands.init import init
from dse.commands.memory import memory
from dse.commands.pick import pick
from dse.commands.report import report
from dse.commands.run import run
from dse.commands.verify import verify

app = typer.Typer(
    name="dse",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for _command in (memory, init, run, report, compare, pick, export, verify, baseline, doctor):
    app.command()(_command)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it so
    if wanted:
        typer.echo(f"dse {dse.__version__}")
        raise typer.Exit


@app.callback()
def top(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, not just one line.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Find the pruned network and fine-tuning recipe that learn best in little memory.

    \b
    The usual order:
      dse memory torchvision:mobilenet_v2     what one training step holds, and where
      dse init study.toml --images photos     a study of your images and network
      dse run digits                          search: writes runs/digits, resumes where it stopped
      dse report runs/digits                  pictures and tables
      dse compare runs/a runs/b               several seeds or methods side by side
      dse pick runs/digits --ram 48MiB        the best candidate that fits
      dse export runs/digits --ram 48MiB --out bundle    train it and write its weights
      dse verify bundle                       real training steps under a memory cap

    Every command takes --json and prints one JSON object to stdout; messages go to stderr.

    \b
    Exit statuses:
      0    done
      1    nothing fits the budget
      2    wrong input: a flag, a study, data, a network or a run folder
      70   an unexpected error: dse --debug ... shows where
      130  interrupted by Ctrl-C, SIGTERM or SIGHUP
      141  the reader of the output has closed it, as in dse ... | head
    """  # noqa: D301  # \b keeps the lines after it as they are
    del debug, version  # dse.cli looks for --debug itself; the version has been shown
