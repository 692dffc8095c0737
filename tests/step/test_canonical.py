"""The canonical step and its loss."""

import torch
from torch import nn
from torch.nn import functional

from dse.step.canonical import AUXILIARY_WEIGHT, classification_loss, training_step
from dse.step.settings import StepSettings


def test_a_step_moves_weights_drops_gradients_and_reports_its_phases() -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    inputs, labels = torch.ones(4, 3), torch.tensor([0, 1, 0, 0])
    before = layer.weight.detach().clone()
    expected = functional.cross_entropy(layer(inputs), labels).detach()
    phases: list[str] = []
    loss = training_step(
        layer,
        optimizer,
        classification_loss,
        [(inputs, labels)],
        settings=StepSettings(),
        on_phase=phases.append,
    )
    assert torch.equal(loss, expected)
    assert not loss.requires_grad
    assert phases == ["forward", "backward", "optimizer"]
    assert layer.weight.grad is None
    assert not torch.equal(layer.weight, before)


def test_auxiliary_heads_add_their_share() -> None:
    main, auxiliary = torch.randn(4, 3), torch.randn(4, 3)
    labels = torch.tensor([0, 1, 2, 0])
    expected = functional.cross_entropy(main, labels) + AUXILIARY_WEIGHT * functional.cross_entropy(
        auxiliary, labels
    )
    assert torch.equal(classification_loss((main, auxiliary), labels), expected)
    alone = classification_loss((main, None), labels)
    assert torch.equal(alone, functional.cross_entropy(main, labels))
