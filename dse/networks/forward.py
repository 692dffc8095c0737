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
    with evaluating(network), torch.no_grad(), observing(network) as noted:
        network(example_input[:1])
    return noted.order()


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
    with evaluating(network), torch.enable_grad(), observing(network) as noted:
        # The input asks for a gradient, so that frozen layers have autograd nodes too.
        output = network(example_input[:1].detach().clone().requires_grad_())
    return noted.output_layers(output)


class ForwardPass:
    """What hooks noted of one forward pass."""

    def __init__(self, network: nn.Module) -> None:
        self._title = type(network).__name__
        self._order: dict[str, None] = {}
        self._produced: dict[Any, str] = {}  # autograd node -> the layer whose output it made

    def note(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has run."""
        if is_leaf(module):
            self._order.setdefault(name, None)
        if isinstance(module, (_ConvNd, nn.Linear)):
            self._produced[output.grad_fn] = name

    def order(self) -> tuple[str, ...]:
        """As :func:`execution_order`."""
        return tuple(self._order)

    def output_layers(self, output: Any) -> tuple[str, ...]:
        """As :func:`output_layers`, given what the pass returned with gradients enabled."""
        found = _first_met([tensor.grad_fn for tensor in tensors_in(output)], self._produced)
        if not found:
            raise NetworkError(
                f"{self._title}: its output comes from no convolution or linear layer; "
                "use a network that ends in a classifier layer"
            )
        return tuple(name for name in dict.fromkeys(self._produced.values()) if name in found)


@contextmanager
def observing(network: nn.Module) -> Iterator[ForwardPass]:
    """Note what runs in a forward pass that the caller makes."""
    noted = ForwardPass(network)
    with ExitStack() as stack:
        for name, module in network.named_modules():
            if is_leaf(module) or isinstance(module, (_ConvNd, nn.Linear)):
                handle = module.register_forward_hook(
                    lambda module, _inputs, output, name=name: noted.note(name, module, output)
                )
                stack.callback(handle.remove)
        yield noted


def check_network_and_example(network: object, example_input: object) -> None:
    """Refuse what isn't a network and a floating-point example of its input.

    Raises:
        NetworkError: so it is.
    """
    if not isinstance(network, nn.Module):
        raise NetworkError(
            f"the network is of type {type(network).__name__}: give a torch.nn.Module, such as "
            "torchvision.models.resnet18()"
        )
    if not isinstance(example_input, Tensor):
        raise NetworkError(
            f"the example input is of type {type(example_input).__name__}: give a tensor of "
            "(any batch, channels, height, width)"
        )
    if not example_input.is_floating_point():
        raise NetworkError(
            f"the example input has elements of {example_input.dtype}: give floating-point ones, "
            "as in torch.zeros(1, 3, 224, 224)"
        )


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
