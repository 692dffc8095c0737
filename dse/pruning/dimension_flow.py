"""Follow every axis of every tensor through a forward pass, operator by operator.

The pass runs on meta tensors under a dispatch mode. Each axis of each parameter begins as an
unknown factor (:mod:`dse.pruning.factors`); each operator tells which axes are the same, and how
they are divided. What is learned this way is only proposed: :mod:`dse.pruning.consistency` verifies
it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dse.networks.forward import tensors_in
from dse.pruning.factor_division import unify
from dse.pruning.factors import Factor, UnfollowedError, keep_whole

INPUT = "its channels are added to, or concatenated with, the network's input, which stays whole"
OUTPUT = "its channels are the network's outputs, which stay whole"


# Operators whose arguments are sizes that the network's code counts.
_TAKING_SIZES = frozenset(
    (
        "view",
        "unsafe_view",
        "reshape_alias",
        "expand",
        "repeat",
        "split",
        "split_with_sizes",
        "slice",
    )
)


@dataclass(frozen=True)
class Label:
    """What is known of one tensor.

    Attributes:
        axes: One factor per axis.
        parameters: Names of the parameters that it was computed from.
        from_input: Whether it was computed from the network's input.
    """

    axes: tuple[Factor, ...]
    parameters: frozenset[str] = frozenset()
    from_input: bool = False


@dataclass
class Flow:
    """The factors of a network's tensors, filled during one forward pass.

    Attributes:
        parameters: For each parameter and buffer, by name, the factors of its axes.
        reads: Pairs of parameter names and factors, over which the parameters are multiplied with
            what other layers computed, and added up.
        scopes: For each module that ran, the factors of the axes whose sizes its code gave.
        order: Names of the modules in the order in which they began.
        running: Names of the running modules, innermost last.
        operator: Name of the operator that ran last.
    """

    parameters: dict[str, tuple[Factor, ...]] = field(default_factory=dict)
    reads: list[tuple[str, Factor]] = field(default_factory=list)
    scopes: dict[str, dict[int, Factor]] = field(default_factory=lambda: defaultdict(dict))
    order: dict[str, None] = field(default_factory=dict)
    running: list[str] = field(default_factory=lambda: [""])
    operator: str = ""
    _labels: dict[int, tuple[Tensor, Label]] = field(default_factory=dict)

    def place(self) -> str:
        """Return the name of the running module."""
        return self.running[-1] or "the network"

    def label(self, tensor: Tensor) -> Label:
        """Return what is known of a tensor. The axes of one that was just created may be any."""
        known = self._labels.get(id(tensor))
        if known is None:
            self.note(tensor, Label(tuple(Factor(size) for size in tensor.shape)))
            return self._labels[id(tensor)][1]
        return known[1]

    def axes(self, tensor: Tensor) -> tuple[Factor, ...]:
        """Return the factors of a tensor's axes."""
        return self.label(tensor).axes

    def note(self, tensor: Tensor, label: Label) -> None:
        """Record a tensor's label. The tensor is held, so that its identity stays its own."""
        self._labels[id(tensor)] = tensor, label

    def same(self, first: Factor, second: Factor) -> None:
        """Record that two axes are the same."""
        unify(first, second, otherwise=f"its channels are rearranged in {self.place()}")

    def whole(self, factors: Sequence[Factor], why: str) -> None:
        """Record that positions can't be removed, as in ``are sorted``."""
        for factor in factors:
            keep_whole(factor, f"its channels {why} in {self.place()}")

    def read(self, weight: Tensor, factor: Factor) -> None:
        """Record that a product with a weight adds up the positions of a factor."""
        label = self.label(weight)
        if not label.from_input:
            self.reads.extend((name, factor) for name in label.parameters)


Rule = Callable[[Flow, Sequence[Any], Any], Sequence[Sequence[Factor]]]
"""Returns the factors of each output's axes, given an operator's arguments and result."""


class _Following(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base is untyped
    """Applies the rule of each operator that runs."""

    def __init__(self, flow: Flow, rules: Mapping[str, Rule], others: Rule) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._flow = flow
        self._rules = rules
        self._others = others

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = _filled(func, args, kwargs or {})
        inputs = [self._flow.label(tensor) for tensor in _flat(given)]
        outputs = list(_flat([result]))
        if not outputs:
            return result
        name = func.name().removeprefix("aten::").partition(".")[0].rstrip("_").lstrip("_")
        self._flow.operator = name
        try:
            axes = self._rules.get(name, self._others)(self._flow, given, result)
        except UnfollowedError:
            axes = [[Factor(size, whole="") for size in output.shape] for output in outputs]
            self._flow.whole([axis for label in inputs for axis in label.axes], "are rearranged")
        parameters = frozenset(chain.from_iterable(label.parameters for label in inputs))
        from_input = any(label.from_input for label in inputs)
        if name in _TAKING_SIZES or not inputs:
            scope = self._flow.scopes[self._flow.running[-1]]
            scope.update((id(axis), axis) for own in axes for axis in own if axis.size > 1)
        for output, own in zip(outputs, axes, strict=True):
            self._flow.note(output, Label(tuple(own), parameters, from_input))
        return result


def followed_dimensions(
    network: nn.Module,
    sample: Tensor,
    *,
    run: Callable[[nn.Module, Tensor], Any],
    rules: Mapping[str, Rule],
    others: Rule,
) -> Flow:
    """Run a network once and learn the factors of its parameters' axes.

    Args:
        network: Network in eval mode on the meta device.
        sample: One input, on the meta device.
        run: Runs the network on the sample.
        rules: Rule of each operator, by name without the underscores around it.
        others: Rule of all other operators.

    Raises:
        Exception: Whatever ``run`` raises.
    """
    flow = Flow()
    tensors = chain(network.named_parameters(), network.named_buffers())
    for name, tensor in tensors:
        flow.parameters[name] = axes = tuple(Factor(size) for size in tensor.shape)
        flow.note(tensor, Label(axes, frozenset([name])))
    given = tuple(Factor(size, whole=INPUT) for size in sample.shape)
    flow.note(sample, Label(given, from_input=True))
    with torch.no_grad(), _running(network, flow), _Following(flow, rules, others):
        output = run(network, sample)
    for tensor in tensors_in(output):
        for axis in flow.axes(tensor):
            keep_whole(axis, OUTPUT)
    return flow


@contextmanager
def _running(network: nn.Module, flow: Flow) -> Iterator[None]:
    """Keep the names of the running modules up to date."""
    with ExitStack() as stack:
        for name, module in network.named_modules():
            if not name:
                continue

            def enter(*_: Any, name: str = name) -> None:
                flow.running.append(name)
                flow.order.setdefault(name, None)

            stack.callback(module.register_forward_pre_hook(enter).remove)
            leave = module.register_forward_hook(lambda *_: _left(flow), always_call=True)
            stack.callback(leave.remove)
        yield


def _left(flow: Flow) -> None:
    flow.running.pop()


def _filled(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return all arguments of an operator by position, with the defaults of those not given."""
    filled = list(args)
    for argument in func._schema.arguments[len(args) :]:  # noqa: SLF001  # no public name
        default = argument.default_value if argument.has_default_value() else None
        filled.append(kwargs.get(argument.name, default))
    return filled


def _flat(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among arguments or results, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _flat(value)
