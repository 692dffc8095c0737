from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dse.errors import RunError
from dse.finetune.cached_weights import load_cached, write_cached


def make_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pretrained.safetensors"
    write_cached(make_network(0), path, {"content": "c"})
    return path


def test_weights_come_back(path: Path) -> None:
    network = make_network(1)
    assert load_cached(network, path)
    for own, other in zip(network.parameters(), make_network(0).parameters(), strict=True):
        assert torch.equal(own, other)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_flipped_bit_is_found_wherever_it_is(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = path.read_bytes()
    expected = [tensor.clone() for tensor in make_network(0).state_dict().values()]
    for place in range(len(sound)):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        network = make_network(1)
        before = [tensor.clone() for tensor in network.state_dict().values()]
        caplog.clear()
        loaded = load_cached(network, path)
        after = list(network.state_dict().values())
        # A flip in what the weights don't depend on, such as other metadata, does no harm.
        wanted = expected if loaded else before
        assert all(torch.equal(one, two) for one, two in zip(after, wanted, strict=True))
        if not loaded:
            (record,) = caplog.records
            assert record.levelname == "WARNING"
            assert "the weights are trained anew" in record.getMessage()
            assert "\n" not in record.getMessage()


def test_a_file_without_a_digest_is_not_used(path: Path) -> None:
    save_file(make_network(0).state_dict(), path)
    assert not load_cached(make_network(1), path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="set DSE_CACHE to a folder that can be written"):
        write_cached(make_network(0), tmp_path / "file" / "x.safetensors", {})
