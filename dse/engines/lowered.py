"""Write a lean network's step as plain data, which the module ``lean.py`` of a bundle runs.

Nothing is left to decide: operators, what is held, and what runs again are listed as they run.
"""

import importlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dse.engines.chunks import Chunked
from dse.engines.graph import Node, Ref, filled, refs
from dse.engines.network import LeanNetwork
from dse.engines.op import Modules, Op, Wanted
from dse.engines.opaque import Opaque
from dse.engines.program import Program, Stage
from dse.engines.schedule import Schedule
from dse.errors import NetworkError
from dse.memory.trace import step_network

LOWERED_VERSION = 1

Data = dict[str, Any]

_PACKAGES = ("torch", "torchvision", "operator", "_operator", "math", "builtins")
_HOMES = ("torch", "torch.nn.functional", "operator", "torch._C._nn")


def lowered(network: LeanNetwork, example_input: Tensor) -> Data:
    """Return the steps of a lean network as data of JSON.

    Args:
        network: The network, with its scheme applied and in its training modes. It is not changed.
        example_input: Tensor (any batch, channels, height, width).

    Raises:
        NetworkError: If the network calls functions of other packages than PyTorch, or with
            arguments that aren't plain.
    """
    if any(program.packs for program in network.lean_plan.programs):
        raise NetworkError(
            "a bundle's lean.py holds values in 32 bits: make the plan with saved_bits=32"
        )
    shell = step_network(network, (), (), image_shape=example_input.shape[1:], scheme=None)
    if not isinstance(shell, LeanNetwork):
        raise TypeError(f"{type(shell).__name__} is not lean")
    images = torch.empty(2, *example_input.shape[1:], dtype=example_input.dtype, device="meta")
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        shell(images)  # now every region knows which gradients are wanted
    modules = dict(shell.stock.named_modules(remove_duplicate=False))
    programs = [
        _program(name, program, _inside(name, modules))
        for name, program in shell.programs().items()
    ]
    evaluating = [name for name, module in modules.items() if not module.training]
    return {"version": LOWERED_VERSION, "evaluating": evaluating, "programs": programs}


def _inside(name: str, modules: Modules) -> Modules:
    return dict(modules[name].named_modules(remove_duplicate=False))


def _program(name: str, program: Program, modules: Modules) -> Data:
    return {
        "module": name,
        "effects": _calls(program.effects_with_tensors(), ()),
        "blocks": [_block(stage, modules) for stage in program.stages],
    }


def _block(stage: Stage, modules: Modules) -> Data:
    if stage.region is not None:
        schedules = stage.region.schedules
        if len(schedules) != 1:
            raise RuntimeError(f"{stage.title} ran {len(schedules)} ways in one step")
        (schedule,) = schedules
        wanted = {step.op: step.wanted for step in schedule.steps}
        return {
            "title": stage.title,
            "kind": "region",
            "ops": [
                _op(op, modules, wanted.get(place)) for place, op in enumerate(stage.region.ops)
            ],
            "schedule": _schedule(schedule),
        }
    segment = stage.segment
    output: Any = Ref(segment.output) if segment.output else stage.graph.output
    return {
        "title": stage.title,
        "kind": "recomputed" if stage.recomputes else "stock",
        "input": segment.input,
        "calls": _calls(segment.nodes, tuple(refs(output))),
        "output": _plain(output),
    }


def _op(op: Op, modules: Modules, wanted: Wanted | None) -> Data:
    data: Data = {"kind": type(op).__name__, "fresh": op.fresh}
    if isinstance(op, Opaque):
        return {
            **data,
            "inputs": list(op.inputs),
            "tensors": [],
            "random": op.random,
            "call": _call_of(op.run),
        }
    data |= {field.name: getattr(op, field.name) for field in fields(op)}
    if isinstance(op, Chunked):
        state = op.state(modules, first=False)
        every = Wanted((True,), (True,) * len(op.tensors))
        data["ops"] = [_op(one, modules, None) for one in op.ops]
        data["first"] = _schedule(op.schedule_for(op.trait(state), every))
        if wanted is not None:
            data["back"] = _schedule(op.schedule_for(op.trait(state), wanted))
    return data


