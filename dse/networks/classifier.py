"""The parameters of a network's classifier, whatever module or code uses them."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from dse.errors import NetworkError
from dse.networks.forward import all_trainable, evaluating, leaf_of, run, tensors_in
from dse.networks.logits import main_logits

# Autograd nodes that multiply features by weights, or compare features with prototypes.
_PRODUCTS = (
    "Addmm",
    "Mm",
    "Bmm",
    "Baddbmm",
    "Addbmm",
    "Mv",
    "Addmv",
    "Dot",
    "Linear",
    "Convolution",
    "MkldnnConvolution",
    "Cdist",
    "EuclideanDist",
    "Bilinear",
    "Trilinear",
)

_LOOK_UPS = ("Embedding", "IndexSelect", "Index", "Gather")


def classifier_parameters(network: nn.Module, example_input: Tensor) -> tuple[str, ...]:
    """Names of the parameters that turn a network's last features into its logits.

    Walking back from the logits along every path, these belong to the first operation that combines
    features with weights. Its weights are usually those of a linear layer or convolution, but they
    may also be a bare parameter, as in a cosine classifier, or be computed from other parameters.
    Scales that the same module applies afterwards count too.

    Args:
        network: A network that takes one tensor. Its flags are restored afterwards.
        example_input: (any batch, channels, height, width); one sample of it is used.

    Returns:
        In the order of the network's own parameters; tied ones once.

    Raises:
        NetworkError: if it can't run, or no parameter leads to its output.
    """
    image = leaf_of(example_input)
    with evaluating(network), all_trainable(network):
        roots = [tensor.grad_fn for tensor in tensors_in(main_logits(run(network, image)))]
        graph = _Graph(roots, image)
        found = graph.classifier()
    title = type(network).__name__
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    heads = {names[each] for each in found.weights if each in names}
    owners = {name.rpartition(".")[0] for name in heads}
    scales = {names[each] for each in found.scales if each in names}
    heads |= {name for name in scales if name.rpartition(".")[0] in owners}
    if not heads:
        raise NetworkError(
            f"{title}: no parameter leads to its output; use a network that ends in a classifier"
        )
    return tuple(name for name in names.values() if name in heads)


class _Found:
    """Identities of parameters."""

    def __init__(self) -> None:
        self.weights: set[int] = set()
        self.scales: set[int] = set()


class _Graph:
    """An autograd graph, and what of it comes from the image or from which parameters."""

    def __init__(self, roots: Iterable[Any], image: Tensor) -> None:
        self._roots = [root for root in roots if root is not None]
        self._from_image: dict[Any, bool] = {}
        self._parameters: dict[Any, frozenset[Tensor]] = {}
        for node in self._inputs_first():
            variable = getattr(node, "variable", None)
            before = [each for each, _ in node.next_functions if each is not None]
            # No gradient leads to whole numbers, such as tokens: what they look up stands for them.
            looked_up = not image.is_floating_point() and str(node.name()).startswith(_LOOK_UPS)
            self._from_image[node] = (
                variable is image or looked_up or any(map(self._from_image.get, before))
            )
            own = frozenset() if variable is None or variable is image else frozenset([variable])
            if not self._from_image[node]:
                own = own.union(*(self._parameters[each] for each in before))
            self._parameters[node] = own

    def classifier(self) -> _Found:
        """Walk back from the output to the first weights on every path."""
        found = _Found()
        seen: set[Any] = set()
        queue = list(self._roots)
        while queue:
            node = queue.pop()
            if node in seen:
                continue
            seen.add(node)
            before = [each for each, _ in node.next_functions if each is not None]
            weights = [each for each in before if not self._from_image[each]]
            parameters = frozenset().union(*(self._parameters[each] for each in weights))
            # Where no gradient reaches the image, as below a no_grad, weights are all there is.
            if _is_product(node) or any(map(_is_matrix, parameters)):
                found.weights |= set(map(id, parameters))
                if parameters:
                    continue
            found.scales |= set(map(id, parameters))
            queue += [each for each in before if self._from_image[each] or each not in weights]
            if not any(self._from_image[each] for each in before):
                queue += weights
        return found

    def _inputs_first(self) -> Iterator[Any]:
        """Every node after those that it is computed from."""
        done: set[Any] = set()
        stack = [(root, False) for root in self._roots]
        while stack:
            node, ready = stack.pop()
            if node in done:
                continue
            if ready:
                done.add(node)
                yield node
                continue
            stack.append((node, True))
            stack += [(each, False) for each, _ in node.next_functions if each is not None]


def _is_product(node: Any) -> bool:
    return str(node.name()).partition("Backward")[0] in _PRODUCTS


def _is_matrix(parameter: Tensor) -> bool:
    return sum(size > 1 for size in parameter.shape) > 1
