"""The entry point of the command line: exit statuses, and one line for any error.

Only what imports quickly is imported here, so that Ctrl-C is handled from the first moment.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper

from dse.errors import DseError

UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as in shells


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: those of the process if None.

    Returns:
        The exit status; 141, as in shells for SIGPIPE, if the reader of the output has closed it.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        _prepare_streams()
        from dse.commands.app import app  # noqa: PLC0415  # slow, and Ctrl-C must work meanwhile

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
    except Exception as error:  # noqa: BLE001  # the outermost level: users see no traceback
        if debug:
            traceback.print_exc()
        text = str(error).strip() or "no message"
        return _fail(
            f"unexpected {type(error).__name__}: {text} (dse --debug ... shows where)", UNEXPECTED
        )
    return 0


def _prepare_streams() -> None:
    """Replace streams that are closed, and escape characters that a stream can't encode."""
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
