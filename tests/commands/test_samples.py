"""Whole studies of what isn't a square colour image, from the study file to a loaded bundle."""

import json
from pathlib import Path

import pytest
import torch

import dse
from dse.cli import main

MODULE = """
import torch
from torch import nn


def signal(num_classes):
    return nn.Sequential(
        nn.Conv1d(2, 16, 5), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Conv1d(16, 16, 5), nn.BatchNorm1d(16), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )


def grey(num_classes):
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )


class Waves(torch.utils.data.Dataset):
    def __init__(self, count):
        time = torch.linspace(0, 6.28, 48)
        noise = 0.2 * torch.randn(count, 2, 48, generator=torch.Generator().manual_seed(count))
        self.x = [
            torch.stack([(2 + 3 * (n % 2)) * time, 3 * time]).sin() + noise[n]
            for n in range(count)
        ]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, position):
        return self.x[position], position % 2


class Texts(Waves):
    def __getitem__(self, position):
        tokens = torch.full((8,), 2 + position % 2 * 7) + torch.arange(8) % 5
        return {"input_ids": tokens, "attention_mask": torch.arange(8) < 6, "labels": position % 2}


def waves():
    return Waves(48), Waves(24)


def texts():
    return Texts(48), Texts(24)
"""

STUDY = """
name = "samples"
[network]
{network}
[data]
{data}
[space]
ratio = [0.0, 0.8]
multiple = 4
floor = 4
[training]
batch_size = 8
optimizer = "adamw"
learning_rate = 0.02
threads = 1
[proxy]
calibrate_batches = 1
short_epochs = 1.0
full_epochs = 4.0
full_seeds = 1
[baselines]
methods = ["uniform"]
[reference]
tune = false
[search]
sampler = "random"
trials = 2
budgets = ["90 %", "100 %"]
uniform_baselines = [0.5]
finalists = 1
"""

BERT = """{model_type = "bert", vocab_size = 20, hidden_size = 16, num_hidden_layers = 1, \
num_attention_heads = 2, intermediate_size = 32, max_position_embeddings = 8}"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "data", "shape", "needs"),
    [
        ('name = "my_samples:signal"', 'name = "my_samples:waves"\ninput = [2, 48]', (2, 48), ""),
        ('name = "my_samples:grey"', 'name = "digits"\ninput = [1, 10, 14]', (1, 10, 14), ""),
        (
            f'name = "hf:any"\noptions = {{config = {BERT}}}',
            'name = "my_samples:texts"',
            (2, 8),
            "transformers",
        ),
        (
            'name = "timm:test_vit"\noptions = {img_size = 16, patch_size = 8}',
            'name = "digits"\nimage_size = 16\nlabels = [0, 1]',
            (3, 16, 16),
            "timm",
        ),
    ],
)
def test_a_study_runs_to_its_bundle(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: str,
    data: str,
    shape: tuple[int, ...],
    needs: str,
) -> None:
    if needs:
        pytest.importorskip(needs)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_samples.py").write_text(MODULE)
    (tmp_path / "s.toml").write_text(STUDY.format(network=network, data=data))
    assert main(["run", "s.toml", "--out", "run"]) == 0
    assert main(["export", "run", "--trial", "0", "--out", "bundle"]) == 0
    recipe = json.loads((tmp_path / "bundle" / "recipe.json").read_text())
    assert recipe["accuracy"] > 1.2 / recipe["classes"]
    whole = "transformers" in needs
    sample = torch.ones(2, *shape, dtype=torch.int64 if whole else torch.float32)
    output = dse.load("bundle", trust="my_samples" in network)(sample)
    logits = output if isinstance(output, torch.Tensor) else output["logits"]
    assert logits.shape == (2, recipe["classes"])
