from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dse.errors import NetworkError
from dse.networks.build import build_network
from dse.networks.checkpoints import read_weights

FACTORIES = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.n = n
        self.f = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, n)

    def forward(self, x):
        return self.head(self.f(x).mean((2, 3))).view(-1, self.n)

def small(num_classes):
    return Small(num_classes)

class Cosine(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.f = nn.Conv2d(3, 8, 3)
        self.w = nn.Parameter(torch.randn(n, 8))

    def forward(self, x):
        return self.f(x).mean((2, 3)) @ self.w.T

def cosine(num_classes):
    return Cosine(num_classes)
"""

Tensors = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "checkpoint_factories.py").write_text(FACTORIES)
    return tmp_path


def built(
    folder: Path, weights: Path | None = None, *, classes: int = 5, name: str = "small"
) -> tuple[nn.Module, list[str]]:
    lines: list[str] = []
    network = build_network(
        f"checkpoint_factories:{name}",
        classes=classes,
        weights="none" if weights is None else str(weights),
        search_path=folder,
        on_message=lines.append,
    )
    return network, lines


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


SHAPES = {
    "plain": lambda t: t,
    "dataparallel": lambda t: prefixed("module.", t),
    "compiled": lambda t: prefixed("module._orig_mod.", t),
    "compiled inside": lambda t: {n.replace("f.", "f._orig_mod.", 1): v for n, v in t.items()},
    "lightning": lambda t: {"epoch": 3, "state_dict": prefixed("model.", t)},
    "nested": lambda t: {"state": 1, "model": {"state_dict": prefixed("model.module.", t)}},
    "averaged": lambda t: {"ema": prefixed("module.", {**t, "n_averaged": torch.tensor(3)})},
    "old counters": lambda t: {n: v for n, v in t.items() if "tracked" not in n},
    "profiled": lambda t: {**t, "total_ops": torch.zeros(1), "f.0.total_params": torch.zeros(1)},
    "half": lambda t: {n: v.half() if v.is_floating_point() else v for n, v in t.items()},
    "others beside": lambda t: {**prefixed("model.", t), "criterion.weight": torch.ones(2)},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_checkpoints_as_people_have_them(folder: Path, shape: str) -> None:
    source, _ = built(folder)
    torch.save(SHAPES[shape](source.state_dict()), folder / "w.pth")
    network, (line,) = built(folder, folder / "w.pth")
    for name, tensor in source.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
    assert network.f[0].weight.dtype == torch.float32
    assert "tensors loaded" in line


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".pth.tar", ".PTH"])
def test_files_that_torch_saved(folder: Path, suffix: str) -> None:
    source, _ = built(folder)
    path = folder / f"w{suffix}"
    torch.save(source.state_dict(), path)
    network, _ = built(folder, path)
    assert torch.equal(network.f[0].weight, source.f[0].weight)


@pytest.mark.parametrize(("name", "new"), [("small", "head.weight, head.bias"), ("cosine", "w")])
def test_another_number_of_classes_leaves_the_classifier_new(
    folder: Path, name: str, new: str
) -> None:
    source, _ = built(folder, classes=7, name=name)
    torch.save(source.state_dict(), folder / "w.pth")
    network, (line,) = built(folder, folder / "w.pth", classes=2, name=name)
    trunk = "f.0.weight" if name == "small" else "f.weight"
    assert torch.equal(network.state_dict()[trunk], source.state_dict()[trunk])
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 2)
    assert f"left new ({new})" in line


def test_a_missing_classifier_is_left_new(folder: Path) -> None:
    source, _ = built(folder)
    headless = {n: t for n, t in source.state_dict().items() if "head" not in n}
    save_file(headless, folder / "w.safetensors")
    network, (line,) = built(folder, folder / "w.safetensors")
    assert torch.equal(network.f[0].weight, source.f[0].weight)
    assert "2 left new (head.weight, head.bias)" in line


def broken(tensors: Tensors, **changes: Tensor) -> Tensors:
    return {**tensors, **{name.replace("_", "."): tensor for name, tensor in changes.items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: broken(t, f_0_weight=torch.zeros(4, 3, 3, 3)), r"'f.0.weight' has shape \(4,"),
        (lambda t: broken(t, f_9_weight=torch.zeros(4)), "the network has no 'f.9.weight'"),
        (lambda t: {n: v for n, v in t.items() if n != "f.0.bias"}, "'f.0.bias' is missing"),
        (lambda t: broken(t, f_0_bias=torch.full((8,), torch.nan)), "f.0.bias .* aren't finite"),
        (lambda t: broken(t, f_0_bias=torch.zeros(8, dtype=torch.int8)), "is torch.int8 where"),
        (lambda t: {**prefixed("student.", t), **prefixed("teacher.", t)}, "the network 2 times"),
        (lambda _: {"other.weight": torch.zeros(3)}, "0 of its 9 tensors are in the file"),
        (lambda _: {"epoch": 3}, "holds no weights, but a dictionary with epoch"),
        (lambda _: [1, 2], "holds no weights, but"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    folder: Path, change: Callable[[Tensors], object], message: str
) -> None:
    source, _ = built(folder)
    torch.save(change(source.state_dict()), folder / "w.pth")
    with pytest.raises(NetworkError, match=message) as caught:
        built(folder, folder / "w.pth")
    assert "\n" not in str(caught.value)


def test_a_pickled_network_is_never_executed(folder: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), folder / "w.pt")
    with pytest.raises(NetworkError, match=r"Python objects .*Sequential.*write the tensors alone"):
        read_weights(folder / "w.pt")
    (folder / "w.ckpt").write_bytes(b"nothing of the kind")
    with pytest.raises(NetworkError, match=r"w\.ckpt"):
        read_weights(folder / "w.ckpt")
