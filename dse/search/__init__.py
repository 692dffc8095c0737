"""The search: search space, trials, storage and run folder.

The names below are imported lazily, so that records can be read without Optuna or torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dse.search.load import load_run
    from dse.search.plan import dry_run
    from dse.search.study import run

__all__ = ["dry_run", "load_run", "run"]

_HOME = {"dry_run": "dse.search.plan", "load_run": "dse.search.load", "run": "dse.search.study"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dse.search' has no attribute {name!r}")
    value: Any = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
