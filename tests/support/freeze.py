"""A script: makes what `tests/test_frozen.py` opens with later releases.

Usage: PYTHONPATH=tests python tests/support/freeze.py tests/frozen/VERSION.tar.xz

Runs two tiny studies of torchvision's smallest classifier on three digits, really trained: one with
stock PyTorch in the run folder's own SQLite file, one with the lean engine and a varying batch size
in a journal. Exports a bundle of each. A later release adds an archive of its own, and keeps the
older ones as they are.
"""

import shutil
import sqlite3
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

from dse.cli import main

NETWORK = """
[network]
name = "torchvision:mobilenet_v3_small"
options = {width_mult = 0.1}

[data]
name = "digits"
labels = ["0", "1", "2"]
image_size = 32

[proxy]
calibrate_batches = 1
short_epochs = 0.5
full_epochs = 2.0
full_seeds = 2

[baselines]
methods = ["uniform"]

[reference]
tune = false

[search]
sampler = "random"
trials = 4
budgets = ["100 %"]
uniform_baselines = [0.5]
finalists = 1

[space]
ratio = [0.3, 0.7]
"""
STUDIES = {
    "stock": f"""
name = "frozen"
{NETWORK}joint = false

[training]
batch_size = 16
optimizer = "adamw"
learning_rate = 0.003
threads = 1
""",
    "lean": f"""
name = "frozen_lean"
{NETWORK}
[space.joint]
batch_size = [16, 8]

[training]
batch_size = 16
optimizer = "adamw"
learning_rate = 0.003
engine = "lean"
threads = 1
""",
}
JOURNAL = "journal.log"
_LEFT_OUT = ("lock", "workers")


def dse(*arguments: str | Path) -> None:
    """Run a command, which must succeed."""
    if status := main([str(one) for one in arguments]):
        sys.exit(f"dse {arguments[0]} ended with {status}")


def freeze(target: Path) -> None:
    """Run, export, and pack the files into a new archive."""
    # Not below a folder of the user's, since its path is stored.
    place = Path(tempfile.mkdtemp(prefix="dse-frozen-", dir="/tmp"))
    for name, text in STUDIES.items():
        study, run = place / f"{name}.toml", place / f"{name}-run"
        study.write_text(text, encoding="utf-8")
        stored = ["--storage", f"journal:///{place / JOURNAL}"] if name == "lean" else []
        dse("run", study, "--out", run, *stored)
        dse("export", run, "--trial", "2", "--out", place / f"{name}-bundle")
        for left in _LEFT_OUT:
            path = run / left
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    with closing(sqlite3.connect(place / "stock-run" / "study.db")) as database:
        database.execute("PRAGMA journal_mode=DELETE")  # one file, and smaller
        database.execute("VACUUM")
    with tarfile.open(target, "x:xz") as archive:
        for path in sorted(place.iterdir()):
            archive.add(path, path.name, filter=nobodys)
    shutil.rmtree(place)


def nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out whose a file is, and when it was written."""
    return entry.replace(uid=0, gid=0, uname="", gname="", mtime=0, deep=False)


if __name__ == "__main__":
    freeze(Path(sys.argv[1]))
