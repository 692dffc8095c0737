"""A bundle's `network.onnx`: the forward pass with any batch size, checked with ONNX Runtime."""

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn

from dse.errors import ExportError
from dse.networks.logits import main_logits

ONNX_FILE = "network.onnx"
TOLERANCE = 1e-4  # relative to the largest logit
_BATCHES = (1, 2, 5)


class _Logits(nn.Module):
    """A network that returns its logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, samples: Tensor) -> Tensor:
        return main_logits(self.network(samples))


def write_onnx(network: nn.Module, samples: Tensor, path: Path) -> float:
    """Write a network's forward pass in evaluation mode, and compare it with ONNX Runtime's.

    Args:
        network: the network on the CPU, in evaluation mode.
        samples: two of its samples, (2, ...).
        path: the file to write.

    Returns:
        The largest difference of a logit, relative to the largest logit.

    Raises:
        ExportError: if it can't be exported, or ONNX Runtime gives other logits.
    """
    batch = torch.export.Dim("batch")
    try:
        # Both report on the progress of every pass.
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(network).eval(),
                (samples,),
                path,
                dynamo=True,
                dynamic_shapes=({0: batch},),
                input_names=["samples"],
                output_names=["logits"],
                external_data=False,
            )
    except Exception as error:  # its exporter raises many kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"{path.name} can't be exported: {reason[:200]}") from error
    largest = max(_difference(network, samples, path, size) for size in _BATCHES)
    if not largest <= TOLERANCE:
        raise ExportError(
            f"{path.name}: ONNX Runtime's logits differ from PyTorch's by {largest:.2g} of the "
            f"largest, more than {TOLERANCE:g}"
        )
    return largest


def _difference(network: nn.Module, samples: Tensor, path: Path, size: int) -> float:
    import onnxruntime  # noqa: PLC0415  # an extra

    given = samples.repeat(size, *(1 for _ in samples.shape[1:]))[:size]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"samples": given.numpy()})
    with torch.no_grad():
        expected = main_logits(network(given))
    if found.shape != tuple(expected.shape):
        return float("inf")
    return float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max())
