"""Update each parameter within the backward pass, as soon as its gradient is there, and drop it.

Gradients then never live all at once. After Lv et al., "Full Parameter Fine-tuning for Large
Language Models with Limited Resources" (2023), which fuses the gradient's computation with SGD.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from dse.errors import TrainingError


class _InBackward:
    """An optimizer that updates each parameter in the backward pass."""

    def __init__(self, optimizer: Optimizer, on_phase: Callable[[str], None] | None) -> None:
        self._optimizer = optimizer
        self._begin = on_phase or (lambda _phase: None)
        self._updated: set[int] = set()
        self._updating = False
        self._group: dict[int, int] = {}  # place of each parameter's group
        self._handles: list[RemovableHandle] = []
        for place, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                self._group[id(parameter)] = place
                if parameter.requires_grad:
                    handle = parameter.register_post_accumulate_grad_hook(self._update)
                    self._handles.append(handle)
        self._handles.append(optimizer.register_step_post_hook(self._stepped))

    def remove(self) -> None:
        """Let the optimizer update all parameters in its own step again."""
        for handle in self._handles:
            handle.remove()

    def _update(self, parameter: Tensor) -> None:
        if id(parameter) in self._updated:
            raise TrainingError(
                "the optimizer updates parameters in the backward pass, so gradients can't be "
                "accumulated: call optimizer.step() after every backward pass, or leave "
                "optimizer_in_backward off"
            )
        self._begin("optimizer")
        groups = self._optimizer.param_groups
        own = groups[self._group[id(parameter)]]  # read now: a scheduler changes its settings
        self._updating = True
        try:
            self._optimizer.param_groups = [{**own, "params": [parameter]}]
            self._optimizer.step()
        finally:
            self._optimizer.param_groups = groups
            self._updating = False
        parameter.grad = None
        self._updated.add(id(parameter))
        self._begin("backward")

    def _stepped(self, _optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        if not self._updating:  # the training loop's own call
            self._updated.clear()


def update_in_backward(optimizer: Optimizer) -> Callable[[], None]:
    """Let an optimizer update each parameter in the backward pass, and drop its gradient.

    The training loop stays as it is: ``optimizer.step()`` ends the step, though it finds no
    gradients. Results are those of the plain step. Whatever needs all gradients at once can't work:
    a second backward pass before ``optimizer.step()``, which accumulates gradients, is refused, and
    ``clip_grad_norm_`` would find no gradients to clip.

    Args:
        optimizer: The optimizer. Its settings, such as the learning rate, may change between steps.

    Returns:
        A function that lets the optimizer update all parameters in its own step again.
    """
    return _InBackward(optimizer, None).remove


@contextmanager
def updating_in_backward(
    optimizer: Optimizer, on_phase: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Let an optimizer update each parameter in the backward pass within this context.

    Args:
        optimizer: The optimizer.
        on_phase: Called with ``optimizer`` before each update, and with ``backward`` after it, if
            given.
    """
    own = _InBackward(optimizer, on_phase)
    try:
        yield
    finally:
        own.remove()
