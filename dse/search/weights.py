"""Checks up front whether a study's weights are available."""

from collections.abc import Iterator

from dse.config import Study
from dse.errors import NetworkError
from dse.networks.build import build_network
from dse.networks.library import NO_WEIGHTS, Wanted, find_library
from dse.weight_files import is_weights_file

ANY_CLASSES = 2  # used if only the data determine the number of classes


def check_weights(study: Study, classes: int | None) -> Iterator[str]:
    """Check the name or file of the weights, and yield what the run will do to get them.

    Raises:
        NetworkError: if the file is missing or doesn't fit, or the library has no such weights.
    """
    network = study.network
    if network.weights == "pretrain":
        yield "the network will be pretrained on the source labels, unless its weights are cached"
    elif is_weights_file(network.weights):
        lines: list[str] = []
        build_network(
            network.name,
            classes=classes or ANY_CLASSES,
            weights=network.weights,
            options=network.options,
            search_path=study.source_dir,
            on_message=lines.append,
            outputs=study.task.outputs,
        )
        yield from lines
    elif network.weights != NO_WEIGHTS:
        library = find_library(network.name)
        if library is None:
            raise NetworkError(
                f"network.weights = {network.weights!r}: only networks of libraries have named "
                "weights; give a file of weights, or 'none'"
            )
        yield from library.check_weights(
            Wanted(
                title=network.name,
                name=network.name.partition(":")[2],
                classes=classes or ANY_CLASSES,
                outputs=study.task.outputs,
                weights=network.weights,
                options=dict(network.options),
                folder=study.source_dir,
            )
        )
