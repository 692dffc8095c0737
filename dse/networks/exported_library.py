"""Networks of files that `torch.export.save` wrote (.pt2)."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from dse.errors import NetworkError
from dse.inputs import InputSpec, Kind
from dse.networks.exported_file import read_program
from dse.networks.exported_layers import network_of
from dse.networks.head import replace_head
from dse.networks.library import DEFAULT_WEIGHTS, NO_WEIGHTS, Library, Wanted
from dse.networks.logits import main_logits
from dse.textfiles import exists
from dse.user_code import guarded

_INPUT = "_dse_exported_input"
_KINDS: dict[torch.dtype, Kind] = {torch.float32: "float32", torch.int64: "int64"}


def program_file(name: str, *, folder: Path | None) -> Path:
    """Return the file that a network `export:FILE` is read from, whether it exists or not.

    Args:
        name: name of the network.
        folder: folder that a relative path starts at, before the working directory.
    """
    path = Path(name.partition(":")[2]).expanduser()
    places = [Path(start or "") / path for start in (folder, Path.cwd())]
    return next((place for place in places if exists(place)), places[0])


def _build(wanted: Wanted) -> nn.Module:
    if wanted.options:
        key = next(iter(wanted.options))
        raise NetworkError(
            f"network {wanted.title!r}: takes no option {key!r}, since a program is as it was "
            "exported; leave it out"
        )
    if wanted.weights != NO_WEIGHTS:
        _refuse_other_weights(wanted)
    path = program_file(wanted.title, folder=wanted.folder)
    program = read_program(path, title=wanted.title)
    own = _input_of(program, wanted.title)
    if wanted.inputs is not None:
        check_input(own, wanted.inputs, title=wanted.title)
    network = network_of(program)
    vars(network)[_INPUT] = own
    _fit_outputs(network, own, wanted)
    if wanted.weights == NO_WEIGHTS:
        for module in network.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return network


def exported_input(network: nn.Module) -> InputSpec | None:
    """Return the only input that a network runs on; None if it comes from no exported program."""
    found: InputSpec | None = vars(network).get(_INPUT)
    return found


def _input_of(program: ExportedProgram, title: str) -> InputSpec:
    """Return the shape and type of one sample of a program's first input.

    Raises:
        NetworkError: If an input is no tensor, or only batches of one size are taken.
    """
    specs = [one for one in program.graph_signature.input_specs if one.kind == InputKind.USER_INPUT]
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    given = [values.get(getattr(one.arg, "name", "")) for one in specs]
    first = given[0] if given else None
    if not isinstance(first, Tensor) or not all(isinstance(one, Tensor) for one in given):
        raise NetworkError(
            f"network {title!r}: takes inputs that are no tensors; export it with tensors alone"
        )
    if isinstance(first.shape[0], int):
        raise NetworkError(
            f"network {title!r}: was exported for batches of {first.shape[0]} alone; export it "
            "again with two samples or more and dynamic_shapes=({0: "
            'torch.export.Dim("batch")},)'
        )
    sizes = [size if isinstance(size, int) else None for size in first.shape[1:]]
    kind = _KINDS.get(first.dtype)
    if None in sizes or kind is None:
        shown = "x".join("any" if size is None else str(size) for size in sizes)
        raise NetworkError(
            f"network {title!r}: was exported for samples of {shown} "
            f"({str(first.dtype).removeprefix('torch.')}); export it for float32 or int64 samples "
            "of one shape, with the batch alone dynamic"
        )
    return InputSpec(shape=tuple(size for size in sizes if size is not None), kind=kind)


def check_input(own: InputSpec, given: InputSpec, *, title: str) -> None:
    """Check that samples are those that a program was exported for.

    Args:
        own: what it was exported for.
        given: the samples.
        title: name of the network, for messages.

    Raises:
        NetworkError: If they differ.
    """
    if (given.shape, given.kind) != (own.shape, own.kind):
        raise NetworkError(
            f"network {title!r}: was exported for samples of {own.text}, not {given.text}: set the "
            "image size, or the shape of the input, to that, or export it again"
        )


def _fit_outputs(network: nn.Module, own: InputSpec, wanted: Wanted) -> None:
    """Give the network as many outputs as are wanted, with a new output layer if need be."""
    example = own.example(2)
    with torch.no_grad(), guarded(network, f"can't run on inputs of {own.text}"):
        network.eval()
        trained = main_logits(network(example)).shape[1]
        network.train()
    if trained == wanted.classes:
        return
    replace_head(network, example, classes=wanted.classes)
    if wanted.weights != NO_WEIGHTS:
        wanted.state_classes(trained)


def _check_weights(wanted: Wanted) -> Iterator[str]:
    _refuse_other_weights(wanted)
    yield from ()


def _refuse_other_weights(wanted: Wanted) -> None:
    if wanted.weights != DEFAULT_WEIGHTS:
        raise NetworkError(
            f"weights {wanted.weights!r} aren't available for {wanted.title!r}: use 'default' "
            "(those in the file), a file of weights, or 'none'"
        )


LIBRARY = Library(build=_build, check_weights=_check_weights, reserved=("num_classes", "weights"))
