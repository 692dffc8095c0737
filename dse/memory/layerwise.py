"""The `layerwise` convention: how papers on memory-efficient fine-tuning count.

The formula is that of TinyTL's profiler (Cai et al., NeurIPS 2020; ``memory_cost_profiler.py`` in
mit-han-lab/tinyml), taken from its source and applied to any network. It considers only the forward
pass, for one image. While a layer runs, it needs its input and output (*temporary*), in addition to
what earlier layers have *saved* for the backward pass and to the input of the enclosing residual
block (*held*). The figure is the largest such sum times the batch size, plus the parameters.

The convention serves to compare with published numbers, so it keeps the formula's quirks:

* Gradients, optimizer state, buffers, the loss and the whole backward pass are not counted.
* Frozen parameters count with 8 bits, trained ones with 32.
* A convolution's output is divided by its groups, so a depthwise output is nearly free.
* Normalisation and activations work in place: they need only their input.
* A layer whose weight trains saves its input, so the input of a batch norm and that of the
  convolution before it are both saved. A rectifier saves one bit per element, even below the first
  trained layer, where no gradient ever passes.
* A trained bias saves nothing.
* A layer's own saved input is not added to its own temporaries, only to those of later layers.
* The held input of an inner residual block replaces that of an outer one. When the inner block
  ends, nothing is held.
* Pooling, dropout, softmax, concatenation and everything that is a function instead of a module
  count nothing (``LayerwiseMemory.uncounted`` lists the modules).

This implementation differs from TinyTL's in three points. TinyTL lists the residual blocks of its
own networks by class. Here, a block is any module except the network itself whose own forward adds
two results of the same shape, which finds the same blocks in torchvision's ResNet and MobileNetV2.
Hard swish, hard sigmoid, SiLU, GELU and layer norm are counted as TinyTL counts its own versions of
the first two and its normalisation. A module that runs twice counts with the shapes of each call,
while TinyTL uses the last call's shapes for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from dse.errors import MemoryModelError
from dse.memory.module_calls import BlockBegin, BlockEnd, LayerCall, ModuleEvent, module_calls
from dse.names import Mode
from dse.pruning.groups import ChannelGroup
from dse.pruning.resize import resized
from dse.step.schemes import apply_scheme

ACTIVATION_BYTES = 4
TRAINED_BYTES = 4
FROZEN_BYTES = 1

Kind = Literal["convolution", "linear", "norm", "rectifier", "smooth", "uncounted"]

_KINDS: tuple[tuple[Kind, tuple[type[nn.Module], ...]], ...] = (
    ("convolution", (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
    ("linear", (nn.Linear,)),
    ("norm", (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)),  # noqa: SLF001  # the common base of all batch norms
    ("rectifier", (nn.ReLU, nn.ReLU6, nn.LeakyReLU)),
    ("smooth", (nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU)),
)


@dataclass(frozen=True)
class Layer:
    """One call of a layer, for one image.

    Attributes:
        module: Dotted name of the layer.
        kind: The rule that it is counted by.
        temporary_bytes: Its input and output, as the formula counts them.
        saved_bits: What it saves for the backward pass. In bits, as a mask has one per element.
        saved_before_bits: What the layers before it have saved.
        held_bytes: Input of the enclosing residual block.
    """

    module: str
    kind: Kind
    temporary_bytes: int
    saved_bits: int
    saved_before_bits: int
    held_bytes: int

    @property
    def forward_bits(self) -> int:
        """Bits needed while the layer runs, if nothing is saved."""
        return 8 * (self.temporary_bytes + self.held_bytes)

    @property
    def needed_bits(self) -> int:
        """Bits needed while the layer runs."""
        return self.forward_bits + self.saved_before_bits


@dataclass(frozen=True)
class LayerwiseMemory:
    """The literature's figure for one network and batch size.

    Attributes:
        peak_bytes: Activations at the largest layer, plus the parameters.
        activation_bytes: Temporary, saved and held bytes at that layer, for the whole batch.
        parameter_bytes: Parameters, trained ones with 32 bits and frozen ones with 8.
        peak_module: Name of the layer with the largest sum.
        temporary_peak_bytes: Largest temporary plus held bytes of one layer, for the whole batch:
            what inference needs, or training of the last layer only. This is the *temporary
            activation memory* that channel pruning at the peak lowers (Yoosefi et al., FMEC 2023).
        temporary_peak_module: Name of the layer that needs it.
        layers: Every call of a layer, in order.
        uncounted: Classes of modules that ran without a rule, or hold parameters that no rule
            covers.
    """

    peak_bytes: int
    activation_bytes: int
    parameter_bytes: int
    peak_module: str
    temporary_peak_bytes: int
    temporary_peak_module: str
    layers: tuple[Layer, ...]
    uncounted: tuple[str, ...]


def layerwise_memory(
    network: nn.Module,
    example_input: torch.Tensor,
    *,
    batch_size: int,
    scheme: str | None = None,
    mode: Mode = "training",
    groups: Sequence[ChannelGroup] = (),
    channels: Sequence[int] = (),
) -> LayerwiseMemory:
    """Apply the literature's formula to a network, or to a candidate of it.

    Args:
        network: The network. It is not changed; a copy runs once on the meta device, in eval mode.
        example_input: Tensor (any batch, channels, height, width) of the image size to count.
        batch_size: Images per step.
        scheme: Which parameters train (see ``apply_scheme``). If None, those that require
            gradients.
        mode: ``training``, or ``inference``, which saves nothing and counts all parameters as
            frozen.
        groups: Channel groups of the network, for a candidate.
        channels: Kept channels of the candidate, shape (groups,).

    Raises:
        MemoryModelError: If the batch size is below 1, or the network can't run on meta tensors.
        PruningError: If the channel counts do not match the groups.
        NetworkError: If the scheme does not apply to the network.
    """
    if batch_size < 1:
        raise MemoryModelError(f"batch_size must be at least 1, not {batch_size}")
    shell = resized(network, groups, channels)
    image_shape = example_input.shape[1:]
    if scheme is not None:  # for inference too, as the scheme may add modules
        apply_scheme(
            shell, torch.empty(2, *image_shape, dtype=example_input.dtype, device="meta"), scheme
        )
    if mode == "inference":
        shell.requires_grad_(requires_grad=False)
    shell.eval()
    calls = module_calls(
        shell, torch.empty(1, *image_shape, dtype=example_input.dtype, device="meta")
    )
    layers = _layers(calls, network=shell, training=mode == "training")
    peak = max(layers, key=lambda layer: layer.needed_bits)
    temporary_peak = max(layers, key=lambda layer: layer.forward_bits)
    activation_bytes = -(-peak.needed_bits * batch_size // 8)
    parameter_bytes = sum(
        parameter.numel() * (TRAINED_BYTES if parameter.requires_grad else FROZEN_BYTES)
        for parameter in shell.parameters()
    )
    return LayerwiseMemory(
        peak_bytes=activation_bytes + parameter_bytes,
        activation_bytes=activation_bytes,
        parameter_bytes=parameter_bytes,
        peak_module=peak.module,
        temporary_peak_bytes=temporary_peak.forward_bits * batch_size // 8,
        temporary_peak_module=temporary_peak.module,
        layers=layers,
        uncounted=_uncounted(calls),
    )


def _layers(
    calls: Sequence[ModuleEvent], *, network: nn.Module, training: bool
) -> tuple[Layer, ...]:
    saved_bits = held_bytes = 0
    layers = []
    for call in calls:
        if isinstance(call, LayerCall):
            kind = _kind(call.module)
            own_bits = _saved_bits(kind, call) if training else 0
            layers.append(
                Layer(
                    module=call.name,
                    kind=kind,
                    temporary_bytes=_temporary_bytes(kind, call),
                    saved_bits=own_bits,
                    saved_before_bits=saved_bits,
                    held_bytes=held_bytes,
                )
            )
            saved_bits += own_bits
        elif call.residual and isinstance(call, BlockEnd):
            held_bytes = 0
        elif call.residual and isinstance(call, BlockBegin) and call.module is not network:
            held_bytes = call.inputs * ACTIVATION_BYTES
    if not layers:
        raise MemoryModelError(f"{type(network).__name__} runs no layer")
    return tuple(layers)


def _kind(module: nn.Module) -> Kind:
    return next((kind for kind, classes in _KINDS if isinstance(module, classes)), "uncounted")


def _temporary_bytes(kind: Kind, call: LayerCall) -> int:
    if kind == "uncounted":
        return 0
    inputs, outputs = call.inputs * ACTIVATION_BYTES, call.outputs * ACTIVATION_BYTES
    if kind == "convolution":
        return inputs + outputs // int(call.module.groups)  # type: ignore[arg-type]  # a number
    return inputs + outputs if kind == "linear" else inputs


def _saved_bits(kind: Kind, call: LayerCall) -> int:
    if kind == "rectifier":
        return call.inputs
    weight = getattr(call.module, "weight", None)
    trains = weight is not None and weight.requires_grad
    if kind == "smooth" or (kind != "uncounted" and trains):
        return 8 * call.inputs * ACTIVATION_BYTES
    return 0


def _uncounted(calls: Sequence[ModuleEvent]) -> tuple[str, ...]:
    """Return classes of modules that ran without a rule, or hold parameters that no rule covers."""
    modules = [call.module for call in calls if isinstance(call, LayerCall)]
    modules += [
        call.module
        for call in calls
        if isinstance(call, BlockBegin) and any(True for _ in call.module.parameters(recurse=False))
    ]
    return tuple(sorted({type(m).__name__ for m in modules if _kind(m) == "uncounted"}))
