"""Everything a study needs before its first trial, from names to objects."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dse.config import Study
from dse.data import DataParts, load_data
from dse.memory.model import MemoryModel
from dse.memory.trace import Mode
from dse.networks import build_network, example_input
from dse.pruning.groups import find_groups
from dse.search.costs import Costs
from dse.search.space import SearchSpace
from dse.search.trainer import Evaluator


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A study's parts.

    Attributes:
        classes: outputs of the network.
        space: what may vary.
        costs: what needs no training.
        build_evaluator: makes what trains; may download or pretrain weights.
        fingerprint: of the network's shape and the data's labels and sizes.
    """

    classes: int
    space: SearchSpace
    costs: Costs
    build_evaluator: Callable[[], Evaluator]
    fingerprint: dict[str, Any]
    model_key: str


def resolve(study, folder, file):
    raise NotImplementedError


Resolve = Callable[..., Resolved]
