from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dse.deploy.onnx_file import write_onnx
from dse.errors import ExportError

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.conv(x).mean((2, 3))
        return {"embedding": features, "logits": self.head(features)}


def test_any_batch_gives_the_networks_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Small()
    network(torch.randn(8, 3, 10, 10))  # moves the running statistics
    network.eval()
    path = tmp_path / "network.onnx"
    assert write_onnx(network, torch.randn(2, 3, 10, 10), path) < 1e-5
    session = onnxruntime.InferenceSession(str(path))
    samples = torch.randn(7, 3, 10, 10)
    (found,) = session.run(None, {"samples": samples.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), network(samples)["logits"].detach())
    assert [one.name for one in tmp_path.iterdir()] == ["network.onnx"]


class Deciding(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)).repeat(1, 2)[:, :4]) if x.sum().item() > 0 else x


def test_what_cant_be_exported_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"network\.onnx can't be exported") as caught:
        write_onnx(Deciding().eval(), torch.randn(2, 3, 10, 10), tmp_path / "network.onnx")
    assert "\n" not in str(caught.value)
