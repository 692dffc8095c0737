"""Design-space exploration for fine-tuning neural networks in little memory.

The names below are loaded when first used, so that ``import dse`` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dse.errors import (
    CandidateError,
    ConfigError,
    DataError,
    DseError,
    ExportError,
    InfeasibleError,
    MemoryModelError,
    NetworkError,
    PruningError,
    RunError,
    TrainingError,
)

if TYPE_CHECKING:
    from dse.candidate import Candidate
    from dse.deploy.bundle import load
    from dse.engines.lean import lean, unlean
    from dse.memory.model import MemoryModel
    from dse.notebook.comparison import compare_runs
    from dse.notebook.run import open_run
    from dse.step.in_backward import update_in_backward

    __version__: str

__all__ = [
    "Candidate",
    "CandidateError",
    "ConfigError",
    "DataError",
    "DseError",
    "ExportError",
    "InfeasibleError",
    "MemoryModel",
    "MemoryModelError",
    "NetworkError",
    "PruningError",
    "RunError",
    "TrainingError",
    "__version__",
    "compare_runs",
    "lean",
    "load",
    "open_run",
    "unlean",
    "update_in_backward",
]

_HOME = {
    "Candidate": "dse.candidate",
    "MemoryModel": "dse.memory.model",
    "compare_runs": "dse.notebook.comparison",
    "lean": "dse.engines.lean",
    "load": "dse.deploy.bundle",
    "open_run": "dse.notebook.run",
    "unlean": "dse.engines.lean",
    "update_in_backward": "dse.step.in_backward",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("dse")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'dse' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
