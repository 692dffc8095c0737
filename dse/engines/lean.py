"""Make a network train in less memory, and back."""

import torch
from torch import nn

from dse.engines.build import division, first_plan
from dse.engines.network import LeanNetwork
from dse.errors import NetworkError
from dse.networks.forward import check_network_and_example
from dse.step.schemes import apply_scheme


def lean(network: nn.Module, example_input: torch.Tensor, scheme: str | None = None) -> LeanNetwork:
    """Return a network that trains with the same gradients in less memory.

    It shares the network's parameters, buffers and submodules under the same state-dict keys, and
    is trained like any other module. Each block holds only what its backward pass needs: a
    convolution's output once, from which batch normalisation and activation are computed again.
    Gradients, running statistics and random numbers are those of stock PyTorch, bit by bit.

    Args:
        network: The network. Its modules stay as they are.
        example_input: Tensor (batch, channels, height, width). It fixes the image size.
        scheme: Which parameters train (see ``apply_scheme``). If None, those with
            ``requires_grad``.

    Returns:
        The lean network. Its ``lean_plan`` prints as a table of what each block does.

    Raises:
        NetworkError: If the scheme does not apply to the network, or an argument is of the wrong
            type.
    """
    check_network_and_example(network, example_input)
    network = unlean(network)
    if scheme is not None:
        apply_scheme(network, example_input, scheme)
    elif not any(parameter.requires_grad for parameter in network.parameters()):
        raise NetworkError(
            f"no parameter of {type(network).__name__} trains: set requires_grad, or give a "
            'scheme, as in scheme="full"'
        )
    image = torch.empty(2, *example_input.shape[1:], dtype=example_input.dtype, device="meta")
    plan = first_plan(division(network, image))
    return LeanNetwork(
        network, image_shape=example_input.shape[1:], dtype=example_input.dtype, plan=plan
    )


def unlean(network: nn.Module) -> nn.Module:
    """Return the stock network of a lean one. Any other network is returned as it is."""
    return network.stock if isinstance(network, LeanNetwork) else network
