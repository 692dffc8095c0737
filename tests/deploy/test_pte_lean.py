"""Lean steps for ExecuTorch: traced programs against PyTorch's own step, and their arenas."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

import dse
from dse.candidate import Candidate
from dse.config import DataConfig, TrainingConfig
from dse.deploy.pte.arena import ArenaModel, step_arena_bytes
from dse.deploy.pte.check import check
from dse.deploy.pte.draws import _HeldDraws
from dse.deploy.pte.eager import eager_step
from dse.deploy.pte.file import TOLERANCE, check_trace, checked, lower_network
from dse.deploy.pte.functional_graph import simplify
from dse.deploy.pte.lean_norms import batch_norm, lean_batch_norm_backward
from dse.deploy.pte.normalisation import batch_norm_backward
from dse.deploy.pte.programs import training_program
from dse.deploy.pte.records import arena_measure_of, arena_of, arena_records
from dse.engines.network import run_by
from dse.engines.plan import LeanPlan
from dse.errors import ExportError
from dse.pruning.groups import find_groups
from dse.pruning.resize import resized
from dse.step.schemes import apply_scheme
from support.runs import make_records, make_study


def inverted(*, draws: bool = True) -> nn.Sequential:
    """A network with an inverted residual that is computed in chunks, and random layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
        *(nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()),
        *(nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU6()),
        *(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16)),
        torchvision.ops.StochasticDepth(0.3 if draws else 0.0, "row"),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2 if draws else 0.0)),
        nn.Linear(16, 3),
    ).train()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 1, 16, 16, generator=generator), torch.tensor([0, 1, 2, 1])


def plan_of(network: nn.Module, budget: str | None) -> LeanPlan:
    return dse.lean(network, batch()[0], budget=budget).lean_plan


