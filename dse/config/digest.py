"""The parts of a study that its results depend on."""

from collections.abc import Mapping
from typing import Any

from dse.config.data import DEFAULT_TOKENS
from dse.config.task import TaskConfig
from dse.digests import json_digest

# Keys of each table that don't affect results.
_IDLE = {
    "data": ("in_memory_limit",),
    "space": ("name", "description"),
    "search": (
        "trials",
        "timeout",
        "images",
        "level_window",
        "level_gain",
        "finalists",
        "repeats",
        "full_baselines",
        "uniform_baselines",
    ),
}
# Keys of `[data]` that are left out at these values, so that digests of older studies stay.
_LATER = (("interpolation", "bilinear"), ("crop", 1.0), ("tokens", DEFAULT_TOKENS))
_TASK = TaskConfig().model_dump(mode="json")
_IDLE_AT_TOP = ("name", "description", "source_dir", "baselines")


def meaning_digest(dump: Mapping[str, Any]) -> str:
    """Digest a dumped study without the keys that don't affect its results."""
    kept = {
        table: _without(value, _IDLE[table]) if table in _IDLE else value
        for table, value in _without(dump, _IDLE_AT_TOP).items()
    }
    if kept["training"].get("engine") == "stock":  # as before there were others
        kept["training"] = _without(kept["training"], ("engine",))
    if not kept["training"].get("optimizer_in_backward"):  # likewise
        kept["training"] = _without(kept["training"], ("optimizer_in_backward",))
    if kept["search"].get("convention") is None:  # it then follows from the device, which counts
        kept["search"] = _without(kept["search"], ("convention",))
    if kept["data"]["name"].startswith("torchvision:"):  # the root is only a download folder
        kept["data"] = _without(kept["data"], ("root",))
    joint = kept["space"].get("joint")
    if joint is not None:  # as before these could be
        idle = tuple(key for key in ("fixed_images", "depth", "drop") if not joint.get(key))
        kept["space"] = {**kept["space"], "joint": _without(joint, idle)}
    # Studies without a [task] keep the digest that they had before there were tasks.
    if task := {key: value for key, value in kept.pop("task", {}).items() if value != _TASK[key]}:
        kept["task"] = task
    later = kept["data"]
    kept["data"] = {key: later[key] for key in later if (key, later[key]) not in _LATER}
    return json_digest(kept)


def joining_digest(dump: Mapping[str, Any]) -> str:
    """Digest a dumped study like `meaning_digest`, without what differs among its workers.

    That is the number of threads, and the folder of the data: its content is compared instead.
    """
    training = _without(dump["training"], ("threads",))
    return meaning_digest({**dump, "training": training, "data": _without(dump["data"], ("root",))})


def _without(table: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}
