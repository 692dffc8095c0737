"""The `forward` of a module as source text, from a symbolic trace.

The modules inside stay calls, so one trace covers one module. What depends on training or
evaluation mode is found by tracing in both: values that differ are written as `self.training`, and
where the computations themselves differ, both are written.
"""

import builtins
import inspect
import keyword
import re
import textwrap
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, Node, Tracer
from torch.utils._pytree import tree_flatten, tree_unflatten

from dse.deploy.layer_source import NoSourceError
from dse.user_code import USER_ERRORS, described

_SIGNATURE = re.compile(r"^def forward\((.*?)\)(?: -> .*)?:$")
_ALLOWED = ("torch", "torchvision", "math", "operator", "_operator", "builtins")


@dataclass(frozen=True)
class ForwardSource:
    """A method `forward`.

    Attributes:
        text: its definition, and those of methods that it calls, not indented.
        imports: import statements that it needs, beside `import torch`.
        constants: tensors that it computes with and that are no parameters or buffers, by name.
    """

    text: str
    imports: frozenset[str]
    constants: tuple[tuple[str, torch.Tensor], ...]


def forward_source(module: nn.Module) -> ForwardSource:
    """Return the source of a module's `forward`.

    Args:
        module: a copy, since tracing may add attributes.

    Raises:
        NoSourceError: if it can't be traced, or calls functions of other packages than PyTorch.
    """
    if "forward" in vars(module):
        raise NoSourceError(f"{type(module).__name__} has a forward that is no method of its class")
    own = dict(vars(module))
    try:
        training, evaluating = _in_both_modes(module)
    except NoSourceError:
        # Options that are left out where a network is called often choose what it computes.
        if (plain := _without_options(type(module))) is None:
            raise
        module.__class__ = plain
        training, evaluating = _in_both_modes(module)
    constants = tuple(
        (name, value)
        for name, value in vars(module).items()
        if name not in own and isinstance(value, torch.Tensor)
    )
    if _mark_mode(training, evaluating):
        text, imports = _printed(training)
        return ForwardSource(text, imports, constants)
    (first, some), (second, others) = _printed(training), _printed(evaluating)
    signature = _SIGNATURE.match(first.partition("\n")[0])
    given = "" if signature is None else signature[1].partition(",")[2].strip()
    names = ", ".join(one.partition("=")[0].strip() for one in given.split(",") if one)
    choice = textwrap.dedent(f"""\
        def forward(self, {given}):
            if self.training:
                return self.forward_in_training({names})
            return self.forward_in_evaluation({names})
        """)
    methods = (
        choice,
        first.replace("def forward(", "def forward_in_training(", 1),
        second.replace("def forward(", "def forward_in_evaluation(", 1),
    )
    return ForwardSource("\n".join(methods), some | others, constants)


def _in_both_modes(module: nn.Module) -> tuple[Graph, Graph]:
    return _traced(module, training=True), _traced(module, training=False)


def _without_options(kind: type[nn.Module]) -> type[nn.Module] | None:
    """Return a class whose `forward` takes one input and no options; None if there are none."""
    _, *given = inspect.signature(kind.forward).parameters.values()
    required = [one for one in given if one.default is one.empty]
    if len(required) != 1 or len(given) == 1 or required[0] is not given[0]:
        return None

    def forward(self: nn.Module, x: torch.Tensor) -> Any:
        return kind.forward(self, x)

    return type(kind.__name__, (kind,), {"forward": forward})


class _OneLevel(Tracer):
    """Traces one module; those inside stay calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module stays a call: always."""
        del m, module_qualified_name
        return True


def _traced(module: nn.Module, *, training: bool) -> Graph:
    before = module.training
    module.training = training
    try:
        graph = _OneLevel().trace(module)
    except USER_ERRORS as error:  # the module's own code runs, on stand-ins for tensors
        raise NoSourceError(
            f"forward of {type(module).__name__} can't be traced ({described(error)})"
        ) from error
    finally:
        module.training = before
    for node in graph.nodes:
        node.type = None  # annotations may name types of other packages
    return graph


def _mark_mode(training: Graph, evaluating: Graph) -> bool:
    """Replace values that depend on the mode by `self.training`; False if more depends on it."""
    if len(training.nodes) != len(evaluating.nodes):
        return False
    pairs = list(zip(training.nodes, evaluating.nodes, strict=True))
    twins = {id(ours): theirs for ours, theirs in pairs}
    modal: list[Node] = []
    for ours, theirs in pairs:
        leaves, shape = tree_flatten((ours.args, dict(ours.kwargs)))
        others, other_shape = tree_flatten((theirs.args, dict(theirs.kwargs)))
        alike = (ours.op, ours.target, shape) == (theirs.op, theirs.target, other_shape)
        if not alike or not all(map(partial(_fit, twins), leaves, others)):
            return False
        differ = [isinstance(a, bool) and a is not b for a, b in zip(leaves, others, strict=True)]
        if any(differ):
            modal.append(ours)
            marked = [_MODES[leaf] if d else leaf for leaf, d in zip(leaves, differ, strict=True)]
            ours.args, ours.kwargs = tree_unflatten(marked, shape)
    for node in modal:
        _read_mode(training, node)
    return True


