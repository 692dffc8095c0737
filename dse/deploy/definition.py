"""A network's own definition: `network.py`, which needs nothing but PyTorch.

Every layer is written with its pruned width, and every other module as a class with the `forward`
that a symbolic trace found (docs/decisions/0019-a-definition-in-python.md).
"""

import copy
import textwrap
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dse.deploy.forward_source import ForwardSource, forward_source, is_plain_name
from dse.deploy.layer_source import NoSourceError, can_have_other_outputs, is_layer, layer_source
from dse.deploy.written_classes import ADAPTED, PART
from dse.networks.classifier import classifier_parameters
from dse.networks.forward import tensors_in
from dse.step.lora import adapter_of
from dse.step.side_branch import SideBranch

_MOST_INLINE = 256  # elements of a tensor that is written as text
_TAKEN = ("Part", "Adapted", "build", "merge", "torch", "nn")
_INDENT = " " * 4

_ATTACHED = """\
{block}.register_forward_hook(
    lambda _block, images, output, branch={branch}: branch(images[0], output)
)
"""


def definition(network: nn.Module, example_input: Tensor, *, title: str) -> str:
    """Write a network's definition.

    Args:
        network: the network, which is not changed.
        example_input: images (2 or more, channels, height, width) to compare both networks on.
        title: first line of the file.

    Returns:
        Source text with a function `build(classes)`, whose network has the same outputs, gradients
        and tensors' names in training and evaluation mode.

    Raises:
        NoSourceError: if there is no such text, with the module and the reason.
    """
    own = copy.deepcopy(network)
    writer = _Writer(own, head=output_layer(network, example_input))
    source = writer.file(title)
    _check(source, network, example_input)
    return source


def output_layer(network: nn.Module, example_input: Tensor) -> str | None:
    """Return the name of the output layer; None if it can't have another number of outputs."""
    parameters = classifier_parameters(network, example_input)
    owners = {name.rpartition(".")[0] for name in parameters}
    if len(owners) != 1:
        return None
    (name,) = owners
    return name if can_have_other_outputs(network.get_submodule(name)) else None


