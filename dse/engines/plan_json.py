"""Plans as JSON, for files."""

import json
from dataclasses import asdict

from pydantic import TypeAdapter

from dse.engines.plan import LeanPlan

_PLAN = TypeAdapter(LeanPlan)


def plan_to_json(plan: LeanPlan) -> str:
    """Return a plan as JSON."""
    return json.dumps(asdict(plan), sort_keys=True, separators=(",", ":"))


def plan_from_json(text: str) -> LeanPlan:
    """Read a plan.

    Raises:
        ValueError: If the text is not the JSON of a plan.
    """
    return _PLAN.validate_json(text)
