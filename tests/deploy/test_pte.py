"""Training programs for ExecuTorch, against PyTorch's own steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dse.config import DataConfig, Study, TrainingConfig
from dse.deploy.pte import file, lowering
from dse.deploy.pte.arena import ArenaModel, step_arena_bytes
from dse.deploy.pte.check import Check, check
from dse.deploy.pte.eager import eager_step
from dse.deploy.pte.file import TOLERANCE, check_study, check_trace, checked, lower_network
from dse.deploy.pte.normalisation import batch_norm_backward
from dse.deploy.pte.planning import arena_offsets
from dse.deploy.pte.process import PteSteps
from dse.deploy.pte.programs import training_program
from dse.deploy.pte.records import arena_measure_of, arena_records
from dse.errors import ConfigError, ExportError
from dse.pruning.groups import find_groups
from dse.pruning.resize import resized
from dse.step.schemes import apply_scheme
from support.runs import make_records, make_study


def network(**changes: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        changes.get("norm", nn.BatchNorm2d(4)),
        nn.ReLU6(),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.BatchNorm2d(6),
        torchvision.ops.StochasticDepth(0.3, "row"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6, 3),
    )


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize("train", [True, False])
def test_the_backward_pass_of_batch_norm_is_autograds(*, train: bool) -> None:
    layer = nn.BatchNorm2d(3).double().train(train)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -2.0, 1.0]))
        layer.get_buffer("running_mean").copy_(torch.tensor([4.0, 5.0, 6.0]))
        layer.get_buffer("running_var").copy_(torch.tensor([0.5, 1.0, 2.0]))
    inputs = (5 + torch.randn(4, 3, 5, 6).double()).requires_grad_()
    gradient = torch.randn(4, 3, 5, 6).double()
    layer(inputs).backward(gradient)
    held = inputs.detach()
    mean = held.mean((0, 2, 3)) if train else held.new_empty(0)
    inverse = (held.var((0, 2, 3), correction=0) + layer.eps).rsqrt() if train else mean
    found = batch_norm_backward(
        gradient,
        held,
        layer.weight.detach(),
        layer.get_buffer("running_mean"),
        layer.get_buffer("running_var"),
        mean,
        inverse,
        train,
        layer.eps,
        [True] * 3,
    )
    for ours, theirs in zip(found, (inputs.grad, layer.weight.grad, layer.bias.grad), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_arena_has_no_overlap_and_no_order() -> None:
    lives, sizes = [(0, 5), (1, 2), (3, 4), (2, 3)], [64, 32, 32, 16]
    offsets, total = arena_offsets(lives, sizes)
    for one, (first, last) in enumerate(lives):
        for other in range(one):
            if first <= lives[other][1] and lives[other][0] <= last:
                apart = (
                    offsets[one] + sizes[one] <= offsets[other]
                    or offsets[other] + sizes[other] <= offsets[one]
                )
                assert apart
    assert total == 112
    assert arena_offsets(lives[::-1], sizes[::-1]) == (offsets[::-1], total)


def test_a_program_returns_loss_logits_statistics_masks_and_gradients() -> None:
    own = network().train()
    program, statistics = training_program(own, *batch())
    kinds = [spec.kind.name for spec in program.graph_signature.output_specs]
    assert kinds[:7] == ["LOSS_OUTPUT", *["USER_OUTPUT"] * 6]  # logits, four statistics, a mask
    assert list(statistics) == [
        f"{layer}.{kind}" for layer in (1, 4) for kind in ("running_mean", "running_var")
    ]
    targets = {str(node.target) for node in program.graph.nodes}
    assert not {one for one in targets if "alias" in one or "batch_norm_backward" in one}


class Attending(nn.Module):
    """Self-attention over the pixels, then one output layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.three, self.head = nn.Linear(4, 8), nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.three(self.embed(x.flatten(2)[..., :4])).chunk(3, dim=-1)
        return self.head(nn.functional.scaled_dot_product_attention(*parts).mean(1))


def test_attention_is_written_in_operators_that_executorch_has() -> None:
    program, _ = training_program(Attending().train(), *batch())
    targets = {str(node.target) for node in program.graph.nodes}
    assert any("softmax" in one for one in targets)
    assert not {one for one in targets if "scaled_dot_product" in one}