@dataclass
class _Writer:
    """Collects the classes of a network while its modules are written."""

    network: nn.Module
    head: str | None
    classes: dict[str, str] = field(default_factory=dict)  # source of each class, by name
    imports: set[str] = field(default_factory=set)
    written: dict[int, str] = field(default_factory=dict)  # first name of each module
    shared: list[tuple[str, str]] = field(default_factory=list)

    def file(self, title: str) -> str:
        """Return the whole file."""
        expression = self.module(self.network, "")
        outputs = "" if self.head is None else f"classes={self._outputs()}"
        body = textwrap.indent(f"network = {expression}\n", _INDENT)
        for name, first in (*self.shared, *_tied(self.network)):
            body += f"{_INDENT}{_place(name)} = {_place(first)}\n"
        for block, branch in _attached(self.network):
            text = _ATTACHED.format(block=_place(block), branch=_place(branch))
            body += textwrap.indent(text, _INDENT)
        head = [f'"""{title}"""\n', "import torch", *sorted(self.imports), "from torch import nn\n"]
        doc = f'{_INDENT}"""Build the network, with random weights."""\n'
        classes = "\n\n".join(["", PART.strip() + "\n", *self.classes.values()])
        build = f"\n\ndef build({outputs}):\n{doc}{body}{_INDENT}return network\n"
        return "\n".join(head) + classes + build

    def _outputs(self) -> int:
        return len(self.network.get_parameter(f"{self.head}.weight"))

    def module(self, module: nn.Module, name: str) -> str:
        """Return the expression that builds a module."""
        self.written[id(module)] = name
        try:
            return self._expression(module, name)
        except NoSourceError as error:
            if str(error).startswith("module "):
                raise
            where = f"{name or 'network'} ({type(module).__name__})"
            raise NoSourceError(f"module {where}: {error}") from error

    def _expression(self, module: nn.Module, name: str) -> str:
        if module._forward_pre_hooks or not all(map(_branch_of, _hooks(module))):  # noqa: SLF001  # no public name
            raise NoSourceError("it has hooks")
        if is_layer(module):
            return self._layer(module, name)
        if (adapter := adapter_of(module)) is not None:
            self.classes.setdefault("Adapted", ADAPTED.strip() + "\n")
            base = self.module(module.get_submodule("base_layer"), f"{name}.base_layer")
            return f"Adapted({base}, rank={adapter.rank}, scale={adapter.scale!r})"
        if type(module).forward is nn.Sequential.forward and not _own_tensors(module):
            return self._sequence(module, name)
        if type(module) is nn.ModuleList:
            return _listed("nn.ModuleList([", self._children(module, name), "])")
        if type(module) is nn.ModuleDict:
            parts = [f"{key!r}: {text}" for key, text in self._named(module, name)]
            return _listed("nn.ModuleDict({", parts, "})")
        return self._class(module, name)

    def _layer(self, module: nn.Module, name: str) -> str:
        return layer_source(module, outputs="classes" if name == self.head else None)

    def _named(self, module: nn.Module, name: str) -> list[tuple[str, str]]:
        """Return the expression of each child, by its own name; a shared one is put in later."""
        found = []
        for key, child in module._modules.items():  # noqa: SLF001  # named_children drops shared ones
            full = f"{name}.{key}".strip(".")
            if child is None:
                found.append((key, "None"))
            elif id(child) in self.written:
                self.shared.append((full, self.written[id(child)]))
                found.append((key, "nn.Identity()"))
            else:
                found.append((key, self.module(child, full)))
        return found

    def _children(self, module: nn.Module, name: str) -> list[str]:
        return [text for _, text in self._named(module, name)]

    def _sequence(self, module: nn.Module, name: str) -> str:
        named = self._named(module, name)
        if [key for key, _ in named] == [str(index) for index in range(len(named))]:
            return _listed("nn.Sequential(", [text for _, text in named], ")")
        self.imports.add("from collections import OrderedDict")
        parts = [f"{key}={text}" if is_plain_name(key) else "" for key, text in named]
        if not all(parts):
            pairs = [f"({key!r}, {text})" for key, text in named]
            return _listed("nn.Sequential(OrderedDict([", pairs, "]))")
        return _listed("nn.Sequential(OrderedDict(", parts, "))")

    def _class(self, module: nn.Module, name: str) -> str:
        kind = type(module)
        if kind.forward is nn.Module.forward:  # never called itself
            forward = ForwardSource("", frozenset(), ())
        else:
            forward = forward_source(module)
        self.imports |= forward.imports
        named = [(key, text) for key, text in self._named(module, name) if text != "None"]
        absent = [key for key, child in module._modules.items() if child is None]  # noqa: SLF001
        tensors = [(key, _tensor(key, value, module)) for key, value in _own_tensors(module)]
        constants = [(key, _constant(value)) for key, value in forward.constants]
        parts = [*named, *((key, "None") for key in absent), *tensors, *constants]
        written = [f"{key}={text}" for key, text in parts if is_plain_name(key)]
        others = [f"{key!r}: {text}" for key, text in parts if not is_plain_name(key)]
        if others:
            written.append(_listed("**{", others, "}"))
        return _listed(f"{self._class_name(kind.__name__, forward.text)}(", written, ")")

    def _class_name(self, wanted: str, forward: str) -> str:
        """Return the name of the class with this `forward`, which is added if there is none."""
        base = wanted if is_plain_name(wanted) and wanted not in _TAKEN else f"Own{wanted}"
        base = base if is_plain_name(base) else "Block"
        body = textwrap.indent(forward, _INDENT) or f"{_INDENT}pass\n"
        number = 1
        while True:
            name = base if number == 1 else f"{base}{number}"
            source = f"class {name}(Part):\n{body}"
            if self.classes.setdefault(name, source) == source:
                return name
            number += 1


