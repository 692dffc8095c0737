"""summary.json: what the searches are judged by.

On top the measures of real training (trained.py), the rank correlation and the overhead; under
`recorded`, for each recorded benchmark, its own (compare.py).
"""

import json
from pathlib import Path
from typing import Any

HEADLINES = (
    "hypervolume_vs_gp_25",
    "hypervolume_vs_gp_100",
    "hypervolume_vs_qlognehvi",
    "hypervolume_vs_nsga2",
    "hypervolume_vs_tpe",
    "cost_to_plain_final",
    "kendall_short_full",
    "overhead_share",
)


def read_summary(folder: Path) -> dict[str, Any]:
    """Read what was written before; nothing where there is none."""
    path = folder / "summary.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write it, headlines first."""
    names = [name for name in HEADLINES if name in summary]
    names += [name for name in summary if name not in HEADLINES]
    ordered = {name: summary[name] for name in names}
    (folder / "summary.json").write_text(json.dumps(ordered, indent=2) + "\n")