def run(program: ExportedProgram, network: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """Run a program in PyTorch, and return its outputs: gradients by name, others by place."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    given = iter(inputs)
    signature = program.graph_signature
    values = [
        next(given) if spec.target is None else tensors[spec.target].detach()
        for spec in signature.input_specs
    ]
    with torch.no_grad():
        found = torch.fx.Interpreter(program.graph_module).run(*values)
    names = [spec.target or str(place) for place, spec in enumerate(signature.output_specs)]
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(("scheme", "budget"), [("full", "least"), ("bias", None)])
def test_a_lean_program_computes_pytorchs_step(scheme: str, budget: str | None) -> None:
    own, (samples, labels) = inverted().double(), batch()
    samples = samples.double()
    apply_scheme(own, samples, scheme)
    lean = dse.lean(own, samples, None, budget)
    before = {name: held.clone() for name, held in own.state_dict().items()}
    program, statistics = training_program(lean, samples, labels)
    targets = {str(node.target) for node in program.graph.nodes}
    assert not targets & {"aten.slice_scatter.default", "aten.copy.default", "aten.copy_.default"}
    assert ("aten.cat.default" in targets) == (budget == "least")  # parts of gradients
    found = run(program, own, samples, labels, *statistics.values())
    assert all(torch.equal(held, before[name]) for name, held in own.state_dict().items())
    first = 2 + len(statistics)
    masks = [found.pop(str(place)) for place in (first, first + 1)]
    loss, gradients, buffers = eager_step(own, samples, labels, masks=masks)
    torch.testing.assert_close(float(found.pop("0")), loss)
    found.pop("1")
    for place, name in enumerate(statistics, start=2):
        torch.testing.assert_close(found.pop(str(place)), buffers[name], msg=name)
    assert found.keys() == gradients.keys()
    for name, held in gradients.items():
        torch.testing.assert_close(found[name], held, msg=name)


def test_a_frozen_norm_a_residual_and_a_block_that_isnt_recognised() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.SiLU())
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            mixed = torch.cat([self.inner(x), self.drop(x)], 1)  # unrecognised, and it draws
            return x + mixed.cumsum(1)[:, ::2]

    torch.manual_seed(0)
    own = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), Residual(), Residual()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    own.train().get_submodule("1.inner.1").eval()
    samples, labels = batch()
    lean = dse.lean(own, samples, None, "least")
    assert any(s.level == "recomputed" for p in lean.lean_plan.programs for s in p.segments)
    program, statistics = training_program(lean, samples, labels)
    assert list(statistics) == ["2.inner.1.running_mean", "2.inner.1.running_var"]
    found = run(program, own, samples, labels, *statistics.values())
    loss, gradients, _ = eager_step(own, samples, labels, masks=[found["4"], found["5"]])
    torch.testing.assert_close(float(found["0"]), loss)
    for name, held in gradients.items():
        torch.testing.assert_close(found[name], held, msg=name)


def test_parts_that_make_up_a_tensor_are_joined() -> None:
    def filled(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        aten = torch.ops.aten
        first = aten.slice_scatter(x, aten.copy(aten.slice(x, 1, 0, 2), y), 1, 0, 2)
        read = aten.slice(first, 1, 0, 2) + aten.slice(first, 1, 2, 5).sum()
        whole = aten.slice_scatter(first, z, 1, 2, 5)
        return whole, read, aten.clone(y), aten.clone(z.t(), memory_format=torch.contiguous_format)

    inputs = torch.randn(2, 5), torch.randn(2, 2), torch.randn(2, 3)
    shapes = make_fx(filled, tracing_mode="fake")(*inputs)
    simplify(shapes)
    targets = [str(node.target) for node in shapes.graph.nodes]
    assert targets.count("aten.cat.default") == 1
    assert not [one for one in targets if "scatter" in one or one == "aten.copy.default"]
    assert targets.count("aten.clone.default") == 2  # a result that is an input, another layout
    for found, expected in zip(shapes(*inputs), filled(*inputs), strict=True):
        torch.testing.assert_close(found, expected)
    overlapping = make_fx(
        lambda x, y: torch.ops.aten.slice_scatter(
            torch.ops.aten.slice_scatter(x, y, 0, 0, 2), y, 0, 1, 3
        ),
        tracing_mode="fake",
    )
    kept = overlapping(torch.zeros(3), torch.ones(2))
    simplify(kept)
    torch.testing.assert_close(kept(torch.zeros(3), torch.arange(2.0)), torch.tensor([0.0, 0, 1]))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_both_backward_passes_of_batch_norm_agree(*, train: bool, scaled: bool) -> None:
    torch.manual_seed(0)
    gradient, inputs = torch.randn(4, 3, 5, 6).double(), 5 + torch.randn(4, 3, 5, 6).double()
    weight = torch.tensor([0.5, -2.0, 1.0]).double() if scaled else None
    mean = inputs.mean((0, 2, 3))
    inverse = (inputs.var((0, 2, 3), correction=0) + 1e-5).rsqrt()
    given = (gradient, inputs, weight, mean, mean.abs(), mean, inverse, train, 1e-5, [True] * 3)
    for ours, theirs in zip(
        lean_batch_norm_backward(*given), batch_norm_backward(*given), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_batch_norm_moves_the_running_statistics_as_pytorch_does() -> None:
    inputs = 3 + torch.randn(4, 3, 5, 6).double()
    both = [(torch.ones(3).double(), torch.full((3,), 2.0).double()) for _ in range(2)]
    ours = batch_norm(inputs, None, None, *both[0], True, 0.3, 1e-5)
    theirs = torch.native_batch_norm(inputs, None, None, *both[1], True, 0.3, 1e-5)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(both[0], both[1])


def test_what_a_lean_program_cant_do_is_one_line() -> None:
    samples, labels = batch()
    own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.Flatten())
    with pytest.raises(ExportError, match=r"'1' averages its statistics over all steps"):
        training_program(dse.lean(own, samples, "full"), samples, labels)

    class Counting(nn.Module):
        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.count.add_(1)
            return x * 2

    counting = nn.Sequential(nn.Conv2d(1, 4, 3), Counting(), nn.Flatten(), nn.Linear(784, 3))
    plan = dse.lean(counting, samples, "full").lean_plan
    check_trace(counting, samples)  # the plain step is another program
    with pytest.raises(ExportError, match=r"changes the buffer '1\.count'.*engine 'stock'"):
        check_trace(counting, samples, plan)

    noisy = _HeldDraws((0,), name="rrelu", run=lambda _, x: functional.rrelu(x, training=True))
    with pytest.raises(ExportError, match=r"can't draw by aten::rrelu_with_noise"):
        noisy.forward([samples], (), {}, in_place=False)


@pytest.mark.slow
def test_an_arena_model_gives_the_arena_of_any_pruned_lean_network() -> None:
    own, (samples, _) = inverted(), batch()
    plan = plan_of(own, "least")
    assert any(s.level == "chunked" for p in plan.programs for s in p.segments)
    groups = find_groups(own, samples)
    model = ArenaModel.compile(run_by(own, samples, plan), samples, groups=groups, scheme="full")
    for channels in ([8, 32, 16], [3, 9, 4], [8, 4, 16], [1, 1, 1]):
        pruned = resized(own, groups, channels).to_empty(device="cpu")
        apply_scheme(pruned, samples, "full")
        expected = step_arena_bytes(run_by(pruned, samples, plan), samples)
        assert model.arena_bytes(channels, batch_size=4) == expected, channels


@pytest.mark.slow
def test_executorch_trains_a_lean_program_in_the_predicted_arena() -> None:
    pytest.importorskip("executorch", reason="the extra executorch is not installed")
    own, (samples, labels) = inverted(), batch()
    lean = dse.lean(own, samples, "full", "least")
    lowered = lower_network(lean, samples)
    assert lowered.arena_bytes["train"] == step_arena_bytes(lean, samples)
    assert lowered.arena_bytes["train"] <= 0.6 * step_arena_bytes(own, samples)
    found = check(lowered.content, lean, samples, labels)
    assert found.largest <= TOLERANCE, found


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["stock", "least"])
def test_executorch_plans_the_arena_predicted_for_a_pruned_network(budget: str) -> None:
    pytest.importorskip("executorch", reason="the extra executorch is not installed")
    own, (samples, _) = inverted(), batch()
    plan = None if budget == "stock" else plan_of(own, budget)
    groups, channels = find_groups(own, samples), [3, 9, 4]
    model = ArenaModel.compile(run_by(own, samples, plan), samples, groups=groups, scheme="full")
    pruned = resized(own, groups, channels).to_empty(device="cpu")
    for value in (*pruned.parameters(), *pruned.buffers()):
        value.data.fill_(1)
    apply_scheme(pruned, samples, "full")
    planned = lower_network(run_by(pruned, samples, plan), samples).arena_bytes["train"]
    assert planned == model.arena_bytes(channels, batch_size=4)


@pytest.mark.slow
def test_a_lean_step_is_compared_in_float64_where_float32_rounds_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("executorch", reason="the extra executorch is not installed")
    monkeypatch.setattr("dse.deploy.pte.file.TOLERANCE", 1e-12)
    monkeypatch.setattr("dse.deploy.pte.file.CLEAR", 0.0)
    own, (samples, labels) = inverted(draws=False), batch()
    lean = dse.lean(own, samples, "full", "least")
    line = checked(lower_network(lean, samples), lean, samples, labels)
    assert "in float64, ExecuTorch's runtime gives PyTorch's loss" in line


FACTORY = """
from torch import nn
def build(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 24, 1), nn.BatchNorm2d(24),
        nn.ReLU6(), nn.Conv2d(24, 24, 3, groups=24), nn.BatchNorm2d(24), nn.ReLU6(),
        nn.Conv2d(24, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
"""


@pytest.mark.slow
def test_records_for_executorch_have_the_arenas_of_lean_steps(tmp_path: Path) -> None:
    (tmp_path / "lean_arena_factory.py").write_text(FACTORY, "utf-8")
    study = make_study(network="lean_arena_factory:build").model_copy(
        update={
            "source_dir": tmp_path,
            "training": TrainingConfig(
                batch_size=4, optimizer="sgd", threads=1, engine="lean:least"
            ),
            "data": DataConfig(name="digits", labels=("5", "6", "7", "8", "9"), image_size=16),
        }
    )
    groups = (("0", 4), ("3", 24), ("9", 8))
    records = replace(make_records(study=study, groups=groups, trials=2, finals=0), trusted=True)
    plain = arena_of(records)(Candidate(engine="stock"))
    found, measure = arena_records(records), arena_measure_of(records)
    assert found.unpruned_peak_bytes < plain
    one = found.complete[0]
    assert one.peak_bytes == measure(one.candidate).peak_bytes
