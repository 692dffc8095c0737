"""One request, answered by a module of this package in a process of its own.

Both are JSON: the request on the process's stdin, the answer as the last line of its stdout.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dse.errors import DseError, ExportError
from dse.memory.cap import PINNED

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LONGEST_LINE = 300


def ask(module: str, request: "DataclassInstance", *, place: str, engine: str) -> dict[str, Any]:
    """Run a module that ends in `answer`, and return its answer.

    Args:
        module: name of the module.
        request: what it is to do.
        place: what messages begin with, such as the bundle's folder.
        engine: whose crash a process is that says nothing, such as "PyTorch".

    Raises:
        ExportError: if the process fails.
    """
    done = subprocess.run(  # noqa: S603  # modules of this package alone
        [sys.executable, "-P", "-m", module],
        input=json.dumps(asdict(request)),
        env={**os.environ, **PINNED},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        # A process that a signal ended says nothing about itself.
        lines = done.stderr.strip().splitlines() if done.returncode > 0 else []
        line = (lines or [f"{engine} ended with status {done.returncode}"])[-1]
        raise ExportError(f"{place}: its steps can't run: {line[:_LONGEST_LINE]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def answer(perform: Callable[[dict[str, Any]], "DataclassInstance"]) -> None:
    """Answer the request on stdin; an error of ours is one line on stderr and an exit status."""
    try:
        result = perform(json.load(sys.stdin))
    except DseError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        raise SystemExit(error.exit_status) from error
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