def _fit(twins: dict[int, Node], ours: Any, theirs: Any) -> bool:
    """Return whether two arguments are equal, or depend on the mode alone."""
    if isinstance(ours, Node):
        return twins.get(id(ours)) is theirs
    if isinstance(ours, bool) and isinstance(theirs, bool):
        return True
    return repr(ours) == repr(theirs)  # two NaN are equal, too


def _read_mode(graph: Graph, node: Node) -> None:
    """Let a node read the module's mode where its arguments are marked."""
    leaves, shape = tree_flatten((node.args, dict(node.kwargs)))
    with graph.inserting_before(node):
        mode = graph.create_node("get_attr", "training")
        values = {_MODES[True]: mode}
        if _MODES[False] in [leaf for leaf in leaves if isinstance(leaf, str)]:
            values[_MODES[False]] = graph.call_function(_not, (mode,))
    found = [values.get(leaf, leaf) if isinstance(leaf, str) else leaf for leaf in leaves]
    node.args, node.kwargs = tree_unflatten(found, shape)


_MODES = {True: "<training>", False: "<not training>"}


def _not(value: bool) -> bool:  # noqa: FBT001  # stands for the operator in a graph
    return not value


def _printed(graph: Graph) -> tuple[str, frozenset[str]]:
    """Return a graph's source, and the import statements that it needs."""
    code = graph.python_code("self")
    lines = [line for line in code.src.strip("\n").splitlines() if line.strip()]
    start = next(index for index, line in enumerate(lines) if line.startswith("def forward("))
    text = "\n".join([lines[start], *_tidied(lines[start + 1 :])]) + "\n"
    imports = set()
    for name, value in code.globals.items():
        if name == "torch" or not re.search(rf"(?<![\w.]){re.escape(name)}\b", text):
            continue
        if value is _not:
            text = re.sub(rf"\b{re.escape(name)}\((\w+)\)", r"not \1", text)
            continue
        imports.add(_import(name, value))
    return text, frozenset(imports)


def _tidied(lines: list[str]) -> list[str]:
    """Let a result take the name of a value that is used for the last time, which frees it.

    fx writes `b = f(a);  a = None`; this gives `a = f(a)`.
    """
    slots: dict[str, str] = {}
    tidied: list[str] = []
    for line in lines:
        statement, _, freed = line.strip().partition(";  ")
        dead = [name.strip() for name in freed.split("=")[:-1]]
        name, assigned, expression = statement.partition(" = ")
        if not assigned or not name.isidentifier():
            name, expression = "", statement
        elif name in dead:  # never used
            dead.remove(name)
            name = ""
        for old, new in slots.items():
            expression = re.sub(rf"(?<![\w.'\"]){re.escape(old)}\b(?!\s*=[^=])", new, expression)
        free = [slots.pop(one, one) for one in dead]
        if not name:
            tidied.append(expression)
            continue
        slot, *others = [*free, name] if free else [name]
        if slot != name:
            slots[name] = slot
            others.remove(name)
        tidied.append(f"{slot} = {expression}")
        if others:
            tidied.append(f"del {', '.join(others)}")
    return [f"    {line}" for line in _shortened(tidied)]


def _shortened(lines: list[str]) -> list[str]:
    """Return the last value directly where that is all that is left to do."""
    if len(lines) > 1 and lines[-2].startswith("del "):
        del lines[-2]
    if len(lines) > 1 and lines[-1].startswith("return "):
        name = lines[-1].removeprefix("return ")
        if name.isidentifier() and lines[-2].startswith(f"{name} = "):
            return [*lines[:-2], f"return {lines[-2].removeprefix(f'{name} = ')}"]
    return lines


def _import(name: str, value: Any) -> str:
    if name in ("inf", "nan"):
        return f"from math import {name}"
    module, own = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if isinstance(value, type(torch)):
        module, own = value.__name__, ""
    known = str(module).partition(".")[0] in _ALLOWED
    if not known or not all(part.isidentifier() for part in own.split(".") if part):
        raise NoSourceError(f"it calls {module}.{own}, which is not PyTorch's")
    if not own:
        return f"import {module} as {name}"
    if "." in own:
        raise NoSourceError(f"it calls {module}.{own}, which can't be imported by itself")
    return f"from {module} import {own}" + ("" if own == name else f" as {name}")


def is_plain_name(name: str) -> bool:
    """Return whether a name may stand as an attribute or a keyword argument in source text."""
    return name.isidentifier() and not keyword.iskeyword(name) and name not in vars(builtins)
