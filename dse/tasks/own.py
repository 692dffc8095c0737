"""A user's own loss and metric, which a factory returns."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dse.digests import text_digest
from dse.errors import ConfigError
from dse.factories import importable, load_factory
from dse.user_code import USER_ERRORS, described

Criterion = Callable[[Tensor, Tensor], Tensor]


def own_loss(
    name: str, *, options: Mapping[str, Any], search_path: Path | None
) -> tuple[Criterion, str | None]:
    """Call a factory of a loss.

    Args:
        name: "package.module:factory".
        options: keyword arguments.
        search_path: folder in which the module is searched first.

    Returns:
        The criterion, and a digest of its source; None if that can't be read.

    Raises:
        ConfigError: if the factory can't be imported, fails, or returns nothing that can be called.
    """
    made = _made("task.loss", name, options, search_path)
    return made, _source(made)


@dataclass(frozen=True)
class OwnMetric:
    """A user's own metric.

    Attributes:
        name: "package.module:factory", for messages.
        metric: a function of (logits, targets), or an object with `reset`, `update` and `compute`
            like those of torchmetrics.
    """

    name: str
    metric: Any

    def __call__(self, logits: Tensor, targets: Tensor) -> float:
        """Compute the metric of all logits and targets of a part of the data.

        Raises:
            ConfigError: if it fails or returns no finite number.
        """
        try:
            with torch.no_grad():
                if hasattr(self.metric, "update") and hasattr(self.metric, "compute"):
                    self.metric.reset()
                    self.metric.update(logits, targets)
                    value = float(self.metric.compute())
                else:
                    value = float(self.metric(logits, targets))
        except USER_ERRORS as error:
            raise ConfigError(
                f"task.metric = {self.name!r} failed on logits of shape {tuple(logits.shape)} and "
                f"targets of shape {tuple(targets.shape)}: {described(error)}"
            ) from error
        if not math.isfinite(value):
            raise ConfigError(f"task.metric = {self.name!r} is {value}: it must be finite")
        return value


def own_metric(name: str, *, search_path: Path | None) -> OwnMetric:
    """Call a factory of a metric.

    Raises:
        ConfigError: see `own_loss`.
    """
    return OwnMetric(name, _made("task.metric", name, {}, search_path))


def _made(key: str, name: str, options: Mapping[str, Any], search_path: Path | None) -> Any:
    place = f"{key} = {name!r}"
    factory = load_factory(name, search_path=search_path, place=place, error=ConfigError)
    try:
        with importable(search_path):  # a factory may import modules when it is called
            made = factory(**options)
    except USER_ERRORS as error:
        raise ConfigError(f"{place} failed: {described(error)}") from error
    if not callable(made):
        raise ConfigError(
            f"{place} returned a {type(made).__name__}: return a function of (logits, targets)"
        )
    return made


def _source(made: object) -> str | None:
    """Return a digest of the file that defines a function or the class of an object."""
    kind = made if inspect.isroutine(made) or inspect.isclass(made) else type(made)
    if str(getattr(kind, "__module__", "")).partition(".")[0] == "torch":
        return repr(made)
    try:
        return text_digest(Path(inspect.getfile(kind)).read_text("utf-8"))
    except (OSError, TypeError, UnicodeDecodeError):
        return None
