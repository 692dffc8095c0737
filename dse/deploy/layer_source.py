"""Constructor calls, as source text, of the layers in `torch.nn`."""

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dse.errors import ExportError
from dse.user_code import USER_ERRORS

_NOT_WRITTEN = ("self", "device", "dtype")
_SAME_ON_EACH_SIDE = ("kernel_size", "stride", "padding", "dilation", "output_padding")
_NOT_HELD = ("bias", "add_bias_kv")  # under these names
_REST, _NAMED_REST = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_OUTPUTS = {nn.Linear: "out_features", nn.Conv2d: "out_channels"}


class NoSourceError(ExportError):
    """A network, or one of its modules, can't be written as source text."""


def is_layer(module: nn.Module) -> bool:
    """Return whether a module is, or computes what is, one of PyTorch's layers without others."""
    kind = _kind(module)
    known = getattr(nn, kind.__name__, None) is kind and not isinstance(module, _CONTAINERS)
    return known and (kind is nn.MultiheadAttention or not any(module.children()))


def _kind(module: nn.Module) -> type[nn.Module]:
    """Return a module's class; PyTorch's for a subclass that computes exactly what that does.

    timm's linear and convolution layers are such: their own `forward` is for scripting or for
    sizes of padding that the layer doesn't have.
    """
    for kind in _OUTPUTS:
        if isinstance(module, kind) and type(module) is not kind and _same(module, kind):
            return kind
    return type(module)


def _same(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a layer without parts of its own computes what a class's `forward` does."""
    own = dict(module.named_parameters(recurse=False)), dict(module.named_buffers())
    if own[0].keys() - {"weight", "bias"} or own[1] or any(module.children()):
        return False
    before = module.training
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            for samples in _samples(module):
                for mode in (True, False):
                    module.train(mode)
                    if not torch.equal(module.forward(samples), kind.forward(module, samples)):
                        return False
    except USER_ERRORS:  # the subclass's own code, which may want another input
        return False
    finally:
        module.train(before)
    return True


def _samples(module: nn.Module) -> Iterator[Tensor]:
    """Yield inputs of a linear or convolutional layer; images of even and of odd sides."""
    weight = next(module.parameters())
    if isinstance(module, nn.Linear):
        yield torch.randn(2, module.in_features, dtype=weight.dtype, device=weight.device)
    elif isinstance(module, nn.Conv2d):
        reach = [
            (size - 1) * step + 1
            for size, step in zip(module.kernel_size, module.dilation, strict=True)
        ]
        for more in (2, 3):
            shape = (2, module.in_channels, *(size + more for size in reach))
            yield torch.randn(shape, dtype=weight.dtype, device=weight.device)


def layer_source(module: nn.Module, *, outputs: str | None = None) -> str:
    """Return the call that builds a layer, such as `nn.Conv2d(3, 16, 3, padding=1)`.

    Arguments that have their default value are left out.

    Args:
        module: one of PyTorch's own layers.
        outputs: expression for its number of outputs; None for the number itself.

    Raises:
        NoSourceError: if an argument can't be found in the layer or has no plain value.
    """
    kind = _kind(module)
    written = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in _NOT_WRITTEN or parameter.kind in (_REST, _NAMED_REST):
            continue
        required = parameter.default is parameter.empty
        if not required and name not in _NOT_HELD and not hasattr(module, name):
            continue  # such as Hardtanh's old names of its limits
        value = _argument(module, name)
        if not required and value == _plain(name, parameter.default):
            continue
        text = _text(kind.__name__, name, value)
        if outputs is not None and name == _OUTPUTS.get(kind):
            text = outputs
        by_place = required and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        written.append(text if by_place else f"{name}={text}")
    kept = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    if kept != torch.float32:
        written.append(f"dtype={kept}")
    return f"nn.{kind.__name__}({', '.join(written)})"


def can_have_other_outputs(module: nn.Module) -> bool:
    """Return whether `outputs` may be given for a layer."""
    return _kind(module) in _OUTPUTS and getattr(module, "groups", 1) == 1


def _argument(module: nn.Module, name: str) -> object:
    """Return the value of a constructor's argument, as the layer holds it now."""
    if name == "bias":
        if getattr(module, "affine", True) is False:
            return True  # such a norm has no bias whatever the argument is
        held = "in_proj_bias" if isinstance(module, nn.MultiheadAttention) else "bias"
        return getattr(module, held, None) is not None
    if name == "add_bias_kv" and isinstance(module, nn.MultiheadAttention):
        return module.bias_k is not None
    if not hasattr(module, name):
        raise NoSourceError(f"the argument {name!r} of nn.{type(module).__name__} is unknown")
    return _plain(name, getattr(module, name))


def _plain(name: str, value: object) -> object:
    """Return a list as a tuple, and one number in place of equal ones where the layer takes it."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    values = tuple(value)
    if name in _SAME_ON_EACH_SIDE and len(set(values)) == 1:
        return values[0]
    return values


def _text(kind: str, name: str, value: Any) -> str:
    values = value if isinstance(value, tuple) else (value,)
    if not all(one is None or type(one) in (bool, int, float, str) for one in values):
        raise NoSourceError(f"the argument {name!r} of nn.{kind} is no plain value")
    if any(type(one) is float and not math.isfinite(one) for one in values):
        return repr(value).replace("inf", 'float("inf")').replace("nan", 'float("nan")')
    return repr(value)