def _schedule(schedule: Schedule) -> Data:
    return {
        "in_place": list(schedule.in_place),
        "done": [list(each) for each in schedule.done],
        "held": list(schedule.held),
        "kept": sorted(schedule.kept),
        "steps": [
            {
                "op": step.op,
                "again": [
                    {"op": one.op, "in_place": one.in_place, "done": list(one.done)}
                    for one in step.again
                ],
                "reads": sorted(step.reads),
                "wanted_inputs": list(step.wanted.inputs),
                "wanted_parameters": list(step.wanted.parameters),
                "done": list(step.done),
                "spends": step.spends,
            }
            for step in schedule.steps
        ],
    }


def _call_of(run: Callable[[Modules, Tensor], Tensor]) -> Data:
    """Return the call that an opaque operator makes, of ``value``, with the result ``output``."""
    if not isinstance(run, partial):
        raise NetworkError(f"{run} can't be written as a call")
    given = run.keywords
    value = Ref("value")
    if "probability" in given:
        how = {"training": True}
        node = Node("output", "function", functional.dropout, (value, given["probability"]), how)
    elif "path" in given:
        node = Node("output", "module", given["path"], (value,), {})
    else:
        own: Node = given["node"]
        args, kwargs = filled((own.args, own.kwargs), {given["name"]: value})
        node = Node("output", own.kind, own.target, args, kwargs)
    return _call(node, [value.name])


def _calls(nodes: Sequence[Node], keep: Sequence[str]) -> list[Data]:
    last_use = {name: place for place, node in enumerate(nodes) for name in node.reads()}
    return [
        _call(
            node,
            [
                name
                for name in dict.fromkeys((*node.reads(), node.name))
                if last_use.get(name, place) == place and name not in keep
            ],
        )
        for place, node in enumerate(nodes)
    ]


def _call(node: Node, done: Sequence[str]) -> Data:
    target = function_name(node.target) if node.kind == "function" else node.target
    return {
        "name": node.name,
        "kind": node.kind,
        "target": target,
        "args": [_plain(each) for each in node.args],
        "kwargs": {key: _plain(each) for key, each in node.kwargs.items()},
        "done": list(done),
    }


def function_name(function: Any) -> str:
    """Return the name, ``module:name``, by which a function of PyTorch's can be imported.

    Raises:
        NetworkError: If it is of another package, or has no such name.
    """
    own = getattr(function, "__qualname__", getattr(function, "__name__", ""))
    homes = (getattr(function, "__module__", None), *_HOMES)
    for home in homes:
        if not home or home.partition(".")[0] not in _PACKAGES:
            continue
        for name in (own, getattr(function, "__name__", own)):
            try:
                found = operator.attrgetter(name)(importlib.import_module(home))
            except (ImportError, AttributeError):
                continue
            if found is function:
                return f"{home}:{name}"
    raise NetworkError(f"it calls {homes[0]}.{own}, which is not PyTorch's")


def _plain(value: Any) -> Any:
    """Return an argument as data of JSON; what JSON lacks is named: references, tuples, types."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    found: Any = None
    if isinstance(value, Ref):
        found = {"result": value.name}
    elif isinstance(value, list):
        found = [_plain(each) for each in value]
    elif isinstance(value, tuple):
        found = {"tuple": [_plain(each) for each in value]}
        if hasattr(value, "_fields"):
            found = {"named tuple": [function_name(type(value)), *found.values()]}
    elif isinstance(value, slice):
        found = {"slice": [_plain(each) for each in (value.start, value.stop, value.step)]}
    elif isinstance(value, Mapping):
        found = {"dict": [[key, _plain(each)] for key, each in value.items()]}
    elif isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
        found = {"torch": str(value).removeprefix("torch.")}
    if found is None:
        raise NetworkError(f"it computes with {value!r}, which is no plain value")
    return found
