import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dse.pruning.shape_kernels import ShapeKernels

ACTIVATIONS = {
    "elu": functional.elu,
    "gelu": functional.gelu,
    "hardsigmoid": functional.hardsigmoid,
    "hardswish": functional.hardswish,
    "leaky_relu": functional.leaky_relu,
    "relu6": functional.relu6,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "hardswish_": lambda x: functional.hardswish(x, inplace=True),
    "relu6_": lambda x: functional.relu6(x, inplace=True),
    "silu_": lambda x: functional.silu(x, inplace=True),
}


def image() -> Tensor:
    return torch.empty(2, 6, 4, 4, device="meta").to(memory_format=torch.channels_last)


def described(tensor: Tensor) -> tuple[torch.Size, tuple[int, ...], torch.dtype, str]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device.type


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_their_inputs_shape(name: str) -> None:
    expected = ACTIVATIONS[name](image())
    x = image()
    with ShapeKernels():
        result = ACTIVATIONS[name](x)
    assert described(result) == described(expected)
    assert (result is x) == name.endswith("_")


@pytest.mark.parametrize("training", [True, False])
def test_normalisation_has_its_inputs_shape(*, training: bool) -> None:
    norm = nn.BatchNorm2d(6, device="meta").train(training)
    expected = norm(image())
    with ShapeKernels():
        result = norm(image())
    assert described(result) == described(expected)
    assert type(result.grad_fn) is type(expected.grad_fn)


def test_normalisation_of_another_width_is_refused() -> None:
    norm = nn.BatchNorm2d(5, device="meta").eval()
    with ShapeKernels(), pytest.raises(RuntimeError, match="should contain 6 elements not 5"):
        norm(image())


def test_a_layer_norm_has_its_inputs_shape_and_refuses_another_width() -> None:
    x = torch.empty(2, 5, 6, device="meta")
    with ShapeKernels():
        for norm in (nn.LayerNorm(6), nn.LayerNorm((5, 6)), nn.LayerNorm(6, bias=False)):
            assert norm.to("meta")(x).shape == x.shape
        with pytest.raises(RuntimeError, match="normalized_shape"):
            nn.LayerNorm(7, device="meta")(x)


def test_real_tensors_are_computed() -> None:
    x, norm = torch.randn(2, 6, 4, 4), nn.BatchNorm2d(6).eval()
    with ShapeKernels():
        torch.testing.assert_close(functional.silu(x), x * torch.sigmoid(x))
        torch.testing.assert_close(norm(x), x, rtol=1e-4, atol=1e-4)
