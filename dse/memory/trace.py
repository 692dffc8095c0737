"""Trace one training step on tensors without values: every allocation is recorded."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dse.errors import DseError, MemoryModelError
from dse.memory.chunking import MarkedChunks, RepeatedChunks
from dse.memory.cpu_dispatch import Unobserved, on_cpu
from dse.memory.operator_run import Stride
from dse.memory.recorder import Intercepting, Recorder
from dse.memory.tape import Tape
from dse.memory_formats import in_format, laid_out
from dse.networks.copies import copied
from dse.networks.engine import EngineNetwork, stock_of
from dse.networks.slots import chunks_watched
from dse.pruning.channel_group import ChannelGroup
from dse.pruning.resize import resized
from dse.step.canonical import Loss, in_precision, loss_tensors, target_of, training_step
from dse.step.optimizers import make_optimizer
from dse.step.schemes import apply_scheme
from dse.step.settings import StepSettings
from dse.step.single_values import single_values_explained
from dse.user_code import USER_ERRORS, described, guarded


def trace_step(
    network: nn.Module,
    input_shape: Sequence[int],
    *,
    settings: StepSettings,
    loss: Loss,
    device: str | None = None,
    layouts: Mapping[Any, Sequence[Stride | None]] | None = None,
    chunks: MarkedChunks | RepeatedChunks | None = None,
    input_dtype: torch.dtype = torch.float32,
) -> Tape:
    """Record every buffer of one step, with the optimizer's state allocated from the start.

    Args:
        network: Network on the meta device, with the scheme applied. Hooks stay on it, so do not
            use it again.
        input_shape: Shape (batch, channels, height, width) of the images.
        settings: Settings of the step.
        loss: Loss of outputs and targets; it tells the targets' shape (see ``target_of``).
        device: Device whose operators are dispatched, and recorded with their arguments. If None,
            the trace uses the CPU's operators and does not record their arguments.
        layouts: Strides of operators' results on the device (see ``Recorder``).
        chunks: Determines the sizes of chunks. If None, they are the engine's own.
        input_dtype: Type of the input.

    Returns:
        The tape of the step.

    Raises:
        MemoryModelError: If the network can't run on tensors without values, for example because
            its control flow depends on values.
    """
    network = in_format(network, settings.memory_format)
    kind = torch.device(device or "cpu").type
    recorder = Recorder(
        device_type=None if device is None else kind, layouts=layouts, chunks=chunks
    )
    place = _Place.cpu(recorder) if kind == "cpu" else _Place.faked(recorder, device or kind)
    try:
        with no_garbage_collection(), chunks_watched(chunks), place.entered():
            _move(network, place)
            inputs = torch.empty(*input_shape, dtype=input_dtype, device="meta")
            inputs = place.like(laid_out(inputs, settings.memory_format))
            labels = place.like(target_of(loss).example(input_shape[0], device="meta"))
            loss = _placed(loss, place)
            recorder.keep("weights", network.parameters())
            recorder.keep("buffers", network.buffers())
            if settings.mode == "inference":
                recorder.keep("input", [inputs])
                _trace_inference(recorder, place, network, inputs, settings=settings)
            else:
                recorder.keep("input", [inputs, labels])
                recorder.keep("buffers", loss_tensors(loss))
                _trace_training(
                    recorder, place, network, inputs, labels, settings=settings, loss=loss
                )
    except DseError:
        raise
    except USER_ERRORS as error:
        raise MemoryModelError(_reason(network, recorder, error)) from error
    return recorder.tape()


def step_network(
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    channels: Sequence[int],
    *,
    image_shape: Sequence[int],
    scheme: str | None,
    input_dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Copy a network onto the meta device, prune it, apply a scheme, and run it by its engine.

    Args:
        network: The network, stock or lean. It is not changed.
        groups: Channel groups.
        channels: One count per group.
        image_shape: Shape (channels, height, width) of an image.
        scheme: Which parameters train. If None, those that train in the network, in its modes.
        input_dtype: Type of the input.
    """
    shell = resized(stock_of(network), groups, channels)
    if scheme is not None:
        example = torch.empty(2, *image_shape, dtype=input_dtype, device="meta")
        apply_scheme(shell, example, scheme)
    return network.on(shell) if isinstance(network, EngineNetwork) else shell


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, so that deaths have the same order in every trace."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _reason(network: nn.Module, recorder: Recorder, error: BaseException) -> str:
    """Explain in one line why a step can't be traced."""
    title, site = type(network).__name__, recorder.site()
    reason = described(error)
    started = site.phase == "optimizer" or (site.phase == "backward" and site.operator)
    if recorder.failed_module is None and not started:
        return (
            f"can't compute a loss from what {title} returns: {reason}; give a loss of (outputs, "
            "labels) that returns one number as a tensor"
        )
    where = recorder.failed_module or site.module or title
    return (
        f"can't trace {title} on tensors without values: at {where!r}: {reason}; its control flow "
        "must not depend on values, tensors that it makes must be on its input's device, and the "
        "image must be large enough"
    )


