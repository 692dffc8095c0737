"""The command line's edge: exit statuses, and one line for whatever goes wrong.

Only what is quick is imported here, so that Ctrl-C at any moment finds somebody to answer it.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper

from dse.errors import DseError

UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: those of the process if None.

    Returns:
        The exit status; 141, as shells have it for SIGPIPE, where nobody reads what is printed.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        _mend_streams()
        from dse.commands.app import app  # noqa: PLC0415  # Ctrl-C may come in the midst of it

        app(given, prog_name="dse")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return _interrupted() if status == INTERRUPTED else status
    except KeyboardInterrupt:
        return _interrupted()
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


def _mend_streams() -> None:
    """Give output somewhere to go where it was closed, and never fail for want of a letter."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupted() -> int:
    sys.stderr.write("dse: interrupted\n")
    return INTERRUPTED


def _fail(message: str, status: int) -> int:
    """Print one line to stderr and return the exit status."""
    sys.stderr.write(f"dse: error: {' '.join(message.split())}\n")
    return status
