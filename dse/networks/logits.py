"""Which of a network's outputs are logits.

A network returns (batch, classes) logits. Beside them it may return, in a tuple, dictionary or data
class, the logits of auxiliary heads while it trains (GoogLeNet, Inception), or other things, such
as an embedding. Only what has the shape of the logits is scored with them.
"""

from torch import Tensor

from dse.errors import NetworkError
from dse.networks.forward import fields_of, tensors_in

_NAMES = ("logits", "out", "output", "pred", "predictions")


def main_logits(outputs: object) -> Tensor:
    """The logits: of a named output those so called, otherwise the first tensor.

    Raises:
        NetworkError: If there is no tensor.
    """
    if isinstance(outputs, Tensor):
        return outputs
    fields = fields_of(outputs)
    for name in _NAMES:
        if isinstance(fields.get(name), Tensor):
            return fields[name]  # type: ignore[return-value]  # just looked at
    first = next(tensors_in(outputs), None)
    if first is None:
        raise NetworkError(
            f"the network returns {type(outputs).__name__}, which holds no tensor: return a tensor "
            "of (batch, classes) logits"
        )
    return first


def all_logits(outputs: object) -> tuple[Tensor, ...]:
    """The logits, and after them whatever else has their shape: auxiliary heads' own."""
    main = main_logits(outputs)
    others = [each for each in tensors_in(outputs) if each is not main]
    return (main, *(each for each in others if each.shape == main.shape))


def unscored(outputs: object) -> tuple[Tensor, ...]:
    """Return the outputs of a network that are not logits."""
    shape = main_logits(outputs).shape
    return tuple(each for each in tensors_in(outputs) if each.shape != shape)
