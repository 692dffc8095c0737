"""Files of `torch.export.save`, read only if reading them can't run code.

`torch.export.load` unpickles some payloads, loads compiled libraries, evaluates the text of
symbolic sizes, and takes any function of PyTorch as an operator. So the archive is looked at first:
it may hold plain tensors, sizes of a few forms, and PyTorch's own tensor operators.
"""

import io
import json
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from dse.errors import NetworkError
from dse.textfiles import exists
from dse.user_code import USER_ERRORS, described

SUFFIX = ".pt2"
_MOST_JSON_BYTES = 256 * 2**20
_SAMPLES = "/data/sample_inputs/"
_PAYLOADS = ("/data/weights/", "/data/constants/")
_COMPILED = "/data/aotinductor/"

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+|torch\.sym_(int|float|max|min|not)|"
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_)"
)
_SYMBOL = re.compile(r"Symbol\('[su]\d+'(, \w+=(True|False))*\)")
_WORD = re.compile(r"[A-Za-z_]\w*")
_FUNCTIONS = frozenset(
    ("Integer", "Rational", "Add", "Mul", "Pow", "Mod", "PythonMod", "Max", "Min", "FloorDiv")
)
_ARITHMETIC = re.compile(r"[\w\s+\-*/(),]*")


def read_program(path: Path, *, title: str) -> ExportedProgram:
    """Read a program that `torch.export.save` wrote.

    Args:
        path: The file.
        title: Name of the network, for messages.

    Raises:
        NetworkError: If the file is missing or damaged, or holds more than a program of plain
            tensors and PyTorch's operators.
    """
    if not exists(path):
        raise NetworkError(f"network {title!r}: there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive)
    except _RefusedError as error:
        raise NetworkError(
            f"network {title!r}: {path} {error}; write it anew with torch.export.save, from a "
            "network of PyTorch's own operators"
        ) from error
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, RecursionError) as error:
        raise NetworkError(
            f"network {title!r}: {path} can't be read as a file of torch.export.save "
            f"({described(error)})"
        ) from error
    try:
        with _quiet():
            return torch.export.load(path)
    except USER_ERRORS as error:  # the loader trusts the file's structure
        raise NetworkError(
            f"network {title!r}: {path} is damaged, or of another release of PyTorch "
            f"({described(error)}): write it anew with torch.export.save"
        ) from error


class _RefusedError(Exception):
    """Says what a file holds that isn't read."""


def _check(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    inner = [f"/{name.partition('/')[2]}" for name in names]
    if any(name.startswith(_COMPILED) for name in inner):
        raise _RefusedError("holds a compiled library, which isn't a network that can be trained")
    models = [
        name
        for name, own in zip(names, inner, strict=True)
        if own.startswith("/models/") and own.endswith(".json")
    ]
    if len(models) != 1:
        raise _RefusedError(f"holds {len(models)} programs, not one")
    for name, own in zip(names, inner, strict=True):
        if own.startswith(_SAMPLES):
            _check_samples(archive.read(name))
        elif own.endswith(".pt"):
            raise _RefusedError(f"holds a pickle ({own[1:]}), which may run code")
        elif own.startswith(_PAYLOADS) and own.endswith(".json"):
            _check_payloads(_json(archive, name))
    _check_program(_json(archive, models[0]))


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _MOST_JSON_BYTES:
        raise _RefusedError(f"has a program of more than {_MOST_JSON_BYTES // 2**20} MiB")
    return json.loads(archive.read(name))


def _check_samples(content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        raise _RefusedError("holds sample inputs that aren't plain tensors") from error


def _check_payloads(content: Any) -> None:
    for name, payload in content["config"].items():
        if payload.get("use_pickle") or not str(payload["path_name"]).startswith(
            ("weight_", "tensor_")
        ):
            raise _RefusedError(f"holds {name!r} as a pickle, which may run code")


def _check_program(content: Any) -> None:
    for table in _tables(content):
        target = table.get("target")
        if isinstance(target, str) and "inputs" in table and not _OPERATOR.fullmatch(target):
            raise _RefusedError(f"calls {target[:60]!r}, which is none of PyTorch's operators")
        text = table.get("expr_str")
        if isinstance(text, str) and not _is_plain_size(text):
            raise _RefusedError(f"has the size {text[:60]!r}, which isn't read")


def _tables(content: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a JSON document."""
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _is_plain_size(text: str) -> bool:
    """Whether the text of a symbolic size is arithmetic of symbols and numbers."""
    left = _SYMBOL.sub("0", text)
    return _ARITHMETIC.fullmatch(left) is not None and set(_WORD.findall(left)) <= _FUNCTIONS


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and log lines of the loader; errors are raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)
