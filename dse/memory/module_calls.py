"""Record the calls of a network's modules on the meta device, with input and output sizes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dse.errors import MemoryModelError
from dse.user_code import USER_ERRORS, described


@dataclass(frozen=True)
class LayerCall:
    """A call of a module without submodules.

    Attributes:
        name, module: Dotted name of the module, and the module.
        inputs: Number of elements of its first input tensor, or 0 without one.
        outputs: Number of elements of its output, or 0 if that is not a tensor.
    """

    name: str
    module: nn.Module
    inputs: int
    outputs: int


@dataclass(frozen=True)
class BlockBegin:
    """The begin of a call of a module with submodules.

    Attributes:
        name, module: Dotted name of the module, and the module.
        inputs: Number of elements of its first input tensor, or 0 without one.
        residual: Whether the module's own forward, and not a submodule's, adds two results of the
            same shape.
    """

    name: str
    module: nn.Module
    inputs: int
    residual: bool


@dataclass(frozen=True)
class BlockEnd:
    """The end of the block that began last among those that have not ended.

    Attributes:
        residual: As in the matching ``BlockBegin``.
    """

    residual: bool


ModuleEvent = LayerCall | BlockBegin | BlockEnd


def module_calls(network: nn.Module, image: torch.Tensor) -> list[ModuleEvent]:
    """Run a network without gradients and record its modules' calls in order.

    Args:
        network: Network in eval mode, on the meta device. Hooks are added and removed again.
        image: Tensor (batch, channels, height, width), on the meta device.

    Raises:
        MemoryModelError: If the network can't run on meta tensors.
    """
    watch = _Watch()
    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(watch.entering(name), with_kwargs=True))
        hooks.append(module.register_forward_hook(watch.leaving(name), with_kwargs=True))
    try:
        with torch.no_grad(), watch:
            network(image)
    except USER_ERRORS as error:
        where = watch.running[-1].name if watch.running else ""
        reason = described(error)
        raise MemoryModelError(
            f"can't run {type(network).__name__} on meta tensors: at {where!r}: {reason}; "
            "control flow must not depend on values, and the image must be large enough"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return [make() for make in watch.calls]


@dataclass
class _Running:
    """A running module. Only at its end is it known whether it is a residual block."""

    name: str
    adds: bool = False


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base is untyped
    """Records module calls, and which modules add two results of the same shape themselves."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Callable[[], ModuleEvent]] = []  # events are built when the run is over
        self.running: list[_Running] = []  # innermost last

    def entering(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            running = _Running(name)
            self.running.append(running)
            if not _is_leaf(module):
                inputs = _elements((*args, *kwargs.values()))
                self.calls.append(lambda: BlockBegin(name, module, inputs, running.adds))

        return hook

    def leaving(self, name: str) -> Callable[..., None]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
        ) -> None:
            running = self.running.pop()
            if _is_leaf(module):
                call = LayerCall(
                    name, module, _elements((*args, *kwargs.values())), _elements((output,))
                )
                self.calls.append(lambda: call)
            else:
                self.calls.append(lambda: BlockEnd(running.adds))

        return hook

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func.name() in ("aten::add.Tensor", "aten::add_.Tensor") and self.running:
            first, second = args[:2]
            if getattr(first, "shape", None) == getattr(second, "shape", ()):
                self.running[-1].adds = True
        return func(*args, **(kwargs or {}))


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _elements(values: Sequence[Any]) -> int:
    """Return the number of elements of the first tensor among the values, or 0 without one."""
    return next((value.numel() for value in values if isinstance(value, torch.Tensor)), 0)
