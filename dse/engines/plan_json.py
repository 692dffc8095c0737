"""Plans as JSON, for files."""

from dataclasses import asdict

from pydantic import TypeAdapter

from dse.digests import canonical_json
from dse.engines.plan import LeanPlan

_PLAN = TypeAdapter(LeanPlan)


def plan_to_json(plan: LeanPlan) -> str:
    """Return a plan as JSON."""
    return canonical_json(asdict(plan))


def plan_from_json(text: str) -> LeanPlan:
    """Read a plan.

    Raises:
        ValueError: If the text is not the JSON of a plan.
    """
    return _PLAN.validate_json(text)
