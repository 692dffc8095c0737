"""Networks of tokens and masks, from their groups to a measured step."""

import pytest
import torch
from torch import Tensor, nn

from dse.inputs import InputSpec
from dse.memory.measure import measure_peak
from dse.memory.model import MemoryModel
from dse.networks.build import build_network
from dse.networks.classifier import classifier_parameters
from dse.networks.several_inputs import SeveralInputs
from dse.pruning.groups import find_groups
from dse.pruning.surgery import prune

TOKENS = InputSpec(
    shape=(2, 6),
    kind="int64",
    names=("input_ids", "attention_mask"),
    kinds=("int64", "bool"),
)


class Pooled(nn.Module):
    """A text classifier that averages the tokens which its mask shows."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding, self.hidden = nn.Embedding(20, 12), nn.Linear(12, 16)
        self.head = nn.Linear(16, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        assert attention_mask.dtype == torch.bool
        shown = attention_mask[..., None].float()
        mean = (self.embedding(input_ids) * shown).sum(1) / shown.sum(1)
        return {"logits": self.head(torch.relu(self.hidden(mean)))}


def test_stacked_inputs_are_those_by_name() -> None:
    network = SeveralInputs(Pooled(3), TOKENS)
    tokens, mask = torch.arange(12).reshape(2, 6), torch.arange(12).reshape(2, 6) % 3 > 0
    stacked = torch.stack([tokens, mask.long()], dim=1)
    by_name = network(input_ids=tokens, attention_mask=mask)["logits"]
    assert torch.equal(network(stacked)["logits"], by_name)
    assert network(TOKENS.example(2))["logits"].isfinite().all()


def test_the_classifier_is_found_behind_whole_numbers() -> None:
    network = SeveralInputs(Pooled(3), TOKENS)
    found = classifier_parameters(network, TOKENS.example(1))
    assert found == ("network.head.weight", "network.head.bias")


def test_memory_of_a_pruned_text_classifier_is_that_of_a_fresh_model() -> None:
    network = SeveralInputs(Pooled(3), TOKENS)
    example = TOKENS.example(2)
    groups = find_groups(network, example)
    assert groups
    kept = [group.channels // 2 for group in groups]
    model = MemoryModel.compile(network, example, groups=groups)
    pruned = prune(network, groups=groups, kept=kept)
    fresh = MemoryModel.compile(pruned, example, groups=())
    peak = int(model.peaks(kept, batch_size=4))
    assert peak == int(fresh.peaks([], batch_size=4))
    measured = measure_peak(pruned, TOKENS.example(4), torch.arange(4) % 3)
    assert measured.peak_bytes == pytest.approx(peak, rel=0.02, abs=2000)


def test_a_text_encoder_of_transformers_is_modelled_with_its_mask() -> None:
    pytest.importorskip("transformers")
    config = {
        "model_type": "bert",
        "vocab_size": 20,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 6,
    }
    spec = InputSpec(shape=TOKENS.shape, kind="int64", names=TOKENS.names, kinds=("int64", "int64"))
    network = build_network("hf:any", classes=3, options={"config": config}, inputs=spec)
    example = spec.example(2)
    assert network(example).logits.shape == (2, 3)
    groups = find_groups(network, example)
    assert any("intermediate" in group.name for group in groups)
    peak = int(MemoryModel.compile(network, example, groups=()).peaks([], batch_size=4))
    measured = measure_peak(network, spec.example(4), torch.arange(4) % 3)
    assert measured.peak_bytes == pytest.approx(peak, rel=0.05)
