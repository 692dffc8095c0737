"""The files of a lean bundle: `lean.py` runs the step with PyTorch alone, `lean.json` says how.

`lean.py` is the module of that name in `bundle_files`, without operators that the network lacks.
"""

import ast
import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from dse.deploy.recipe import Recipe
from dse.engines.lowered import Data, lowered
from dse.engines.network import LeanNetwork, run_by
from dse.engines.plan import LeanPlan
from dse.pruning.resize import resized
from dse.step.schemes import apply_scheme

LEAN_FILE = "lean.py"
STEPS_FILE = "lean.json"

_MODULE = Path(__file__).parent / "bundle_files" / LEAN_FILE
_KINDS = "KINDS"  # where the module lists its operators


class LeanFiles(NamedTuple):
    """Contents of both files."""

    source: str
    steps: str


def lean_files(network: nn.Module, recipe: Recipe, plan: LeanPlan) -> LeanFiles:
    """Write a bundle's lean step.

    Args:
        network: the network, which is not changed.
        recipe: its recipe, with the scheme and the shape of a sample.
        plan: the plan of its step.

    Raises:
        NetworkError: if the network can't be written as steps.
    """
    shell, example = resized(network, (), ()), recipe.input_spec.example(2)
    if example.is_floating_point():
        kinds = (p.dtype for p in network.parameters() if p.is_floating_point())
        example = example.to(next(kinds, example.dtype))
    apply_scheme(shell, example.to("meta"), recipe.scheme)
    lean = run_by(shell, example, plan)
    if not isinstance(lean, LeanNetwork):
        raise TypeError(f"{type(lean).__name__} is not lean")
    steps = lowered(lean, example)
    text = json.dumps(steps, separators=(",", ":"))
    blocks = [block for program in steps["programs"] for block in program["blocks"]]
    operators = frozenset(kind for block in blocks for kind in _operators(block.get("ops", ())))
    return LeanFiles(_source(operators), text + "\n")


def run_as_in_bundle(network: nn.Module, files: LeanFiles) -> nn.Module:
    """Let a network run its training steps by the code and the steps of a bundle's files.

    Args:
        network: the network, with its scheme applied. It is changed and returned.
        files: what `lean_files` returned; never files of unknown origin, which may run any code.
    """
    space: dict[str, Any] = {}
    exec(compile(files.source, LEAN_FILE, "exec"), space)  # noqa: S102  # our own module
    make: Callable[[nn.Module, Data], nn.Module] = space["lean"]
    return make(network, json.loads(files.steps))


def _operators(ops: Iterable[Data]) -> Iterator[str]:
    """Yield the kinds of operators, and of those that they are made of."""
    for op in ops:
        yield op["kind"]
        yield from _operators(op.get("ops", ()))


@cache
def _source(kinds: frozenset[str]) -> str:
    """Return the module with these operators and what they need."""
    text = _MODULE.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    tree = ast.parse(text)
    defined = {name: node for node in tree.body for name in _defined(node)}
    needed, open_ = {_KINDS}, ["lean", *kinds]
    while open_:
        name = open_.pop()
        if name in defined and name not in needed:
            needed.add(name)
            used = ast.walk(defined[name])
            open_ += [one.id for one in used if isinstance(one, ast.Name)]
    found, start = "", 0
    for node in tree.body:
        end = node.end_lineno or node.lineno
        names = _defined(node)
        if _KINDS in names:
            listed = "".join(f"{kind}, " for kind in sorted(kinds)).rstrip()
            found += f"\n\n{_KINDS} = ({listed})\n"
        elif not names or needed & set(names):
            found += "".join(lines[start:end])
        start = end
    return found


def _defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement of the module defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [one.id for one in node.targets if isinstance(one, ast.Name)]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [one.name for one in node.names]
    return []
