"""A cache of trained weights; each file holds a digest of its tensors."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dse.atomic import replaced_whole
from dse.caches import CACHE_VARIABLE
from dse.digests import parts_digest
from dse.errors import NetworkError, RunError
from dse.networks.build import load_tensors

DIGEST = "sha256"
"""Key of the file's metadata that holds the digest of its tensors."""

_LOG = logging.getLogger(__name__)


def load_cached(network: nn.Module, path: Path) -> bool:
    """Load cached weights after checking them against the digest that is stored with them.

    A damaged file, even by a single bit, is not used; a warning is logged instead.

    Args:
        network: network to load into; set to eval mode on success and unchanged otherwise.
        path: the file.

    Returns:
        Whether an intact file was loaded.
    """
    if not path.exists():
        return False
    try:
        _check_digest(path)
        load_tensors(network, path)
    except NetworkError as error:
        _LOG.warning("%s: the weights are trained anew", error)
        return False
    network.eval()
    return True


def write_cached(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write weights to a temporary file and move it in place, so that no file is incomplete.

    Args:
        network: network whose tensors are written.
        path: the file.
        metadata: metadata to store beside the digest.

    Raises:
        RunError: if the file can't be written.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_whole(path) as partial:
            save_file(tensors, partial, metadata={**metadata, DIGEST: tensors_digest(tensors)})
    except (OSError, SafetensorError) as error:  # safetensors wraps the OSError of a full disk
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"trained weights can't be kept in {path.parent} ({reason}): "
            f"set {CACHE_VARIABLE} to a folder that can be written"
        ) from error


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 digest of tensors with their names, dtypes and shapes, in hexadecimal."""

    def parts() -> Iterator[bytes]:
        for name, tensor in sorted(tensors.items()):
            yield f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode()
            yield tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()

    return parts_digest(parts())


def _check_digest(path: Path) -> None:
    """Compare a file's tensors with its digest.

    Raises:
        NetworkError: if they differ, or the file can't be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get(DIGEST)
        found = tensors_digest(load_file(path))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise NetworkError(f"{path} is damaged ({error})") from error
    if found != expected:
        raise NetworkError(f"{path} is damaged: its digest doesn't match its weights")
