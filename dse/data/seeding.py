"""Seeds the generators that random transforms draw from, and restores them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed the generators that transforms draw from: torch's on the CPU, numpy's and Python's."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # user transforms may draw from it
    random.seed(seed)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the states of all global random generators on exit."""
    held = torch.default_generator.get_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.default_generator.set_state(held[0])
        np.random.set_state(held[1])  # noqa: NPY002
        random.setstate(held[2])
