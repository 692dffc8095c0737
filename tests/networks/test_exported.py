"""Networks of files that `torch.export.save` wrote, against those that they were exported from."""

import copy
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from dse.deploy.definition import definition
from dse.errors import NetworkError
from dse.footprint.request import FootprintRequest, StepOverrides
from dse.footprint.resolve import resolve
from dse.inputs import InputSpec
from dse.memory.model import MemoryModel
from dse.networks.build import build_network
from dse.networks.exported_library import exported_input
from dse.networks.fixed import fixed_parameters
from dse.pruning.depth import find_depth
from dse.pruning.groups import find_groups
from dse.sampling.joint import cannot_run
from dse.trust.builders import objection_to_network
from support.networks import short_mobilenet

SIZE = 32
IMAGES = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def saved(network: nn.Module, path: Path, *, example: Tensor = IMAGES, fixed: bool = False) -> Path:
    shapes = None if fixed else ({0: Dim("batch")},)
    torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    network = short_mobilenet()
    network.train()(IMAGES)  # moves the running statistics
    return network


@pytest.fixture(scope="module")
def file(original: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(original, tmp_path_factory.mktemp("exported") / "short.pt2")


def built(file: Path, classes: int = 3, **others: object) -> nn.Module:
    return build_network(f"export:{file}", classes=classes, **{"weights": "default", **others})  # type: ignore[arg-type]


def test_it_computes_and_learns_what_the_original_does_in_both_modes(
    original: nn.Module, file: Path
) -> None:
    network, twin = built(file), copy.deepcopy(original)
    assert dict(network.named_parameters()).keys() == dict(twin.named_parameters()).keys()
    for training in (False, True):
        results = []
        for one in (network, twin):
            one.train(training)
            torch.manual_seed(1)  # of dropout
            results.append(one(IMAGES))
            results[-1].square().sum().backward()
        assert torch.equal(*results)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, twin.get_parameter(name).grad), name
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, twin.get_buffer(name)), name


def test_groups_blocks_and_memory_are_the_originals(original: nn.Module, file: Path) -> None:
    network = built(file)
    groups = [(one.name, one.channels, one.multiple) for one in find_groups(network, IMAGES)]
    own = find_groups(original, IMAGES)
    assert groups == [(one.name, one.channels, one.multiple) for one in own]
    blocks = [block.name for block in find_depth(network, IMAGES).blocks]
    assert blocks == [block.name for block in find_depth(original, IMAGES).blocks]
    models = [MemoryModel.compile(one, IMAGES) for one in (network, original)]
    kept = [max(1, one.channels // 2) for one in own]
    assert models[0].peaks(kept, batch_size=4) == models[1].peaks(kept, batch_size=4)


def test_it_can_be_written_without_dse(file: Path) -> None:
    text = definition(built(file), IMAGES, title="A network.")
    assert "nn.Conv2d(" in text
    assert "torch.ops.aten" in text


def test_copies_remember_what_the_file_froze(original: nn.Module, tmp_path: Path) -> None:
    frozen = copy.deepcopy(original)
    frozen.get_parameter("features.0.0.weight").requires_grad_(requires_grad=False)
    network = built(saved(frozen, tmp_path / "frozen.pt2"))
    assert fixed_parameters(network) == {"features.0.0.weight"}
    assert fixed_parameters(copy.deepcopy(network)) == {"features.0.0.weight"}
    assert exported_input(copy.deepcopy(network)) == InputSpec.image(SIZE)


def test_other_classes_get_a_new_output_layer_and_no_weights_new_ones(file: Path) -> None:
    lines: list[str] = []
    network = built(file, classes=7, on_message=lines.append)
    assert network(IMAGES).shape == (3, 7)
    assert lines == [
        f"weights 'default' of export:{file} have 3 outputs: the output layer for 7 is new"
    ]
    torch.manual_seed(5)
    plain = built(file, weights="none")
    assert not torch.equal(
        plain.get_parameter("features.0.0.weight"),
        dict(network.named_parameters())["features.0.0.weight"],
    )


def test_a_relative_file_lies_in_the_studys_folder(file: Path) -> None:
    network = build_network(f"export:{file.name}", classes=3, search_path=file.parent)
    assert exported_input(network) == InputSpec.image(SIZE)


def _rewritten(file: Path, place: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(file) as sound, zipfile.ZipFile(place, "w") as spoilt:
        for name in sound.namelist():
            spoilt.writestr(name, change(name, sound.read(name)))
    return place


def _with_text(old: str, new: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("model.json"):
            return content
        assert old.encode() in content
        return content.replace(old.encode(), json.dumps(new)[1:-1].encode())

    return change


def _as_pickle(name: str, content: bytes) -> bytes:
    if not name.endswith("weights_config.json"):
        return content
    return content.replace(b'"use_pickle": false', b'"use_pickle": true')


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            _with_text("torch.ops.aten.flatten.using_ints", "torch.os.system"),
            "calls 'torch.os.system', which is none of PyTorch's operators",
        ),
        (
            _with_text("positive=True", "positive=__import__('os').system('true')"),
            "has the size .*, which isn't read",
        ),
        (_as_pickle, "as a pickle, which may run code"),
    ],
)
def test_what_may_run_code_is_refused_before_it_is_read(
    file: Path, tmp_path: Path, change: Callable[[str, bytes], bytes], reason: str
) -> None:
    bad = _rewritten(file, tmp_path / "bad.pt2", change)
    with pytest.raises(NetworkError, match=reason) as refused:
        built(bad)
    assert "\n" not in str(refused.value)


def test_what_is_no_such_program_is_named_in_one_line(
    original: nn.Module, file: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.pt2"
    short.write_bytes(file.read_bytes()[: 2**16])
    fixed = saved(original, tmp_path / "fixed.pt2", example=IMAGES[:1], fixed=True)
    for path, reason in (
        (tmp_path / "missing.pt2", "there is no file"),
        (short, "can't be read as a file of torch.export.save"),
        (_rewritten(file, tmp_path / "empty.pt2", lambda *_: b"{}"), "damaged|can't be read"),
        (fixed, r"exported for batches of 1 alone; export it again with two samples or more"),
    ):
        with pytest.raises(NetworkError, match=reason) as refused:
            built(path)
        assert "\n" not in str(refused.value)
    with pytest.raises(NetworkError, match="exported for samples of 3x32x32, not 3x24x24"):
        built(file, inputs=InputSpec.image(24))
    with pytest.raises(NetworkError, match="takes no option 'width'"):
        built(file, options={"width": 2})


def test_a_step_is_of_the_samples_that_it_was_exported_for(file: Path) -> None:
    step = resolve(FootprintRequest(target=f"export:{file}", classes=3))
    assert (step.inputs, step.image_size) == (InputSpec.image(SIZE), SIZE)
    assert cannot_run(step.network, SIZE) is None
    assert cannot_run(step.network, 24) == "it was exported for samples of 3x32x32"
    smaller = FootprintRequest(
        target=f"export:{file}", classes=3, overrides=StepOverrides(image_size=24)
    )
    with pytest.raises(NetworkError, match="exported for samples of 3x32x32, not 3x24x24"):
        resolve(smaller)


def test_an_untrusted_file_may_not_name_a_program(file: Path) -> None:
    objection = objection_to_network(f"export:{file}", {})
    assert objection is not None
    assert "torch.export.save" in objection
