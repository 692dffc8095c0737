import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from dse.errors import NetworkError
from dse.networks.build import build_network, load_tensors
from dse.networks.examples import example_input
from dse.networks.forward import output_layers
from dse.networks.head import replace_head

SMALL = "torchvision:squeezenet1_1"

FACTORIES = """
from torch import nn

def plain(num_classes, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.Flatten(), nn.Linear(width, num_classes))

def without_classes():
    return nn.Identity()

def broken(num_classes):
    raise KeyError("nothing here")

def no_file(num_classes):
    return open("/nowhere/weights")

def not_a_network(num_classes):
    return num_classes

constant = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    (tmp_path / "my_broken_module.py").write_text("import a_module_that_is_missing")
    return tmp_path


def save(network: nn.Module, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize(
    "name", [SMALL, "torchvision:mobilenet_v2", "torchvision:googlenet", "torchvision:inception_v3"]
)
def test_torchvision_networks_have_the_requested_outputs(name: str) -> None:
    network = build_network(name, classes=7)
    assert network.train()(example_input(2, 96)).shape == (2, 7)


def test_the_same_seed_gives_the_same_network() -> None:
    first, second = (
        (torch.manual_seed(3), build_network(SMALL, classes=3))[1].state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_options_reach_the_factory(folder: Path) -> None:
    network = build_network(
        "torchvision:mobilenet_v2", classes=2, options={"width_mult": 0.5, "dropout": 0.0}
    )
    assert network.features[0][0].out_channels == 16
    network = build_network(
        "my_factories:plain", classes=2, options={"width": 6}, search_path=folder
    )
    assert network[2].weight.shape == (2, 6)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("torchvision:mobilnet_v2", {}, "'mobilnet_v2', did you mean 'mobilenet_v2'"),
        ("torchvision:fcn_resnet50", {}, "no classifier 'fcn_resnet50'"),
        (SMALL, {"weights": "IMAGNET1K_V1"}, "did you mean 'IMAGENET1K_V1'"),
        (SMALL, {"weights": "MINE"}, "'none', a file of weights or one of IMAGENET1K_V1"),
        (SMALL, {"options": {"widht": 2}}, "can't be built with num_classes=5, widht=2"),
        (SMALL, {"options": {"num_classes": 2}}, "option 'num_classes' is set by the study"),
        ("torchvision:googlenet", {"options": {"aux_logits": True}}, "aux_logits=true isn't"),
        ("mobilenet_v2", {}, "write torchvision:NAME, timm:NAME"),
        ("no_such_package:net", {}, "importing 'no_such_package' failed: ModuleNotFoundError"),
        ("my_broken_module:net", {}, "No module named 'a_module_that_is_missing'"),
        ("my_factories:plian", {}, "no function 'plian', did you mean 'plain'"),
        ("my_factories:constant", {}, "no function 'constant'"),
        ("my_factories:without_classes", {}, "can't be built with num_classes=5"),
        ("my_factories:broken", {}, "nothing here"),
        ("my_factories:no_file", {}, "No such file or directory"),
        ("my_factories:not_a_network", {}, "the factory returned 'int'"),
        ("my_factories:plain", {"weights": "DEFAULT"}, "give a file of weights"),
        (SMALL, {"weights": "nowhere.safetensors"}, "no weights at nowhere.safetensors"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(
    folder: Path, name: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(NetworkError) as caught:
        build_network(name, classes=5, search_path=folder, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_without_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with pytest.raises(NetworkError, match=r"can't be downloaded .*no route.*squeezenet1_1-") as e:
        build_network(SMALL, classes=5, weights="DEFAULT")
    assert "\n" not in str(e.value)


def test_downloaded_weights_keep_all_but_a_differing_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(1)
    source = torchvision.models.squeezenet1_1()
    url = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    cached = tmp_path / "hub" / "checkpoints" / Path(url).name
    cached.parent.mkdir(parents=True)
    torch.save(source.state_dict(), cached)
    same = build_network(SMALL, classes=1000, weights="DEFAULT")
    assert all(torch.equal(t, same.state_dict()[n]) for n, t in source.state_dict().items())
    network = build_network(SMALL, classes=5, weights="IMAGENET1K_V1")
    assert torch.equal(network.features[0].weight, source.features[0].weight)
    assert network.classifier[1].weight.shape == (5, 512, 1, 1)
    assert network(example_input(1, 64)).shape == (1, 5)


def test_a_file_is_loaded_whole_or_with_a_new_head(tmp_path: Path) -> None:
    source = build_network(SMALL, classes=3)
    path = save(source, tmp_path / "weights.safetensors")
    same = build_network(SMALL, classes=3, weights=str(path))
    assert all(torch.equal(t, same.state_dict()[n]) for n, t in source.state_dict().items())
    other = build_network(SMALL, classes=4, weights=str(path))
    assert torch.equal(other.features[0].weight, source.features[0].weight)
    assert other.classifier[1].weight.shape == (4, 512, 1, 1)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    path = tmp_path / "w.safetensors"
    with pytest.raises(NetworkError, match=r"no weights at .*w\.safetensors"):
        load_tensors(network, path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(NetworkError, match="not a readable safetensors file"):
        load_tensors(network, path)
    save(nn.Sequential(nn.Linear(2, 3)), path)
    with pytest.raises(NetworkError, match=r"lacks the tensor '1\.weight' of Sequential"):
        load_tensors(network, path)
    save(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5)), path)
    with pytest.raises(NetworkError, match=r"'1\.weight' has shape \(5, 3\), .* needs \(4, 3\)"):
        load_tensors(network, path)
    save(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 4)), path)
    with pytest.raises(NetworkError, match=r"has no tensor '2\."):
        load_tensors(network, path)
    fitting = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    load_tensors(network, save(fitting, path))
    assert torch.equal(network[1].bias, fitting[1].bias)


def test_a_replaced_head_is_fresh_and_like_the_old_one() -> None:
    network = build_network("torchvision:mobilenet_v2", classes=5).double().eval()
    old = network.classifier[1].weight
    replace_head(network, example_input(1, 32).double(), classes=5)
    head = network.classifier[1]
    assert not torch.equal(head.weight, old)
    assert head.weight.dtype == torch.float64
    assert not head.training
    network = build_network(SMALL, classes=5)
    replace_head(network, example_input(1, 32), classes=9)
    assert network(example_input(1, 32)).shape == (1, 9)


def test_heads_that_cannot_be_replaced_are_refused() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(x) + self.second(x)

    assert output_layers(TwoHeads(), torch.zeros(1, 4)) == ("first", "second")
    with pytest.raises(NetworkError, match=r"2 output layers \(first, second\)"):
        replace_head(TwoHeads(), torch.zeros(1, 4), classes=3)
    with pytest.raises(NetworkError, match="0: an output layer of type Conv1d can't be replaced"):
        replace_head(nn.Sequential(nn.Conv1d(2, 2, 1)), torch.zeros(1, 2, 3), classes=3)


def test_a_factory_may_import_its_neighbours_when_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "late_neighbour.py").write_text("WIDTH = 7\n", encoding="utf-8")
    (tmp_path / "late_factory.py").write_text(
        "from torch import nn\n\n\ndef build(num_classes):\n"
        "    from late_neighbour import WIDTH\n"
        "    return nn.Linear(WIDTH, num_classes)\n",
        encoding="utf-8",
    )
    network = build_network("late_factory:build", classes=2, search_path=tmp_path)
    assert isinstance(network, nn.Linear)
    assert network.in_features == 7


def test_the_import_path_is_left_as_it_was(folder: Path) -> None:
    before = list(sys.path)
    build_network("my_factories:plain", classes=2, search_path=folder)
    with pytest.raises(NetworkError):
        build_network("my_factories:none", classes=2, search_path=folder)
    assert sys.path == before
