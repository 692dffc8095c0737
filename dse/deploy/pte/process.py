"""A bundle's `network.pte` in ExecuTorch's runtime, in a process of its own.

    python -P -m dse.deploy.pte.process < request.json

Reads a `PteRequest` as JSON from stdin and writes a `PteSteps` as JSON to stdout. A file that was
made to harm crashes that process alone.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from dse.deploy.bundle import RECIPE_FILE, load, plan_of
from dse.deploy.own_process import answer, ask
from dse.deploy.pte.arena import step_arena_bytes
from dse.deploy.pte.check import check
from dse.deploy.pte.file import CLEAR, PTE_FILE, ROUNDING, TOLERANCE, batch_of, training_network
from dse.deploy.recipe import Recipe
from dse.engines.network import run_by

ARENA_TOLERANCE = 0.005
"""Of the arena's size, relative to the predicted one."""


@dataclass(frozen=True, kw_only=True)
class PteRequest:
    """What to run.

    Attributes:
        bundle: folder of the bundle.
        trust: whether code that the recipe names may run.
        search_path: folder in which that code is searched, too.
    """

    bundle: str
    trust: bool = False
    search_path: str | None = None


@dataclass(frozen=True, kw_only=True)
class PteSteps:
    """What a file's steps gave.

    Attributes:
        losses: loss of each step.
        loss_difference: the largest difference of a loss from PyTorch's in float64, relative to it.
        gradient_difference: that of a gradient, relative to the largest of the step.
        own_difference: the larger of what PyTorch's own float32 differs by.
        arena_bytes: bytes of the arena that the file plans.
        predicted_arena_bytes: bytes that the network's step was predicted to need.
    """

    losses: tuple[float, ...]
    loss_difference: float
    gradient_difference: float
    own_difference: float
    arena_bytes: int
    predicted_arena_bytes: int

    @property
    def differs(self) -> bool:
        """Whether losses, gradients or the arena's size are not PyTorch's and the model's."""
        arena = abs(self.arena_bytes / self.predicted_arena_bytes - 1)
        return self._largest > max(TOLERANCE, ROUNDING * self.own_difference) or (
            arena > ARENA_TOLERANCE
        )

    @property
    def is_unclear(self) -> bool:
        """Whether float32 rounds too much to tell; the export then compared in float64."""
        return self._largest > max(TOLERANCE, min(2 * self.own_difference, CLEAR))

    @property
    def _largest(self) -> float:
        return max(self.loss_difference, self.gradient_difference)


def is_installed() -> bool:
    """Whether ExecuTorch is installed here."""
    return find_spec("executorch") is not None


def run_file(request: PteRequest) -> PteSteps:
    """Run a request in a process of its own.

    Raises:
        ExportError: if the process fails.
    """
    found = ask(
        "dse.deploy.pte.process",
        request,
        place=str(Path(request.bundle) / PTE_FILE),
        engine="ExecuTorch's runtime",
    )
    return PteSteps(**{**found, "losses": tuple(found["losses"])})


def perform(request: PteRequest) -> PteSteps:
    """Run a request in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = Path(request.bundle)
    recipe = Recipe.read(folder / RECIPE_FILE)
    search_path = Path(request.search_path) if request.search_path else None
    network = training_network(load(folder, search_path=search_path, trust=request.trust), recipe)
    samples, labels = batch_of(recipe)
    network = run_by(network, samples, plan_of(folder, recipe))
    predicted = step_arena_bytes(network, samples)
    found = check((folder / PTE_FILE).read_bytes(), network, samples, labels)
    return PteSteps(
        losses=found.losses,
        loss_difference=found.loss,
        gradient_difference=found.gradient,
        own_difference=max(found.own_loss, found.own_gradient),
        arena_bytes=found.arena_bytes,
        predicted_arena_bytes=predicted,
    )


def main() -> None:
    """Run the request on stdin."""
    answer(lambda request: perform(PteRequest(**request)))


if __name__ == "__main__":
    main()
