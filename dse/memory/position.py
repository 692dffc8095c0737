"""Track where a step is: its phase, its operator and the running module."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from dse.memory.site import Phase
from dse.networks.engine import EngineNetwork


@dataclass
class Position:
    """The current position of a step, and the module that created each autograd node.

    Attributes:
        phase: ``forward``, ``backward`` or ``optimizer``.
        operator: Operator that was dispatched last in this phase. Empty before the first.
        modules: Names of the running modules, innermost last.
        node_modules: Name of the creating module, by autograd sequence number.
        first_node: Autograd sequence number before the step.
        failed: Innermost module that the last exception came out of. Reset to None when another
            module begins.
    """

    phase: Phase = "forward"
    operator: str = ""
    modules: list[str] = field(default_factory=list)
    node_modules: list[str] = field(default_factory=list)
    first_node: int = 0
    failed: str | None = None

    def claim_nodes(self) -> None:
        """Assign the autograd nodes created since the last call to the innermost running module."""
        made = torch.autograd._get_sequence_nr() - self.first_node  # type: ignore[attr-defined]  # noqa: SLF001  # no public name
        module = self.modules[-1] if self.modules else ""
        self.node_modules.extend([module] * (made - len(self.node_modules)))

    def module(self) -> str:
        """Return the running module, or in the backward pass the one that created the node."""
        if self.phase == "forward" or self.modules:  # modules run in backward under checkpointing
            return self.modules[-1] if self.modules else ""
        node = torch._C._current_autograd_node()  # noqa: SLF001  # no public name
        if self.phase == "optimizer" or node is None:
            return ""
        number = node._sequence_nr() - self.first_node  # noqa: SLF001  # no public name
        return self.node_modules[number] if 0 <= number < len(self.node_modules) else ""


class Watch:
    """Context manager in which every module of a network reports its begin and end."""

    def __init__(self, network: nn.Module, position: Position) -> None:
        self._network = network
        self._at = position
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        self._at.first_node = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]  # noqa: SLF001  # no public name
        if isinstance(self._network, EngineNetwork):  # it may not call every module
            self._network.announce = self._announced
            return
        for name, module in self._network.named_modules():
            self._hooks.append(module.register_forward_pre_hook(self._entering(name)))
            self._hooks.append(module.register_forward_hook(self._leaving, always_call=True))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        if isinstance(self._network, EngineNetwork):
            self._network.announce = None
            if self._at.modules and self._at.failed is None:
                self._at.failed = self._at.modules[-1]

    def _announced(self, block: str, begins: bool) -> None:  # noqa: FBT001  # a callback
        self._at.claim_nodes()
        if begins:
            self._at.modules.append(block)
            self._at.failed = None
        else:
            self._at.modules.pop()

    def _entering(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object) -> None:
            self._at.claim_nodes()
            self._at.modules.append(name)
            self._at.failed = None

        return hook

    def _leaving(self, _module: nn.Module, _args: object, _output: object) -> None:
        self._at.claim_nodes()
        left = self._at.modules.pop()
        if sys.exception() is not None and self._at.failed is None:
            self._at.failed = left
