"""What runs in a forward pass, in which order, and which layers give the network's output."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from dse.errors import NetworkError


def execution_order(network: nn.Module, example_input: Tensor) -> tuple[str, ...]:
    """Names of the leaf modules in the order in which a forward pass first completes them.

    The pass runs in eval mode without gradients; train/eval flags and buffers are left as they
    were. Modules that never run are left out.

    Args:
        network: Any network that takes one tensor.
        example_input: (batch, channels, height, width) or whatever the network takes; one sample
            of it is used.
    """
    order: dict[str, None] = {}
    leaves = {name: module for name, module in network.named_modules() if is_leaf(module)}
    with ExitStack() as stack:
        stack.enter_context(evaluating(network))
        stack.enter_context(torch.no_grad())
        for name, module in leaves.items():
            handle = module.register_forward_hook(
                lambda *_, name=name: order.setdefault(name, None)
            )
            stack.callback(handle.remove)
        network(example_input[:1])
    return tuple(order)


def output_layers(network: nn.Module, example_input: Tensor) -> tuple[str, ...]:
    """Names of the convolutions and linear layers that give the network's output.

    Walking back from the output along every path, these are the first such layers met: one
    classifier as a rule, several where the output is a sum or concatenation of theirs.

    Args:
        network: Any network that takes one tensor; only train/eval flags are touched, and restored.
        example_input: As for :func:`execution_order`.

    Returns:
        In execution order.

    Raises:
        NetworkError: If the output comes from no convolution or linear layer.
    """
    produced: dict[Any, str] = {}  # autograd node -> the layer whose output it made
    kinds = (_ConvNd, nn.Linear)
    layers = {name: m for name, m in network.named_modules() if isinstance(m, kinds)}

    def note(name: str, output: Tensor) -> None:
        produced[output.grad_fn] = name

    with ExitStack() as stack:
        stack.enter_context(evaluating(network))
        stack.enter_context(torch.enable_grad())
        for name, module in layers.items():
            handle = module.register_forward_hook(
                lambda _m, _i, output, name=name: note(name, output)
            )
            stack.callback(handle.remove)
        # The input asks for a gradient, so that frozen layers have autograd nodes too.
        sample = example_input[:1].detach().clone().requires_grad_()
        outputs = list(tensors_in(network(sample)))
    found = _first_met([output.grad_fn for output in outputs], produced)
    if not found:
        raise NetworkError(
            f"{type(network).__name__}: its output comes from no convolution or linear layer; "
            "use a network that ends in a classifier layer"
        )
    return tuple(name for name in dict.fromkeys(produced.values()) if name in found)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module has no modules of its own."""
    return next(module.children(), None) is None


def tensors_in(output: object) -> Iterator[Tensor]:
    """Yield the tensors of a network's output, however it is nested."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_in(value)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for value in output:
            yield from tensors_in(value)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and afterwards each back into the mode it was in."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _first_met(roots: Sequence[Any], produced: Mapping[Any, str]) -> set[str]:
    """Walk the autograd graph back from its roots, stopping at known nodes."""
    found: set[str] = set()
    visited: set[Any] = {None}
    queue = deque(roots)
    while queue:
        node = queue.popleft()
        if node in visited:
            continue
        visited.add(node)
        if node in produced:
            found.add(produced[node])
        else:
            queue.extend(following for following, _ in node.next_functions)
    return found
