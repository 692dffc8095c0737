"""Cache compiled memory models on disk, under a digest of everything that they depend on."""

import inspect
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from dse.caches import cache_folder
from dse.digests import parts_digest
from dse.errors import MemoryModelError
from dse.memory.model import MemoryModel
from dse.networks.engine import EngineNetwork
from dse.pruning.groups import ChannelGroup
from dse.step.canonical import Loss, classification_loss
from dse.step.settings import StepSettings

_LOG = logging.getLogger(__name__)


def compiled_model(
    network: nn.Module,
    example_input: torch.Tensor,
    *,
    settings: StepSettings,
    groups: Sequence[ChannelGroup],
    loss: Loss = classification_loss,
    cache: Path | None = None,
) -> MemoryModel:
    """Return a memory model from the cache, or compile it and store it there.

    Args:
        network: The network. It is not changed.
        example_input: Tensor (any batch, channels, height, width).
        settings: Settings of the step.
        groups: Channel groups. May be empty.
        loss: Loss of outputs and targets.
        cache: Cache folder. Defaults to ``cache_folder()``. A folder that can't be written is
            ignored.

    Raises:
        DseError: As for ``MemoryModel.compile``.
    """
    digest = model_digest(network, example_input, settings=settings, groups=groups, loss=loss)
    folder = (cache_folder() if cache is None else cache) / "memory"
    path = folder / f"{digest}.npz"
    if digest is not None:
        try:
            if path.exists():
                return MemoryModel.load(path)
        except MemoryModelError as error:
            _LOG.warning("%s; it is compiled anew", error)
    model = MemoryModel.compile(network, example_input, settings=settings, groups=groups, loss=loss)
    if digest is not None:
        with suppress(OSError):  # the cache only saves time
            folder.mkdir(parents=True, exist_ok=True)
            model.save(path)
    return model


def model_digest(
    network: nn.Module,
    example_input: torch.Tensor,
    *,
    settings: StepSettings,
    groups: Sequence[ChannelGroup],
    loss: Loss = classification_loss,
) -> str | None:
    """Return a digest, 32 hexadecimal digits, of everything that a compiled model depends on.

    It covers the network's printed form, its shapes, the source of every class outside PyTorch and
    torchvision, and this package's own code, so that code changes are detected. If a class has no
    source, for example because it was defined interactively, a change would go unnoticed, and the
    result is None. So it is for a loss without a key (see ``dse.tasks.losses.TaskLoss``).
    """
    loss_key = "" if loss is classification_loss else getattr(loss, "key", None)
    if not isinstance(loss_key, str):
        return None
    sources = [_source(kind) for kind in {type(module) for module in network.modules()}]
    known = [source for source in sources if source is not None]
    if len(known) < len(sources):
        return None
    parts = (
        {"dse": package_digest(), **{name: version(name) for name in _PACKAGES}},
        asdict(settings),
        {"image": list(example_input.shape[1:]), "dtype": str(example_input.dtype)},
        [[g.name, g.channels, g.multiple, g.fewest, repr(g.members)] for g in groups],
        [[name, list(t.shape), str(t.dtype)] for name, t in network.state_dict().items()],
        {name: _plain(module) for name, module in network.named_modules()},
        sorted(known),
        repr(network),
        network.plan_text if isinstance(network, EngineNetwork) else "",
        *([loss_key] if loss_key else []),
    )
    encoded = (json.dumps(part, sort_keys=True).encode() for part in parts)
    return parts_digest(encoded, length=32)


_PACKAGES = ("torch", "torchvision")


@lru_cache
def package_digest() -> str:
    """Return a digest of this package's code: with other code, a step may have other tensors."""
    package = Path(__file__).parents[1]
    sources = sorted(package.rglob("*.py"))
    return parts_digest(one.read_bytes() for one in sources)


def _plain(module: nn.Module) -> list[str]:
    """Return the settings of a module, which its printed form may omit."""
    plain = (bool, int, float, str, tuple, type(None))
    return sorted(
        f"{name}={value!r}"
        for name, value in vars(module).items()
        if isinstance(value, plain) and name != "training"
    )


def _source(kind: type) -> str | None:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.partition(".")[0] in ("torch", "torchvision"):
        return name
    try:
        return name + Path(inspect.getfile(kind)).read_text("utf-8")
    except (OSError, TypeError):
        return None
