"""What a run must find again to go on: the network's shape and the data."""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from torch import nn

from dse.config import Study
from dse.data import DataParts
from dse.digests import json_digest
from dse.networks.fixed import fixed_parameters
from dse.search.data_files import taken_out
from dse.search.run_file import RunFile
from dse.search.run_folder import RunFolder

# Keys of the fingerprint that may be excused.
DATA_FILES = "data files (by name and size)"
DATA_IMAGES = "data images"


def fingerprint_of(network: nn.Module, data: DataParts) -> dict[str, Any]:
    """Return what identifies the network's shape and the data, which the study file doesn't show.

    Args:
        network: the unpruned network.
        data: the target's parts.
    """
    found: dict[str, Any] = {
        "network": _shape_digest(network),
        "data.labels": list(data.labels),
        DATA_IMAGES: [len(data.train), len(data.selection), len(data.validation)],
    }
    if fixed := fixed_parameters(network):
        found["frozen by the factory"] = sorted(fixed)
    if data.train.labels.ndim > 1:
        parts = (data.train, data.selection, data.validation)
        found["data.table"] = json_digest([part.labels.tolist() for part in parts])
    if data.files is not None:
        found[DATA_FILES] = json_digest(dict(data.files))
    return found


def model_key_of(study: Study, fingerprint: Mapping[str, Any]) -> str:
    """Return a digest of everything that the memory models of a run depend on.

    Args:
        study: the resolved study.
        fingerprint: see `fingerprint_of`.
    """
    training = study.training.model_dump(exclude={"learning_rate", "threads", "device"})
    loss = study.task.model_dump(mode="json", exclude={"metric", "metric_range", "standardise"})
    own = {} if study.task.kind == "classification" and not study.task.loss else {"task": loss}
    return json_digest(
        {
            **own,
            "network": [study.network.name, study.network.options, fingerprint["network"]],
            "frozen": fingerprint.get("frozen by the factory"),
            "image_size": study.data.image_size,
            "training": training,
            "versions": {name: version(name) for name in ("dse", "torch", "torchvision")},
        }
    )


def confirmed(
    folder: RunFolder,
    file: RunFile,
    fingerprint: Mapping[str, Any],
    data: DataParts,
    on_message: Callable[[str], None],
) -> frozenset[str]:
    """Check that the network and the data are those that the run began with.

    Args:
        folder: the run folder.
        file: the content of its `run.json`.
        fingerprint: the fingerprint now.
        data: the target's parts.
        on_message: called with one line if unreadable images were removed.

    Returns:
        Keys of the fingerprint that may differ because unreadable images were removed.

    Raises:
        RunError: if anything else differs; the message names it.
    """
    of_files = frozenset({DATA_FILES, DATA_IMAGES})
    folder.confirm(file, fingerprint, excused=of_files)
    gone = taken_out(folder.path, data.files)
    excused = of_files if gone else frozenset[str]()
    folder.confirm(file, fingerprint, excused=excused)
    if gone:
        on_message(
            f"{len(gone)} images that can't be read were taken out since the run began, such as "
            f"{gone[0]}: it goes on without them, and what was scored before keeps its score"
        )
    return excused


def _shape_digest(network: nn.Module) -> str:
    """Return a digest of the names and shapes of parameters and buffers, as 16 hex digits."""
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    return json_digest(shapes)
