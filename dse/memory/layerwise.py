"""The `layerwise` convention: how papers on fine-tuning in little memory count.

The formula is that of TinyTL's profiler (Cai et al., NeurIPS 2020; ``memory_cost_profiler.py`` in
mit-han-lab/tinyml), read off its source and applied to any network. It looks at the forward pass
alone, image by image: while a layer runs it needs its input and output (*temporary*), beside what
earlier layers have *saved* for the backward pass and the input of the residual block around it
(*held*). The largest such sum, times the batch, plus the parameters is the figure.

It is kept for comparison with published numbers, quirks included:

* gradients, the optimizer's state, buffers, the loss and the whole backward pass are not counted;
* frozen parameters are counted with 8 bits, trained ones with 32;
* a convolution's output is divided by its groups, so a depthwise output is nearly free;
* normalisation and activations work in place: their input is all they need;
* a layer whose weight trains saves its input, so a batch norm's input and the convolution's input
  before it are both saved, but a rectifier saves one bit per element, and does so even below the
  first layer that trains, where no gradient will ever pass;
* a trained bias saves nothing;
* a layer's own saved input isn't added to its own temporaries, only to those of later layers;
* the held input of an inner residual block replaces that of an outer one, and when the inner block
  ends nothing is held;
* pooling, dropout, softmax, concatenation and everything that is a function rather than a module
  counts nothing (``LayerwiseMemory.uncounted`` names the modules).

Where we had to choose: TinyTL lists the residual blocks of its own networks by class. Here a block
is any module, the network itself excepted, whose own forward adds two results of the same shape;
on torchvision's ResNet and MobileNetV2 that finds the same blocks. Hard swish and hard sigmoid are
counted as TinyTL counts its own versions of them, SiLU, GELU and layer norm likewise. A module that
runs twice counts with each call's own shapes, where TinyTL takes the last call's for both.
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
        module: dotted name.
        kind: the rule it was counted by.
        temporary_bytes: its input and output, as the formula sees them.
        saved_bits: what it keeps for the backward pass; bits, since a mask has one per element.
        saved_before_bits: what the layers before it keep.
        held_bytes: input of the residual block it stands in.
    """

    module: str
    kind: Kind
    temporary_bytes: int
    saved_bits: int
    saved_before_bits: int
    held_bytes: int

    @property
    def forward_bits(self) -> int:
        """Needed while it runs if nothing is saved."""
        return 8 * (self.temporary_bytes + self.held_bytes)

    @property
    def needed_bits(self) -> int:
        """Needed while it runs."""
        return self.forward_bits + self.saved_before_bits


@dataclass(frozen=True)
class LayerwiseMemory:
    """The literature's figure for one network and batch size.

    Attributes:
        peak_bytes: activations at the largest layer, and the parameters.
        activation_bytes: temporary, saved and held at that layer, for the whole batch.
        parameter_bytes: trained ones with 32 bits, frozen ones with 8.
        peak_module: the layer with the largest sum.
        temporary_peak_bytes: the largest temporary and held of one layer, for the whole batch, as
            if nothing were saved: what inference, or training the last layer alone, needs. This is
            the *temporary activation memory* that channel pruning at the peak lowers (Yoosefi et
            al., FMEC 2023).
        temporary_peak_module: the layer that needs it.
        layers: every call of a layer, in order.
        uncounted: classes of modules that ran without a rule, or hold parameters no rule sees.
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
        network: left as it is; run once on the meta device, in evaluation mode.
        example_input: (any batch, channels, height, width); its image size counts.
        batch_size: images per step.
        scheme: which parameters train, see ``apply_scheme``; None: those that require gradients.
        mode: ``inference`` saves nothing and counts every parameter as frozen.
        groups: channel groups of the network, where a candidate is meant.
        channels: (groups,) kept channels, one count per group.

    Raises:
        MemoryModelError: the batch size is below 1, or the network can't run on meta tensors.
        PruningError: the channel counts don't fit the groups.
        NetworkError: the scheme doesn't fit the network.
    """
    if batch_size < 1:
        raise MemoryModelError(f"batch_size must be at least 1, not {batch_size}")
    shell = resized(network, groups, channels)
    image_shape = example_input.shape[1:]
    if scheme is not None:  # even for inference: it may add modules
        apply_scheme(shell, torch.empty(2, *image_shape, device="meta"), scheme)
    if mode == "inference":
        shell.requires_grad_(requires_grad=False)
    calls = module_calls(shell.eval(), torch.empty(1, *image_shape, device="meta"))
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
    """Classes of modules that ran without a rule, or hold parameters that no rule sees."""
    modules = [call.module for call in calls if isinstance(call, LayerCall)]
    modules += [
        call.module
        for call in calls
        if isinstance(call, BlockBegin) and any(True for _ in call.module.parameters(recurse=False))
    ]
    return tuple(sorted({type(m).__name__ for m in modules if _kind(m) == "uncounted"}))
