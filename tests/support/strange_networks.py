"""Networks with the habits of real ones that tools stumble over."""

import threading
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional

STRANGE = (
    "usual",
    "raises",
    "raises in training",
    "exits",
    "none",
    "text",
    "nan",
    "overflows",
    "zero",
    "half",
    "complex",
    "keeps",
    "keeps in a list",
    "weight_norm",
    "counts",
    "in place",
    "hooks",
    "hooks that raise",
    "lock",
    "shared",
    "detached",
    "no_grad",
    "value-dependent",
    "numpy",
    "tuple",
    "dictionary",
    "backward raises",
    "standardised",
    "wrong shape",
)


class _Raising(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: object, _gradient: Tensor) -> Tensor:
        raise ArithmeticError("no gradient here")


class Strange(nn.Module):
    """Two convolutions and a classifier, with one habit."""

    def __init__(self, habit: str, classes: int, *, channels: int = 3, width: int = 8) -> None:
        super().__init__()
        self.habit = habit
        self.a = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, classes)
        self.kept: object = None
        self.calls = 0
        if habit == "half":
            self.half()
        elif habit == "weight_norm":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                nn.utils.weight_norm(self.b)
        elif habit == "hooks":
            self.b.register_forward_hook(lambda _module, _inputs, output: output * 2)
        elif habit == "hooks that raise":
            self.b.register_forward_pre_hook(_raise)
        elif habit == "lock":
            self.kept = threading.Lock()

    def forward(self, x: Tensor) -> object:  # noqa: C901, PLR0911, PLR0912 (one habit each)
        habit = self.habit
        self.calls += 1
        if habit == "raises" or (habit == "raises in training" and self.training):
            raise KeyError("lost")
        if habit == "interrupted":
            raise KeyboardInterrupt
        if habit == "exits":
            raise SystemExit(3)
        if habit == "none":
            return None
        if habit == "text":
            return "logits"
        x = torch.relu(self.norm(self.a(x)))
        if habit == "shared":
            x = torch.relu(self.b(x))
        if habit == "in place":
            x += 1
        if habit == "standardised":
            w = self.b.weight
            w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
            x = functional.conv2d(x, w, self.b.bias, padding=1)
        else:
            x = self.b(x)
        if habit == "value-dependent" and bool(x.mean() > 0):
            x = -x
        if habit == "complex":
            x = torch.fft.fft2(x).abs()
        if habit == "overflows":
            x = x * 1e30 * 1e30
        if habit == "nan":
            x = x * float("nan")
        if habit == "zero":
            x = x * 0
        if habit == "backward raises":
            x = _Raising.apply(x)
        if habit == "numpy":
            x = torch.from_numpy(x.detach().numpy())
        if habit == "detached":
            x = x.detach()
        x = x.mean((2, 3))
        if habit == "keeps":
            self.kept = x
        if habit == "keeps in a list":
            self.kept = [{"features": (x,)}]
        if habit == "counts":
            x = x * self.calls
        if habit == "no_grad":
            with torch.no_grad():
                return self.head(x)
        logits = self.head(x)
        if habit == "tuple":
            return (logits, x) if self.training else logits
        if habit == "dictionary":
            return {"features": x, "logits": logits}
        if habit == "wrong shape":
            return logits.T
        return logits


def _raise(_module: nn.Module, _inputs: object) -> None:
    raise LookupError("no such thing")