def test_what_cant_be_exported_is_one_line() -> None:
    with pytest.raises(ExportError, match=r"'1' averages its statistics.* give the layer a mom"):
        check_trace(network(norm=nn.BatchNorm2d(4, momentum=None)), batch()[0])

    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] if x.sum().item() > 0 else -x.flatten(1)[:, :3]

    with pytest.raises(ExportError, match=r"network\.pte can't be exported") as caught:
        check_trace(nn.Sequential(nn.Conv2d(1, 1, 1), Deciding()), batch()[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("optimizer", "adamw"), ("accumulate", 2), ("checkpointing", "blocks")],
)
def test_steps_that_executorch_doesnt_have_are_refused(field: str, value: object) -> None:
    study = Study.model_construct(training=TrainingConfig.model_validate({field: value}))
    with pytest.raises(ConfigError, match="--runtime executorch"):
        check_study(study)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_name: str) -> None:
        raise ImportError("undefined symbol: x\nmore")

    monkeypatch.setattr(lowering, "import_module", fails)
    with pytest.raises(ConfigError, match=r"undefined symbol: x; pip install 'dse\[executorch\]'"):
        lowering.imported("executorch.exir")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["full", "bias", "last"])
def test_the_runtime_trains_as_pytorch_does(scheme: str) -> None:
    pytest.importorskip("executorch", reason="the extra executorch is not installed")
    own, (samples, labels) = network(), batch()
    apply_scheme(own, samples, scheme)
    found = lower_network(own, samples)
    compared = check(found.content, own, samples, labels)
    assert compared.largest <= TOLERANCE, compared
    assert compared.arena_bytes == found.arena_bytes["train"]


@pytest.mark.slow
def test_the_runtime_trains_attention_as_pytorch_does() -> None:
    pytest.importorskip("executorch", reason="the extra executorch is not installed")
    own, (samples, labels) = Attending().train(), batch()
    found = lower_network(own, samples)
    compared = check(found.content, own, samples, labels)
    assert compared.largest <= TOLERANCE, compared
    assert found.arena_bytes["train"] == step_arena_bytes(own, samples)


@pytest.mark.slow
def test_the_runtime_learns_and_evaluates_what_it_learnt() -> None:
    pytest.importorskip("executorch", reason="the extra executorch is not installed")
    from dse.deploy.pte.runtime import Trainer  # noqa: PLC0415

    own, (samples, labels) = network().train(), batch()
    trainer = Trainer(lower_network(own, samples).content)
    for _ in range(30):
        trainer.compute(samples, labels)
        trainer.update(learning_rate=0.05, momentum=0.9)
    _, statistics = training_program(network().train(), samples, labels)
    learnt = dict(zip(statistics, trainer.statistics, strict=True))
    own.load_state_dict({**trainer.parameters(), **learnt}, strict=False)
    own.eval()
    with torch.no_grad():
        torch.testing.assert_close(trainer.evaluate(samples[:1]), own(samples[:1]))
    before, _, _ = eager_step(network().eval(), samples, labels)
    after, _, _ = eager_step(own, samples, labels)
    assert after < before


@pytest.mark.slow
def test_parameters_that_begin_equal_train_apart() -> None:
    pytest.importorskip("executorch", reason="the extra executorch is not installed")
    from dse.deploy.pte.runtime import Trainer  # noqa: PLC0415

    torch.manual_seed(0)
    own = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    samples, labels = batch()
    trainer = Trainer(lower_network(own, samples).content)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        trainer.compute(samples, labels)
        trainer.update(learning_rate=0.1, momentum=0.9)
        optimizer.zero_grad()
        nn.functional.cross_entropy(own(samples), labels).backward()
        optimizer.step()
    for name, held in own.named_parameters():
        torch.testing.assert_close(trainer.parameters()[name], held.detach(), msg=name)


@pytest.mark.slow
def test_where_float32_rounds_too_much_float64_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("executorch", reason="the extra executorch is not installed")
    monkeypatch.setattr(file, "TOLERANCE", 1e-12)
    monkeypatch.setattr(file, "CLEAR", 0.0)
    own, (samples, labels) = network().train(), batch()
    lowered = lower_network(own, samples)
    assert "in float64, ExecuTorch's runtime gives PyTorch's loss" in checked(
        lowered, own, samples, labels
    )
    other = network().train()
    with torch.no_grad():
        other.get_parameter("9.weight").mul_(1.01)
    with pytest.raises(ExportError, match="ExecuTorch's loss differs from PyTorch's in float64"):
        checked(lowered, other, samples, labels)


def prunable() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU6()),
        *(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 12, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 3)),
    )


@pytest.mark.parametrize("scheme", ["full", "last"])
def test_an_arena_model_gives_the_arena_of_any_pruned_network(scheme: str) -> None:
    own, (samples, _) = prunable(), batch()
    groups = find_groups(own, samples)
    model = ArenaModel.compile(own, samples, groups=groups, scheme=scheme)
    for channels in ([8, 12], [5, 3]):
        pruned = resized(own, groups, channels).to_empty(device="cpu")
        apply_scheme(pruned, samples, scheme)
        expected = step_arena_bytes(pruned, samples)
        assert model.arena_bytes(channels, batch_size=4) == expected


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["full", "bias", "last"])
def test_executorch_plans_the_predicted_arena(scheme: str) -> None:
    pytest.importorskip("executorch", reason="the extra executorch is not installed")
    own, (samples, _) = prunable(), batch()
    apply_scheme(own, samples, scheme)
    assert lower_network(own, samples).arena_bytes["train"] == step_arena_bytes(own, samples)


