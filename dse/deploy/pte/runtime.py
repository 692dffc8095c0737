"""Trains a .pte file in ExecuTorch's runtime, as a phone or a board does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dse.deploy.pte.lowering import EVALUATE, STATISTICS, TRAIN, imported, reason, silenced
from dse.errors import ExportError


class Trainer:
    """A training program with its optimizer in ExecuTorch's runtime.

    Attributes:
        statistics: running statistics, those of the file or after the last step.
        masks: which values dropout kept in the last step, in the order of the forward pass.
        gradients: gradients of the last step by the parameter's name.
        logits: logits of the last step, (batch, classes).
    """

    def __init__(self, file: Path | bytes) -> None:
        self._library = imported("executorch.extension.training")
        load = self._library._load_for_executorch_for_training_from_buffer  # noqa: SLF001  # no public name
        # The runtime reads the file's bytes where they lie for as long as it runs.
        self._content = file if isinstance(file, bytes) else file.read_bytes()
        try:
            with silenced():
                self._module = load(self._content)
            names = set(self._module.model.method_names())
            if not {TRAIN, EVALUATE} <= names:
                raise ExportError("the file has no programs named train and evaluate")
            run = self._module.model.run_method
            self.statistics: Sequence[Tensor] = run(STATISTICS, ()) if STATISTICS in names else ()
        except RuntimeError as error:
            raise ExportError(f"ExecuTorch can't load the file: {reason(error)}") from error
        self.masks: Sequence[Tensor] = ()
        self.gradients: Mapping[str, Tensor] = {}
        self.logits: Tensor | None = None
        self._optimizer: Any = None

    def compute(self, samples: Tensor, labels: Tensor) -> float:
        """Compute loss and gradients, and move the running statistics.

        Args:
            samples: (batch, ...), of the program's batch size.
            labels: (batch,) int64.

        Returns:
            The loss.

        Raises:
            ExportError: if the runtime can't run the program.
        """
        try:
            with silenced():
                found = self._module.forward_backward(TRAIN, (samples, labels, *self.statistics))
        except RuntimeError as error:
            raise ExportError(f"ExecuTorch can't run the step: {reason(error)}") from error
        last = 2 + len(self.statistics)
        self.logits = found[1]
        self.statistics, self.masks = found[2:last], found[last:]
        self.gradients = self._module.named_gradients()
        return float(found[0].detach())

    def update(
        self,
        *,
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        """Let the runtime's SGD change the parameters by the last gradients.

        Its settings are those of the first call.
        """
        with silenced():
            if self._optimizer is None:
                self._optimizer = self._library.get_sgd_optimizer(
                    self._module.named_parameters(),
                    learning_rate,
                    momentum,
                    0.0,
                    weight_decay,
                    nesterov,
                )
            self._optimizer.step(self.gradients)

    def parameters(self) -> Mapping[str, Tensor]:
        """Return the trained parameters by name; only after the first `compute`."""
        found = self._module.named_parameters()
        return {name: held.detach() for name, held in found.items()}

    def evaluate(self, samples: Tensor) -> Tensor:
        """Return the (1, classes) logits of one sample, with what was learnt so far."""
        state = (*self.parameters().values(), *self.statistics)
        found: Tensor = self._module.model.run_method(EVALUATE, (samples, *state))[0]
        return found.detach()
