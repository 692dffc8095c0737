"""A network that trains with stock PyTorch's gradients in less memory."""

from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dse.engines.build import Division, division, programs_for
from dse.engines.plan import LeanPlan
from dse.engines.program import Program
from dse.errors import NetworkError
from dse.networks.engine import EngineNetwork, stock_of

_SHARED = (
    "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


class LeanNetwork(EngineNetwork):
    """Runs a network's training steps as a plan says. ``dse.lean`` makes it.

    It shares parameters, buffers and submodules with the stock network, so state-dict keys are the
    same, and what one learns the other knows. Without gradients it runs the stock network.

    Args:
        stock: The network.
        image_shape: Shape of one image.
        dtype: Type of the images.
        plan: What each segment does.
        found: The network's segments in its present modes, if known.
    """

    def __init__(
        self,
        stock: nn.Module,
        *,
        image_shape: torch.Size,
        dtype: torch.dtype,
        plan: LeanPlan,
        found: Division | None = None,
    ) -> None:
        super().__init__()
        # Not an attribute that torch registers: the submodules are the network's own already.
        self.__dict__["_stock"] = stock
        for name in _SHARED:
            self.__dict__[name] = stock.__dict__[name]
        self._image_shape = image_shape
        self._dtype = dtype
        self.lean_plan = plan
        self._divisions: dict[Hashable, Division] = {}
        self._programs: dict[Hashable, dict[str, Program]] = {}
        modules = dict(stock.named_modules(remove_duplicate=False))
        if found is not None:
            self._divisions[_modes(modules)] = found
        self._programs_now(modules)

    @property
    def stock(self) -> nn.Module:
        """The network that stock PyTorch runs."""
        stock: nn.Module = self.__dict__["_stock"]
        return stock

    def on(self, stock: nn.Module) -> "LeanNetwork":
        """Return a lean network with the same plan for a copy of the stock network."""
        return self._like(stock, self.lean_plan)

    @property
    def plan_text(self) -> str:
        """What each segment does."""
        return repr(self.lean_plan.programs)

    def with_plan(self, plan: LeanPlan) -> "LeanNetwork":
        """Return a lean network of the same stock network with another plan."""
        return self._like(self.stock, plan)

    def _like(self, stock: nn.Module, plan: LeanPlan) -> "LeanNetwork":
        same = plan.divides_like(self.lean_plan) and _alike(stock, self.stock)
        return LeanNetwork(
            stock,
            image_shape=self._image_shape,
            dtype=self._dtype,
            plan=plan,
            found=self.division() if same else None,
        )

    def programs(self) -> dict[str, Program]:
        """Return what runs in the network's present modes, by the name of the module it runs."""
        return self._programs_now(dict(self.stock.named_modules(remove_duplicate=False)))

    def division(self) -> Division:
        """Return the network's segments in its present modes."""
        modes = _modes(dict(self.stock.named_modules(remove_duplicate=False)))
        if modes not in self._divisions:
            image = torch.empty(2, *self._image_shape, dtype=self._dtype, device="meta")
            with torch.random.fork_rng(devices=[]):
                self._divisions[modes] = division(self.stock, image, plan=self.lean_plan)
        return self._divisions[modes]

    @property
    def training(self) -> bool:
        """The stock network's mode."""
        return "_stock" in self.__dict__ and self.stock.training

    @training.setter
    def training(self, mode: bool) -> None:
        if "_stock" in self.__dict__:
            self.stock.training = mode

    def __getattr__(self, name: str) -> Any:
        """Return the stock network's attributes, such as a number of classes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_stock" not in self.__dict__:
                raise
            return getattr(self.stock, name)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the programs out of copies: they are made again when needed."""
        return {**self.__dict__, "_programs": {}, "_divisions": {}}

    def extra_repr(self) -> str:
        """Say what it is."""
        return f"lean: {type(self.stock).__name__}"

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network: by its plan if gradients are computed, else as stock PyTorch."""
        if not torch.is_grad_enabled() or len(args) != 1 or kwargs or not _is_tensor(args[0]):
            return self.stock(*args, **kwargs)
        modules = dict(self.stock.named_modules(remove_duplicate=False))
        self._refuse(args[0], modules)
        programs = self._programs_now(modules)
        if "" in programs:
            return programs[""](args[0], modules, self.announce)
        with _replaced(programs, modules, self):
            return self.stock(args[0])

    def _programs_now(self, modules: dict[str, nn.Module]) -> dict[str, Program]:
        modes = _modes(modules)
        if modes not in self._programs:
            self._programs[modes] = programs_for(self.division(), self.lean_plan)
        return self._programs[modes]

    def _refuse(self, image: Tensor, modules: dict[str, nn.Module]) -> None:
        kind = image.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            raise NetworkError(
                "a lean network does not run under autocast: leave autocast off, or use "
                "dse.unlean(network)"
            )
        own = {id(module) for module in modules.values()}
        for name, module in modules.items():
            if name and _watched(module, own):
                raise NetworkError(
                    f"module {name!r} has a hook, which a lean network would not run: remove it, "
                    "or use dse.unlean(network)"
                )


def _modes(modules: dict[str, nn.Module]) -> Hashable:
    """Return what decides which calls run. An exchanged module may compute something else."""
    return tuple(
        (id(module), module.training, len(module._forward_hooks))  # noqa: SLF001  # no public name
        for module in modules.values()
    )


def _alike(network: nn.Module, other: nn.Module) -> bool:
    """Whether one network is a copy of the other, in the same modes and at the same widths."""

    def described(each: nn.Module) -> list[Hashable]:
        return [
            (name, type(module), module.training, len(module._forward_hooks), module.extra_repr())  # noqa: SLF001
            for name, module in each.named_modules(remove_duplicate=False)
        ] + [(name, tensor.shape) for name, tensor in each.state_dict().items()]

    return network is other or described(network) == described(other)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _watched(module: nn.Module, own: set[int]) -> bool:
    """Whether a module has a hook that isn't part of the network, as a side branch is."""
    found = (
        module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,  # noqa: SLF001
        module._backward_pre_hooks,  # noqa: SLF001
    )  # fmt: skip
    return any(
        id(getattr(hook, "__self__", None)) not in own
        for hooks in found
        if hooks
        for hook in hooks.values()
    )


@contextmanager
def _replaced(
    programs: dict[str, Program], modules: dict[str, nn.Module], network: LeanNetwork
) -> Iterator[None]:
    """Let modules run their programs within this context."""
    with ExitStack() as stack:
        for name, program in programs.items():
            module = modules[name]
            own = module.__dict__.get("forward")
            stack.callback(_restore, module, own)
            inner = dict(module.named_modules(remove_duplicate=False))
            module.forward = partial(_run, program, inner, name, network)
        yield


def _run(
    program: Program, modules: dict[str, nn.Module], name: str, network: LeanNetwork, value: Any
) -> Any:
    announce = network.announce
    if announce is None:
        return program(value, modules)
    return program(value, modules, lambda title, begins: announce(f"{name}.{title}", begins))


def _restore(module: nn.Module, own: Any) -> None:
    if own is None:
        del module.forward
    else:
        module.forward = own


def run_by(network: nn.Module, example_input: Tensor, plan: LeanPlan | None) -> nn.Module:
    """Return a network that runs its training steps by a plan, or as stock PyTorch without one.

    Args:
        network: The network, perhaps pruned, with its scheme applied if it is to be trained.
        example_input: Tensor (any batch, channels, height, width).
        plan: A plan of this network, or of one with other widths.
    """
    network = stock_of(network)
    if plan is None:
        return network
    return LeanNetwork(
        network, image_shape=example_input.shape[1:], dtype=example_input.dtype, plan=plan
    )