def _listed(start: str, parts: list[str], end: str) -> str:
    """Write parts between brackets, each on a line of its own."""
    if not parts:
        return start + end
    lines = "".join(textwrap.indent(f"{part},\n", _INDENT) for part in parts)
    return f"{start}\n{lines}{end}"


def _own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _tensor(name: str, value: Tensor, module: nn.Module) -> str:
    """Return the expression of a parameter or buffer."""
    kind = "" if value.dtype == torch.float32 else f", dtype={value.dtype}"
    empty = f"torch.zeros({tuple(value.shape)}{kind})"
    if isinstance(value, nn.Parameter):
        return (
            f"nn.Parameter({empty})"
            if value.is_floating_point()
            else f"nn.Parameter({empty}, False)"
        )
    if name in module._non_persistent_buffers_set:  # noqa: SLF001  # no public name
        return _constant(value)
    return f"nn.Buffer({empty})"


def _constant(value: Tensor) -> str:
    """Return the expression of a tensor whose values no file of weights holds."""
    if value.numel() > _MOST_INLINE:
        raise NoSourceError(
            f"it computes with a constant of {value.numel()} numbers that is no parameter and no "
            "persistent buffer; register it as one"
        )
    values = value.detach().cpu().tolist()
    return f"nn.Buffer(torch.tensor({values!r}, dtype={value.dtype}), persistent=False)"


def _tied(network: nn.Module) -> list[tuple[str, str]]:
    """Return (name, first name) of each parameter that is another one under a second name."""
    first: dict[int, str] = {}
    found = []
    for module_name, module in network.named_modules():
        for key, value in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{module_name}.{key}".strip(".")
            if first.setdefault(id(value), name) != name:
                found.append((name, first[id(value)]))
    return found


def _hooks(module: nn.Module) -> list[object]:
    return list(module._forward_hooks.values())  # noqa: SLF001  # no public name


def _branch_of(hook: object) -> SideBranch | None:
    """Return the side branch that a forward hook runs; None if it does something else."""
    owner = getattr(hook, "__self__", None)
    return owner if isinstance(owner, SideBranch) and hook == owner.after else None


def _attached(network: nn.Module) -> list[tuple[str, str]]:
    """Return the names of blocks that have a side branch, and of the branch."""
    names = {id(module): name for name, module in network.named_modules()}
    return [
        (name, names[id(_branch_of(hook))])
        for name, module in network.named_modules()
        for hook in _hooks(module)
    ]


def _place(name: str) -> str:
    """Return the expression of a module or parameter by its name in the network."""
    text = "network"
    for part in name.split("."):
        text += f".{part}" if is_plain_name(part) else f"._modules[{part!r}]"
    return text


def _check(source: str, network: nn.Module, images: Tensor) -> None:
    """Check that a definition gives the network's outputs and gradients.

    Raises:
        NoSourceError: if outputs or gradients differ, or the definition doesn't run.
    """
    space: dict[str, object] = {}
    try:
        exec(compile(source, "network.py", "exec"), space)  # noqa: S102  # written just above
        build = space["build"]
        other: nn.Module = build()  # type: ignore[operator]  # a function
        other.load_state_dict(network.state_dict(), strict=True)
        results = [_results(one, images) for one in (copy.deepcopy(network), other)]
    except Exception as error:  # whatever the text does wrong
        text = " ".join(str(error).split())[:200]
        raise NoSourceError(
            f"its definition doesn't run: {type(error).__name__}: {text}"
        ) from error
    ours, theirs = results
    same = len(ours) == len(theirs) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    if not same:
        raise NoSourceError("its definition computes other outputs or gradients than the network")


def _results(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Return outputs in both modes, and the gradients in training mode."""
    found: list[Tensor] = []
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    with torch.random.fork_rng(devices=[]):
        for training in (False, True):
            torch.manual_seed(0)
            network.train(training)
            outputs = list(tensors_in(network(images)))
            found += [one.detach().clone() for one in outputs]
        total = torch.stack([one.square().sum() for one in outputs if one.requires_grad]).sum()
        network.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
    found += [p.grad for _, p in sorted(network.named_parameters()) if p.grad is not None]
    return found
