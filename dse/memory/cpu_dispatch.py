"""Dispatch a step as on the CPU, with placeholders: every operator is seen, and no kernel runs.

A Python function takes the place of all kernels. It is registered for the dispatch key ``Fake``,
which stands right below autograd and which nothing else uses, and is active only within ``on_cpu``.
Unlike a ``TorchDispatchMode`` it leaves PyTorch's choices of formulas as they are.

The layout of a result comes from the same operator on meta tensors. Views and the choice of the
attention kernel, which touch no memory, run for real.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from dse.memory.cpu_layout import known_layout, run_as_on_cpu
from dse.memory.operator_run import Stride
from dse.memory.placeholders import Placeholders
from dse.memory.reads import without_reads

_KEY = "Fake"

# They return their argument's storage, though their schema doesn't say so.
_SHARING = {"aten::_unsafe_view", "aten::unsafe_split", "aten::unsafe_split_with_sizes"}
# They look at layouts alone, and what they return depends on the device.
_CHOOSING = {"aten::_fused_sdp_choice"}
# Backward formulas use them to look for zeros and NaN. Placeholders have none but zeros that stand
# for ordinary numbers.
_SEARCHING = {"aten::nonzero"}

Run = Callable[[Sequence[Stride | None]], Any]
"""Runs an operator, with other strides for its results where they aren't None."""


class Observer(Protocol):
    """Sees every operator that a step runs, and runs it."""

    def record(
        self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], run: Run
    ) -> Any:
        """Record an operator, run it, and return its result."""


class Unobserved:
    """Observer that only lets operators run."""

    def record(
        self, _function: Any, _args: Sequence[Any], _kwargs: Mapping[str, Any], run: Run
    ) -> Any:
        """Run an operator, and return its result."""
        return run(())


class _Active(threading.local):
    """The dispatch that is active in this thread."""

    dispatch: "CpuDispatch | None" = None


_ACTIVE = _Active()


