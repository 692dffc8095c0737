import pytest
import torch
from torch import Tensor, nn

from dse.errors import NetworkError
from dse.inputs import InputSpec
from dse.networks.checks import check_network, image_channels, network_notes
from dse.networks.copies import copied
from dse.networks.examples import example_input
from support.strange_networks import STRANGE, Strange


def check(network: nn.Module, *, channels: int = 3) -> None:
    check_network(
        network,
        title="network 'net:x'",
        size_key="--image-size",
        inputs=InputSpec.image(12, channels=channels),
        classes=4,
    )


@pytest.mark.parametrize("habit", ["raises", "exits", "none", "text", "half"])
def test_networks_that_cannot_be_studied_are_refused_in_one_line(habit: str) -> None:
    with pytest.raises(NetworkError, match=r"^network 'net:x' ") as caught:
        check(Strange(habit, 4))
    assert "\n" not in str(caught.value)


def test_the_message_has_the_module_the_type_and_the_fix() -> None:
    with pytest.raises(NetworkError, match="KeyError: 'lost'; change its code, or --image-size"):
        check(Strange("raises", 4))
    with pytest.raises(NetworkError, match=r"are float16: .*network\.float\(\)"):
        check(Strange("half", 4))
    with pytest.raises(NetworkError, match=r"images have 3 channels, but .* 'a' takes 1"):
        check(Strange("usual", 4, channels=1))


def test_ctrl_c_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        check(Strange("interrupted", 4))


def test_the_first_convolution_tells_the_channels() -> None:
    assert image_channels(Strange("usual", 4, channels=1), 12) == 1
    assert image_channels(Strange("usual", 4, channels=6), 12) == 6
    assert image_channels(Strange("usual", 4), 12) == 3
    check(Strange("usual", 4, channels=1), channels=1)


def test_an_embedding_while_it_trains_is_reported() -> None:
    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> object:
            v = self.f(x).mean((2, 3))
            return (self.head(v), v) if self.training else self.head(v)

    network = Embedding()
    check(network)
    (line,) = network_notes(network, example_input(2, 12))
    assert "returns (batch, 8) beside the (batch, 4) logits; only logits are scored" in line


@pytest.mark.parametrize("habit", ["keeps", "keeps in a list", "weight_norm"])
def test_computed_tensors_that_a_network_keeps_are_copied(habit: str) -> None:
    assert habit in STRANGE
    network = Strange(habit, 4)
    network(example_input(2, 12))
    image = torch.randn(1, 3, 12, 12)
    assert torch.equal(copied(network)(image), network(image))


def test_what_cannot_be_copied_is_named() -> None:
    with pytest.raises(NetworkError, match=r"Strange can't be copied: TypeError: .*lock"):
        copied(Strange("lock", 4))
