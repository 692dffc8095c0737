from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dse.errors import NetworkError
from dse.networks.logits import main_logits, unscored
from dse.step.canonical import classification_loss

LOGITS, AUXILIARY, EMBEDDING = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 8)
LABELS = torch.tensor([0, 2])


class Pair(NamedTuple):
    embedding: Tensor
    logits: Tensor


@dataclass
class Output:
    features: Tensor
    logits: Tensor


@pytest.mark.parametrize(
    "outputs",
    [
        LOGITS,
        (LOGITS, EMBEDDING),
        [LOGITS, None, EMBEDDING],
        {"logits": LOGITS, "embedding": EMBEDDING},
        {"embedding": EMBEDDING, "logits": LOGITS},
        Pair(EMBEDDING, LOGITS),
        Output(EMBEDDING, LOGITS),
    ],
)
def test_an_embedding_beside_the_logits_is_not_scored(outputs: object) -> None:
    assert main_logits(outputs) is LOGITS
    expected = functional.cross_entropy(LOGITS, LABELS)
    assert classification_loss(outputs, LABELS) == expected
    assert [t is EMBEDDING for t in unscored(outputs)] == [True] * (outputs is not LOGITS)


def test_logits_of_auxiliary_heads_count() -> None:
    main, other = (functional.cross_entropy(each, LABELS) for each in (LOGITS, AUXILIARY))
    found = classification_loss((LOGITS, AUXILIARY, EMBEDDING), LABELS)
    torch.testing.assert_close(found, main + 0.3 * other)


def test_outputs_without_tensors_are_refused() -> None:
    with pytest.raises(NetworkError, match="returns NoneType, which holds no tensor"):
        main_logits(None)