def a_check(*, loss: float = 0.0, gradient: float, own: float) -> Check:
    return Check(
        losses=(1.0,), loss=loss, gradient=gradient, own_loss=0.0, own_gradient=own, arena_bytes=1
    )


@pytest.mark.parametrize(
    ("found", "again", "line"),
    [
        (a_check(gradient=1e-6, own=1e-7), None, "gives PyTorch's loss within"),
        (a_check(gradient=1e-3, own=2e-3), None, "PyTorch's own float32 by"),
        (
            a_check(gradient=0.1, own=0.05),
            a_check(gradient=1e-9, own=0.0),
            "in float64, ExecuTorch",
        ),
    ],
)
def test_a_step_agrees_as_far_as_float32_tells(
    monkeypatch: pytest.MonkeyPatch, found: Check, again: Check | None, line: str
) -> None:
    results = iter([found, again])
    monkeypatch.setattr(file, "check", lambda *_args, **_options: next(results))
    lowered = lowering.Lowered(content=b"", arena_bytes={})
    monkeypatch.setattr(file, "lower_network", lambda *_args: lowered)
    assert line in checked(lowered, network(), *batch())


@pytest.mark.parametrize(
    ("found", "again"),
    [
        (a_check(gradient=1e-3, own=1e-6), None),
        (a_check(loss=0.5, gradient=1e-6, own=1e-4), None),
        (a_check(gradient=0.2, own=0.05), a_check(gradient=0.2, own=0.0)),
        (a_check(gradient=float("inf"), own=0.1), None),
    ],
)
def test_a_step_that_differs_more_than_by_rounding_is_refused(
    monkeypatch: pytest.MonkeyPatch, found: Check, again: Check | None
) -> None:
    results = iter([found, again])
    monkeypatch.setattr(file, "check", lambda *_args, **_options: next(results))
    lowered = lowering.Lowered(content=b"", arena_bytes={})
    monkeypatch.setattr(file, "lower_network", lambda *_args: lowered)
    with pytest.raises(ExportError, match="ExecuTorch's loss differs from PyTorch's in float64"):
        checked(lowered, network(), *batch())


def test_verified_steps_must_agree_in_gradients_and_arena() -> None:
    good = PteSteps(
        losses=(1.0, 0.9),
        loss_difference=1e-7,
        gradient_difference=1e-6,
        own_difference=1e-7,
        arena_bytes=1000,
        predicted_arena_bytes=1000,
    )
    assert not good.differs
    assert not good.is_unclear
    assert not replace(good, arena_bytes=1005).differs
    assert replace(good, arena_bytes=1006).differs
    assert replace(good, gradient_difference=1e-3).differs
    assert not replace(good, gradient_difference=2e-4, own_difference=1e-4).is_unclear
    rounded = replace(good, gradient_difference=1e-3, own_difference=1e-4)
    assert not rounded.differs
    assert rounded.is_unclear


FACTORY = """
from torch import nn
def build(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, num_classes),
    )
"""


def test_records_for_executorch_have_the_arenas_of_what_it_trains(tmp_path: Path) -> None:
    (tmp_path / "arena_factory.py").write_text(FACTORY, "utf-8")
    study = make_study(network="arena_factory:build").model_copy(
        update={
            "source_dir": tmp_path,
            "training": TrainingConfig(batch_size=4, optimizer="sgd", threads=1),
            "data": DataConfig(name="digits", labels=("5", "6", "7", "8", "9"), image_size=16),
        }
    )
    made = make_records(study=study, groups=(("0", 8), ("2", 8)), trials=4, finals=0)
    adamw = replace(
        made.complete[0],
        number=99,
        candidate=made.complete[0].candidate.model_copy(update={"optimizer": "adamw"}),
    )
    records = replace(made, trials=(*made.trials, adamw), trusted=True)
    found = arena_records(records)
    assert [one.number for one in found.trials] == [one.number for one in made.complete]
    measure = arena_measure_of(records)
    for one in (found.complete[0], found.baselines[0]):
        assert one.peak_bytes == measure(one.candidate).peak_bytes
    assert found.unpruned_peak_bytes == found.baselines[0].peak_bytes
    other = study.model_copy(update={"training": TrainingConfig(optimizer="adamw")})
    with pytest.raises(ConfigError, match="can't train with 'adamw'"):
        arena_records(replace(records, study=other))
