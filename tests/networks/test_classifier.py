import pytest
import torch
from torch import nn
from torch.nn import functional

from dse.errors import NetworkError
from dse.networks.build import build_network
from dse.networks.classifier import classifier_parameters
from dse.networks.examples import example_input
from dse.networks.forward import output_layers
from dse.step.schemes import apply_scheme


class Headed(nn.Module):
    """A trunk, and a classifier in one of the forms that people write."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.f = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
        self.w = nn.Parameter(torch.randn(5, 6))
        self.s = nn.Parameter(torch.tensor(16.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.form == "no_grad":
            with torch.no_grad():
                v = self.f(x).mean((2, 3))
        else:
            v = self.f(x).mean((2, 3))
        if self.form == "cosine":
            return self.s * functional.linear(functional.normalize(v), functional.normalize(self.w))
        if self.form == "cdist":
            return -torch.cdist(v, self.w)
        if self.form == "distance":
            return -((v[:, None] - self.w) ** 2).sum(-1) * self.s
        if self.form == "einsum":
            return torch.einsum("bi,ki->bk", v, self.w)
        return v @ self.w.T


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("cosine", ("w", "s")),
        ("cdist", ("w",)),
        ("distance", ("w", "s")),
        ("einsum", ("w",)),
        ("no_grad", ("w",)),
        ("product", ("w",)),
    ],
)
def test_last_trains_the_classifier_whatever_its_form(form: str, expected: tuple[str, ...]) -> None:
    network = Headed(form)
    assert set(classifier_parameters(network, example_input(2, 12))) == set(expected)
    apply_scheme(network, example_input(2, 12), "last")
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == set(expected)


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_usual_networks_have_the_same_classifier_as_by_their_modules(name: str) -> None:
    network = build_network(f"torchvision:{name}", classes=4)
    image = example_input(1, 32)
    expected = [
        f"{head}.{parameter}"
        for head in output_layers(network, image)
        for parameter, _ in network.get_submodule(head).named_parameters()
    ]
    assert list(classifier_parameters(network, image)) == expected
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_weight_norm_on_the_classifier() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 3))
    nn.utils.parametrizations.weight_norm(network[2])
    found = classifier_parameters(network, torch.zeros(1, 3, 3, 3))
    assert {name.partition(".")[0] for name in found} == {"2"}
    assert len(found) == 3


def test_an_output_of_no_parameter_is_refused() -> None:
    with pytest.raises(NetworkError, match="Flatten: no parameter leads to its output"):
        classifier_parameters(nn.Flatten(), torch.zeros(1, 3))