class CpuDispatch:
    """Runs operators on placeholders."""

    def __init__(self, observer: Observer, placeholders: Placeholders) -> None:
        self._observer = observer
        self._made = placeholders
        self._layouts: dict[Any, Any] = {}

    def __call__(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run one operator."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        run = partial(_real if self._is_real(tensors) else self._run, function, args, kwargs)
        return self._observer.record(function, args, kwargs, run)

    def _is_real(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether an operator has values to compute with."""
        if tensors:
            return all(not each.is_meta and self._made.address_of(each) is None for each in tensors)
        # torch.tensor(values) fills a new tensor without the dispatcher, and hides that from modes.
        return torch._C._dispatch_tls_is_dispatch_key_excluded("Python")  # noqa: SLF001

    def _run(
        self,
        function: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        strides: Sequence[Stride | None] = (),
    ) -> Any:
        name = function.name().partition(".")[0]
        kind = _kind(function)
        if kind == "views":
            return function(*args, **kwargs)
        if name in _SEARCHING and _in_formula():
            none = torch.zeros((1,) * args[0].ndim).nonzero()
            return self._made.make(none.shape, none.stride(), none.dtype)
        if kind == "updates":
            return _updated(function, args, kwargs)
        leaves, form = self._result_layouts(function, name, args, kwargs)
        # C++ code may fill a new tensor itself.
        written = not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs)))
        made = [
            self._made.make(
                leaf[0], leaf[1] if stride is None else stride, leaf[2], written=written
            )
            if isinstance(leaf, _Layout)
            else leaf
            for leaf, stride in zip(leaves, strides or [None] * len(leaves), strict=True)
        ]
        return tree_unflatten(made, form)

    def _result_layouts(
        self, function: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], Any]:
        key = (function, _hashable(args), _hashable(tuple(kwargs.items())))
        try:
            known = self._layouts.get(key)
        # An argument that can't be a key, such as a generator's state or a profiler's record.
        except (TypeError, NotImplementedError):
            return _inferred(function, name, args, kwargs)
        if known is None:
            known = self._layouts[key] = _inferred(function, name, args, kwargs)
        return known


class _Layout(tuple[tuple[int, ...], Stride, torch.dtype]):
    """Shape, strides and type of a tensor."""

    __slots__ = ()


def _inferred(
    function: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], Any]:
    """Return the layouts of an operator's results, by running it on meta tensors.

    Raises:
        NotImplementedError: If it doesn't run on them.
    """
    on_meta = tree_map(_without_values, (tuple(args), dict(kwargs)))
    result = known_layout(name, on_meta[0])
    if result is None:
        try:
            result = run_as_on_cpu(function, *on_meta)
        except NotImplementedError as error:
            # Fake tensors know no operator that meta tensors don't.
            raise NotImplementedError(
                f"what {name} returns depends on values, or PyTorch doesn't know its shape"
            ) from error
    leaves, form = tree_flatten(result)
    return [_layout(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], form


def _layout(tensor: torch.Tensor) -> _Layout:
    return _Layout((tuple(tensor.shape), tensor.stride(), tensor.dtype))


def _without_values(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def _hashable(value: Any) -> Any:
    """Return a key that is equal for arguments with equal layouts. True isn't 1, nor is 1.0."""
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(each) for each in value)
    return (type(value), value)


def _real(
    function: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    _strides: Sequence[Stride | None] = (),
) -> Any:
    return function(*args, **kwargs)


def _in_formula() -> bool:
    """Whether a backward formula of PyTorch's own is running."""
    node = torch._C._current_autograd_node()  # noqa: SLF001  # no public name
    return node is not None and not isinstance(node, torch.autograd.function.BackwardCFunction)


@cache
def _kind(function: Any) -> str:
    """Tell whether an operator makes tensors, updates its arguments, or only looks at layouts."""
    schema = function._schema  # noqa: SLF001  # no public name
    name = function.name().partition(".")[0]
    aliases = [each.alias_info for each in schema.returns]
    if name in _SHARING or name in _CHOOSING or torch.Tag.inplace_view in function.tags:
        return "views"
    if torch.Tag.data_dependent_output in function.tags and name == "aten::_local_scalar_dense":
        return "views"  # only PyTorch's own code gets here, and reads a zero
    if any(alias is not None and not alias.is_write for alias in aliases):
        return "views"
    if schema.is_mutable and all(alias is not None for alias in aliases):
        return "updates"
    return "makes"


def _updated(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the arguments that an operator has updated in place."""
    given = [_argument(place, args, kwargs) for place in _updated_arguments(function)]
    return given[0] if len(given) == 1 else tuple(given) or None


def _argument(place: tuple[int, str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    position, name = place
    return kwargs[name] if name in kwargs else args[position]


@cache
def _updated_arguments(function: Any) -> tuple[tuple[int, str], ...]:
    """Return position and name of the argument that each returned value is."""
    schema = function._schema  # noqa: SLF001  # no public name
    by_alias = {
        frozenset(argument.alias_info.before_set): (position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None
    }
    return tuple(by_alias[frozenset(each.alias_info.before_set)] for each in schema.returns)


def _fallback(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator in place of its kernel."""
    dispatch = _ACTIVE.dispatch
    with _key_included(included=False):
        if dispatch is None:
            return function(*args, **kwargs)
        return dispatch(function, args, kwargs)


@contextmanager
def _key_included(*, included: bool) -> Iterator[None]:
    """Decide whether operators of this thread go through the function."""
    before = torch._C._dispatch_tls_is_dispatch_key_included(_KEY)  # noqa: SLF001  # no public name
    torch._C._dispatch_tls_set_dispatch_key_included(_KEY, included)  # noqa: SLF001
    try:
        yield
    finally:
        torch._C._dispatch_tls_set_dispatch_key_included(_KEY, before)  # noqa: SLF001


_REGISTERING = threading.Lock()


@cache
def _registered() -> tuple[torch.library.Library, ...]:
    """Register the function, once for the process. Views keep their kernels."""
    everything, aten = (
        torch.library.Library(namespace, "IMPL")  # type: ignore[no-untyped-call]
        for namespace in ("_", "aten")
    )
    everything.fallback(_fallback, _KEY)  # type: ignore[no-untyped-call]
    for schema in torch._C._jit_get_all_schemas():  # noqa: SLF001  # no public name
        namespace, _, name = schema.name.partition("::")
        aliases = [each.alias_info for each in schema.returns]
        if namespace == "aten" and any(a is not None and not a.is_write for a in aliases):
            overload = f"{name}.{schema.overload_name}" if schema.overload_name else name
            if torch._C._dispatch_has_kernel(f"aten::{overload}"):  # noqa: SLF001
                passed_by = torch.library.fallthrough_kernel
                aten.impl(overload, passed_by, _KEY)  # type: ignore[no-untyped-call]
    return everything, aten


@contextmanager
def on_cpu(observer: Observer, placeholders: Placeholders) -> Iterator[None]:
    """Run all operators on placeholders within this context, in this thread."""
    with _REGISTERING:
        _registered()
    previous, _ACTIVE.dispatch = _ACTIVE.dispatch, CpuDispatch(observer, placeholders)
    try:
        with without_reads(placeholders), _key_included(included=True):
            yield
    finally:
        _ACTIVE.dispatch = previous
