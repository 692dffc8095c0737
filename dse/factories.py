"""Imports a user's factory of networks or data sets, named as `package.module:factory`."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dse.errors import DseError, NetworkError
from dse.names import NETWORKS, either, nearest
from dse.user_code import USER_ERRORS, described


def load_factory(
    spec: str, *, search_path: Path | None, place: str, error: type[DseError]
) -> Callable[..., Any]:
    """Import the function or class that a text names.

    Args:
        spec: "package.module:factory".
        search_path: folder that is searched first; the current folder comes second.
        place: start of error messages, such as "network 'my_module:build'".
        error: type of the errors.

    Raises:
        DseError: of type `error`, if the text has another form, or the module doesn't exist, fails
            on import, or has no such function.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise error(
            f"{place} is not a valid name: write {either(NETWORKS)}"
            if error is NetworkError
            else f"{place} is not a valid name: write torchvision:NAME or package.module:factory"
        )
    with importable(search_path):
        try:
            module = importlib.import_module(module_name)
        except USER_ERRORS as raised:  # a user's module may do anything when imported
            raise error(
                f"{place}: importing {module_name!r} failed: {described(raised)}"
            ) from raised
    factory = getattr(module, attribute, None)
    if not callable(factory):
        near = nearest(attribute, [name for name, one in vars(module).items() if callable(one)])
        hint = f", did you mean {near!r}?" if near else ""
        raise error(f"{place}: {module_name} has no function {attribute!r}{hint}")
    return factory  # type: ignore[no-any-return]


@contextmanager
def importable(folder: Path | None) -> Iterator[None]:
    """Make modules importable from a folder and from the current one."""
    added = [str(one) for one in (folder, Path.cwd()) if one is not None]
    sys.path[:0] = added
    try:
        yield
    finally:
        for one in added:  # what the user's own code added stays
            with suppress(ValueError):
                sys.path.remove(one)
