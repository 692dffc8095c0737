"""Read files of weights in common forms, and match their tensors with a network's."""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dse.errors import NetworkError
from dse.networks.fixed import listed
from dse.user_code import described
from dse.weight_files import SUFFIXES

Tensors = Mapping[str, Tensor]

# Where a checkpoint may hold the weights, the averaged ones first: those are what people evaluate.
_INSIDE = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "params",
    "weights",
    "module",
    "shadow",
)
_DEEPEST = 4

# What profilers, weight averaging and old trainers leave in a network.
_FOREIGN = ("total_ops", "total_params", "n_averaged")
_COUNTER = "num_batches_tracked"
_COMPILED = "_orig_mod."


@dataclass(frozen=True)
class Matched:
    """A file's tensors under a network's own names.

    Attributes:
        tensors: Tensors to load.
        new: Names of the network's tensors that keep their initial values.
        ignored: Names of the file's tensors that the network does not have.
        notes: Other changes, each in a few words.
    """

    tensors: dict[str, Tensor]
    new: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]

    def line(self, path: Path) -> str:
        """Return a one-line summary of the match."""
        parts = [f"{len(self.tensors)} tensors loaded"]
        if self.new:
            parts.append(f"{len(self.new)} left new ({listed(self.new)})")
        if self.ignored:
            parts.append(f"{len(self.ignored)} ignored ({listed(self.ignored)})")
        return f"weights {path.name}: {', '.join((*parts, *self.notes))}"


