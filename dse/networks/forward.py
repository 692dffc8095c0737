"""Inspect forward passes: which modules run, in which order, and which are output layers."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from dse.errors import NetworkError
from dse.user_code import guarded


def execution_order(network: nn.Module, example_input: Tensor) -> tuple[str, ...]:
    """Return the names of the leaf modules in the order in which a forward pass completes them.

    A convolution or linear layer that holds a module of its own, such as its padding, counts as a
    leaf, too. The pass runs in eval mode without gradients. Training flags and buffers are
    preserved. A module that runs repeatedly is listed at its first call. Modules that never run are
    left out.

    Args:
        network: Any network that takes one tensor.
        example_input: Tensor (batch, channels, height, width), or whatever the network takes. Only
            the first sample is used.
    """
    with evaluating(network), torch.no_grad(), observing(network) as noted:
        run(network, example_input[:1])
    return noted.order()


def output_layers(network: nn.Module, example_input: Tensor) -> tuple[str, ...]:
    """Return the names of the convolutions and linear layers that compute the network's output.

    These are the first such layers on each path back from the output: usually one classifier,
    several if the output is a sum or concatenation.

    Args:
        network: Any network that takes one tensor. Its training flags are preserved.
        example_input: As for :func:`execution_order`.

    Returns:
        The names, in execution order.

    Raises:
        NetworkError: If the output comes from no convolution or linear layer.
    """
    with evaluating(network), torch.enable_grad(), observing(network) as noted:
        # The input requires a gradient, so that frozen layers get autograd nodes too.
        output = run(network, leaf_of(example_input))
    return noted.output_layers(output)


def leaf_of(example_input: Tensor) -> Tensor:
    """Return the first sample as a leaf; it requires a gradient unless it holds whole numbers."""
    sample = example_input[:1].detach().clone()
    return sample.requires_grad_() if sample.is_floating_point() else sample


def run(network: nn.Module, images: Tensor) -> Any:
    """Run a network.

    Raises:
        NetworkError: If its code raises an exception.
    """
    with guarded(network, f"can't run on images of shape {tuple(images.shape)}"):
        return network(images)


class StopForward(BaseException):
    """Raised in a hook to end a forward pass early; the network's code may catch any Exception."""


def run_until_stopped(network: nn.Module, images: Tensor) -> None:
    """Run a network until it ends or a hook raises `StopForward`.

    Raises:
        NetworkError: If its code raises any other exception.
    """
    with suppress(StopForward):
        run(network, images)


class ForwardPass:
    """Record of one forward pass, filled by hooks."""

    def __init__(self, network: nn.Module) -> None:
        self._title = type(network).__name__
        self._order: dict[str, None] = {}
        self._produced: dict[Any, str] = {}  # autograd node -> name of the layer it belongs to

    def note(self, name: str, module: nn.Module, output: Any) -> None:
        """Record that a module has run."""
        # The caller hooks leaves and layers alone: a layer may hold a module, such as its padding.
        self._order.setdefault(name, None)
        if isinstance(module, (_ConvNd, nn.Linear)):
            self._produced[output.grad_fn] = name

    def order(self) -> tuple[str, ...]:
        """Return the leaf modules as :func:`execution_order` does."""
        return tuple(self._order)

    def output_layers(self, output: Any) -> tuple[str, ...]:
        """Return the output layers as :func:`output_layers` does.

        Args:
            output: What the forward pass returned with gradients enabled.
        """
        found = _first_met([tensor.grad_fn for tensor in tensors_in(output)], self._produced)
        if not found:
            raise NetworkError(
                f"{self._title}: its output comes from no convolution or linear layer; "
                "use a network that ends in a classifier layer"
            )
        return tuple(name for name in dict.fromkeys(self._produced.values()) if name in found)


@contextmanager
def observing(network: nn.Module) -> Iterator[ForwardPass]:
    """Record the forward pass that the caller makes within this context."""
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
    """Check the types of a network and of its example input.

    Raises:
        NetworkError: If ``network`` is not a module, or ``example_input`` is not a tensor of
            floating-point numbers or of tokens (int64).
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
    if not example_input.is_floating_point() and example_input.dtype != torch.int64:
        raise NetworkError(
            f"the example input has elements of {example_input.dtype}: give floating-point ones, "
            "as in torch.zeros(1, 3, 224, 224), or torch.int64 for tokens"
        )


def is_leaf(module: nn.Module) -> bool:
    """Whether a module has no submodules."""
    return next(module.children(), None) is None


def tensors_in(output: object) -> Iterator[Tensor]:
    """Yield the tensors of a network's output, which may nest sequences and mappings."""
    if isinstance(output, Tensor):
        yield output
    elif named := fields_of(output):
        for value in named.values():
            yield from tensors_in(value)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for value in output:
            yield from tensors_in(value)


def fields_of(output: object) -> Mapping[object, object]:
    """Named parts of a dictionary, a data class or a named tuple; none of anything else."""
    if isinstance(output, Mapping):
        return output
    if is_dataclass(output) and not isinstance(output, type):
        return {each.name: getattr(output, each.name) for each in fields(output)}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return dict(zip(output._fields, output, strict=True))
    return {}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put every module into eval mode within this context, then restore each module's mode."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def all_trainable(network: nn.Module) -> Iterator[None]:
    """Let every floating-point parameter take part in autograd within this context.

    Afterwards, only those that did before take part.
    """
    frozen = [
        parameter
        for parameter in network.parameters()
        if not parameter.requires_grad and parameter.is_floating_point()
    ]
    for parameter in frozen:
        parameter.requires_grad = True
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad = False


def _first_met(roots: Sequence[Any], produced: Mapping[Any, str]) -> set[str]:
    """Walk the autograd graph breadth-first from ``roots`` and stop at nodes in ``produced``."""
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
