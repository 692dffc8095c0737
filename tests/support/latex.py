"""Compiles LaTeX with the real programs, where they are installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None or shutil.which("bibtex") is None,
    reason="pdflatex and bibtex are not installed: they compile the tables",
)


def compiled(folder: Path, stem: str, *, bibliography: bool = False) -> str:
    """Compile a document until its references stand, and return the log of the last pass.

    No part may be missing, undefined or wider than its page.
    """
    # Nothing is fetched or made: only what is installed counts.
    environment = {**os.environ, "MKTEXTFM": "0"}
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", stem]
    passes = [latex, ["bibtex", stem], latex, latex] if bibliography else [latex]
    for command in passes:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:]
        if command[0] == "bibtex":
            assert "Warning" not in done.stdout, done.stdout
    log = (folder / f"{stem}.log").read_text("utf-8", "replace")
    for complaint in ("undefined", "Missing character", "Overfull \\hbox", "multiply defined"):
        assert complaint not in log, log[max(0, log.index(complaint) - 300) :][:600]
    return log