def read_weights(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Read a file of weights without executing any code in it.

    Args:
        path: Path of a safetensors file, or of tensors that ``torch.save`` wrote.

    Returns:
        The tensors by name, and notes on where in the file they were.

    Raises:
        NetworkError: If the file is missing or damaged, or does not hold weights.
    """
    if not path.is_file():
        raise NetworkError(f"no weights at {path}; give a file ({', '.join(SUFFIXES)})")
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path), ()
        except (SafetensorError, OSError) as error:
            raise NetworkError(
                f"{path} is not a readable safetensors file ({error}); write it again"
            ) from error
    return _inside(_unpickled(path), path)


def match(
    tensors: Tensors,
    network: nn.Module,
    *,
    head: frozenset[str],
    source: str,
    optional: tuple[str, ...] = (),
) -> Matched:
    """Give a file's tensors the names, and types, that a network's own tensors have.

    Prefixes such as ``module.`` (DataParallel), ``model.`` (Lightning) and ``_orig_mod.``
    (torch.compile) are taken off; what profilers left and what lies outside the prefix is ignored;
    counters that old files lack keep their start value. The classifier is left new as a whole where
    the file lacks it or has another number of classes. Anything else must fit.

    Args:
        tensors: Tensors of the file.
        network: The network. It is not changed.
        head: Names of the tensors whose shapes depend on the number of classes.
        source: Where the tensors came from, for messages.
        optional: Prefixes of tensors that the network may lack, such as auxiliary heads.

    Raises:
        NetworkError: If the weights are not finite or of another network; the message has the
            first names that don't fit, and how many there are.
    """
    own = network.state_dict()
    prefix, stripped, outside = _stripped(tensors, own, source=source)
    notes = [f"prefix {prefix!r} taken off"] if prefix else []
    extra = [name for name in stripped if name not in own]
    foreign = [
        name for name in extra if name.rpartition(".")[2] in _FOREIGN or name.startswith(optional)
    ]
    missing = [name for name in own if name not in stripped and name.rpartition(".")[2] != _COUNTER]
    misfits = [name for name in own if name in stripped and not _fits(stripped[name], own[name])]
    renewed = set(head) if any(name in head for name in (*missing, *misfits)) else set()
    trouble = (
        [f"{name!r} is missing" for name in missing if name not in renewed]
        + [_difference(name, stripped[name], own[name]) for name in misfits if name not in renewed]
        + [f"the network has no {name!r}" for name in extra if name not in foreign]
    )
    if trouble:
        counted = f"{trouble[0]}" if len(trouble) == 1 else f"{'; '.join(trouble[:_SHOWN])}"
        more = f" and {len(trouble) - _SHOWN} more" if len(trouble) > _SHOWN else ""
        shared = sum(1 for name in own if name in stripped)
        raise NetworkError(
            f"{source} doesn't fit {type(network).__name__}: {counted}{more}; {shared} of its "
            f"{len(own)} tensors are in the file by name: give the weights of this very network"
        )
    loaded = {name: stripped[name] for name in own if name in stripped and name not in renewed}
    if not loaded:
        raise NetworkError(
            f"{source} holds no tensor of {type(network).__name__} except its classifier's"
        )
    _check_finite(loaded, source=source)
    kinds = {t.dtype for n, t in loaded.items() if t.dtype != own[n].dtype}
    notes += [f"{str(kind).removeprefix('torch.')} cast" for kind in sorted(kinds, key=str)]
    cast = {name: tensor.to(own[name].dtype) for name, tensor in loaded.items()}
    new = tuple(name for name in own if name not in cast and name.rpartition(".")[2] != _COUNTER)
    return Matched(cast, new, (*foreign, *outside), tuple(notes))


_SHOWN = 3  # mismatches in a message


def _unpickled(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NetworkError(
            f"{path} holds Python objects beside tensors, which are never executed here "
            f"({_kind_of_object(error)}); where you trust it, write the tensors alone: "
            "torch.save(torch.load(FILE, weights_only=False).state_dict(), 'weights.pth'), or "
            "['state_dict'] in place of .state_dict() if it is a dictionary"
        ) from error
    except Exception as error:  # a damaged file may raise anything
        if "TorchScript" in str(error):
            raise NetworkError(
                f"{path} is a TorchScript archive; write its tensors: "
                "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
            ) from error
        raise NetworkError(
            f"{path} can't be read as weights ({described(error)}); write it again with "
            "torch.save(network.state_dict(), 'weights.pth')"
        ) from error


def _kind_of_object(error: Exception) -> str:
    """The class that a file asks for, as torch's long message has it."""
    for line in str(error).splitlines():
        _, found, name = line.partition("GLOBAL ")
        if found:
            return name.split()[0].strip("`'\"")
    return "of a class of its own"


def _inside(held: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Find the weights in what a file holds."""
    taken: list[str] = []
    others: list[str] = []
    for _ in range(_DEEPEST):
        if not isinstance(held, Mapping):
            break
        tensors = {str(name): t for name, t in held.items() if isinstance(t, Tensor)}
        inner = [key for key in _INSIDE if _has_tensors(held.get(key))]
        if tensors and (len(tensors) == len(held) or not inner):
            notes = [f"taken from {'.'.join(taken)!r} of the file"] if taken else []
            if others:
                notes.append(f"preferred to {' and '.join(map(repr, others))}")
            return tensors, tuple(notes)
        if not inner:
            break
        others += [".".join([*taken, key]) for key in inner[1:]]
        taken.append(inner[0])
        held = held[inner[0]]
    keys = ", ".join(map(str, list(held)[:8])) if isinstance(held, Mapping) else ""
    kind = f"a dictionary with {keys or 'nothing'}" if isinstance(held, Mapping) else type(held)
    raise NetworkError(
        f"{path} holds no weights, but {kind}: write them with "
        "torch.save(network.state_dict(), 'weights.pth')"
    )


def _has_tensors(value: object, depth: int = _DEEPEST) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(each, Tensor) or (depth > 0 and _has_tensors(each, depth - 1))
        for each in value.values()
    )


def _stripped(
    tensors: Tensors, own: Tensors, *, source: str
) -> tuple[str, dict[str, Tensor], tuple[str, ...]]:
    """Take off the prefix under which most of a network's names are found.

    Returns:
        The prefix, the tensors under it without it, and names of those outside it.
    """
    if not any(_COMPILED in name for name in own):
        tensors = {name.replace(_COMPILED, ""): tensor for name, tensor in tensors.items()}
    found: dict[str, int] = {}
    for name in tensors:
        for prefix in _prefixes(name):
            if name.removeprefix(prefix) in own:
                found[prefix] = found.get(prefix, 0) + 1
    most = max(found.values(), default=0)
    best = [prefix for prefix, count in found.items() if count == most]
    if len(best) > 1 and "" not in best:
        raise NetworkError(
            f"{source} holds the network {len(best)} times, under {' and '.join(map(repr, best))}: "
            "write the one that is meant into a file of its own"
        )
    prefix = "" if not best or "" in best else best[0]
    inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return prefix, inside, tuple(name for name in tensors if not name.startswith(prefix))


def _prefixes(name: str) -> Iterator[str]:
    """Every part of a dotted name that may be a prefix, the empty one first."""
    yield ""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        yield ".".join(parts[:depth]) + "."


def _fits(tensor: Tensor, own: Tensor) -> bool:
    alike = tensor.is_floating_point() == own.is_floating_point()
    return tensor.shape == own.shape and alike


def _difference(name: str, tensor: Tensor, own: Tensor) -> str:
    if tensor.shape == own.shape:
        return f"{name!r} is {tensor.dtype} where the network has {own.dtype}"
    return f"{name!r} has shape {tuple(tensor.shape)} where the network has {tuple(own.shape)}"


def _check_finite(tensors: Tensors, *, source: str) -> None:
    wrong = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if wrong:
        raise NetworkError(
            f"{source}: {listed(wrong)} of the weights aren't finite (NaN or infinite): give a "
            "file from before the training diverged"
        )