def check_single_image(network: nn.Module, example_input: torch.Tensor, *, scheme: str) -> None:
    """Check that batch normalisation can run on a step of one image.

    Args:
        network: The network. It is not changed.
        example_input: Tensor (any batch, channels, height, width).
        scheme: Which parameters train.

    Raises:
        MemoryModelError: If a normalisation layer that trains gets a single value per channel.
    """
    shell = resized(network, (), ())
    shape = example_input.shape[1:]
    kind = example_input.dtype
    apply_scheme(shell, torch.empty(2, *shape, dtype=kind, device="meta"), scheme)
    fix = "raise the batch size or the image size"
    guard = guarded(shell, "can't train on a single image", error=MemoryModelError, fix=fix)
    with torch.no_grad(), guard, single_values_explained(MemoryModelError, fix=fix):
        shell(torch.empty(1, *shape, dtype=kind, device="meta"))


@dataclass(frozen=True)
class _Place:
    """Where a step is traced: how its tensors are made, and how the recorder sees its operators.

    Attributes:
        entered: Returns a context manager, within which tensors are made.
        recording: Returns a context manager, within which operators are recorded.
        like: Makes a tensor without values, with the layout of a meta tensor.
    """

    entered: Callable[[], AbstractContextManager[Any]]
    recording: Callable[[], AbstractContextManager[Any]]
    like: Callable[[torch.Tensor], torch.Tensor]

    @classmethod
    def cpu(cls, recorder: Recorder) -> "_Place":
        """Trace on placeholders, which PyTorch treats as real tensors of the CPU."""
        made = recorder.placeholders
        return cls(
            entered=lambda: on_cpu(Unobserved(), made),
            recording=lambda: on_cpu(recorder, made),
            like=lambda tensor: made.make(tensor.shape, tensor.stride(), tensor.dtype),
        )

    @classmethod
    def faked(cls, recorder: Recorder, device: str) -> "_Place":
        """Trace on fake tensors of a device, which this machine needn't have."""
        return cls(
            entered=_fake,
            recording=lambda: Intercepting(recorder),
            like=lambda tensor: torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device
            ),
        )


@contextmanager
def _fake() -> Iterator[None]:
    # The saved random state of blocks is real, hence non-fake inputs. Fallback kernels would run
    # operators on real zeros.
    fake_tensors = FakeTensorMode(allow_fallback_kernels=False, allow_non_fake_inputs=True)
    with fake_tensors, _FusedUpdates():  # type: ignore[no-untyped-call]  # torch's base is untyped
        yield


def _placed(loss: Loss, place: _Place) -> Loss:
    """Return a loss whose weights have no values, like the step's other tensors."""
    if not loss_tensors(loss) or not isinstance(loss, nn.Module):
        return loss
    shell = copied(loss).to("meta")
    _move(shell, place)
    return shell


def _move(network: nn.Module, place: _Place) -> None:
    """Replace a meta network's tensors. A tensor that modules share stays shared."""
    made: dict[int, torch.Tensor] = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(
                    place.like(parameter), requires_grad=parameter.requires_grad
                )
            setattr(module, name, made[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, made.setdefault(id(buffer), place.like(buffer)))


class _FusedUpdates(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base is untyped
    """Skips fused optimizer kernels, which change tensors in place and allocate nothing."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func.name().startswith("aten::_fused_"):
            return None
        return func(*args, **(kwargs or {}))


def _trace_inference(
    recorder: Recorder,
    place: _Place,
    network: nn.Module,
    inputs: torch.Tensor,
    *,
    settings: StepSettings,
) -> None:
    network.eval()
    precision = in_precision(settings, inputs.device.type)
    with torch.no_grad(), recorder.watching(network), place.recording(), precision:
        network(inputs)


def _trace_training(
    recorder: Recorder,
    place: _Place,
    network: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    settings: StepSettings,
    loss: Loss,
) -> None:
    optimizer = make_optimizer(network.parameters(), settings)
    batches = [(inputs, labels)] * settings.accumulate
    if settings.set_to_none:
        state = _allocated_state(optimizer)
    else:  # gradients persist between steps, so run one step before the recorded one
        training_step(network, optimizer, loss, batches, settings=settings)
        state = _state(optimizer)
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        recorder.keep("gradients", gradients)
    for parameter, tensors in state.items():
        recorder.keep("optimizer_state", tensors, owner=parameter)
    saving = torch.autograd.graph.saved_tensors_hooks(recorder.hold, lambda held: held.tensor)
    on_phase = recorder.phase_hook(network)
    with recorder.watching(network), place.recording(), saving:
        training_step(network, optimizer, loss, batches, settings=settings, on_phase=on_phase)


def _allocated_state(
    optimizer: torch.optim.Optimizer,
) -> Mapping[torch.Tensor, list[torch.Tensor]]:
    """Make the optimizer allocate its state, which it otherwise does in its first step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return _state(optimizer)


def _state(optimizer: torch.optim.Optimizer) -> Mapping[torch.Tensor, list[torch.Tensor]]:
    return {
        parameter: [value for value in state.values() if isinstance(value, torch.Tensor)]
        for parameter, state in optimizer.state.items()
    }
