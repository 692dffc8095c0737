"""A footprint puts the prediction, the measurement, the explanation and the remedies together."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dse.errors import ConfigError, InfeasibleError
from dse.footprint.advise import remedies
from dse.footprint.footprint import footprint
from dse.footprint.measure import measure_step
from dse.footprint.predict import compile_step, predict
from dse.footprint.request import FootprintRequest, StepOverrides
from dse.footprint.resolve import resolve
from support.partly_followed import ScaledByWidth

REQUEST = FootprintRequest(
    target="support.networks:Blocks", classes=3, overrides=StepOverrides(image_size=14)
)


def peak_bytes(request: FootprintRequest, **overrides: object) -> int:
    changed = replace(request.overrides, **overrides)
    return footprint(replace(request, overrides=changed)).breakdown.peak_bytes


def test_what_is_not_requested_is_left_out() -> None:
    found = footprint(REQUEST)
    assert (found.measured_peak_bytes, found.explanation, found.remedies) == (None, None, ())
    assert found.relative_error is None
    assert not {"measured_peak_bytes", "explanation", "remedies"} & set(found.to_json())
    assert found.timeline.breakdown().peak_bytes == found.breakdown.peak_bytes


def test_an_explanation_lists_what_stays_whole_with_its_share_and_reason() -> None:
    found = footprint(
        replace(REQUEST, target="support.partly_followed:ScaledByWidth", classes=4, explain=True)
    )
    (whole,) = found.whole
    assert "second" in whole.layers
    assert whole.reason
    total = sum(parameter.numel() for parameter in ScaledByWidth().parameters())
    assert 0 < whole.share * total == pytest.approx(round(whole.share * total))
    assert found.to_json()["whole"] == [asdict(whole)]


def test_the_prediction_is_near_a_real_step_also_when_pruned() -> None:
    found = footprint(replace(REQUEST, measure=True, ratio=0.5))
    assert found.relative_error is not None
    assert -0.2 < found.relative_error <= 0
    assert measure_step(resolve(replace(REQUEST, ratio=0.5))).peak_bytes == (
        found.measured_peak_bytes
    )


def test_the_allocator_convention_matches_a_real_step() -> None:
    step = resolve(replace(REQUEST, convention="allocator", ratio=0.5))
    predicted = predict(step, compile_step(step), convention="allocator")
    assert predicted.breakdown.peak_bytes == measure_step(step).peak_bytes


def test_every_remedy_holds_what_the_changed_step_holds() -> None:
    ram_bytes = peak_bytes(REQUEST) // 2
    step = resolve(replace(REQUEST, ram_bytes=ram_bytes))
    tried: list[str] = []
    found = remedies(step, compile_step(step), ram_bytes=ram_bytes, on_progress=tried.append)
    unchanged, batch, *others = found
    assert (unchanged.change, unchanged.fits, batch.change) == ("none", False, "batch size")
    assert unchanged.largest_batch_size == int(batch.value)
    assert peak_bytes(REQUEST, batch_size=int(batch.value)) == batch.peak_bytes <= ram_bytes
    settings = [r for r in others if r.change in ("scheme", "checkpointing", "optimizer")]
    assert {remedy.change for remedy in settings} == {"scheme", "checkpointing", "optimizer"}
    for remedy in settings:
        assert peak_bytes(REQUEST, **{remedy.change: remedy.value}) == remedy.peak_bytes
        assert f"{remedy.change} {remedy.value}" in tried
    (pruned,) = (remedy for remedy in others if remedy.change == "pruning")
    at_ratio = footprint(replace(REQUEST, ratio=float(pruned.value)))
    assert at_ratio.breakdown.peak_bytes == pruned.peak_bytes <= ram_bytes


def test_a_smaller_image_is_tried_where_nothing_fits() -> None:
    large = replace(REQUEST, overrides=StepOverrides(image_size=100))
    ram_bytes = peak_bytes(large, image_size=64)
    found = footprint(replace(large, ram_bytes=ram_bytes)).remedies
    (image,) = (remedy for remedy in found if remedy.change == "image size")
    assert (image.value, image.peak_bytes, image.fits) == ("64", ram_bytes, True)


def test_a_network_that_cannot_be_pruned_says_why() -> None:
    found = footprint(replace(REQUEST, target="support.networks:OnlyOutputs", ram_bytes=10**9))
    assert found.unprunable
    assert found.to_json()["unprunable"] == found.unprunable
    assert "pruning" not in {remedy.change for remedy in found.remedies}


def test_remedies_for_inference_change_no_training_setting() -> None:
    inference = StepOverrides(image_size=14, mode="inference")
    found = footprint(replace(REQUEST, overrides=inference, ram_bytes=10**9)).remedies
    assert [remedy.change for remedy in found] == ["none"]


@pytest.mark.parametrize("convention", ["layerwise", "arena"])
def test_each_convention_counts_its_own_way(convention: str) -> None:
    found = footprint(replace(REQUEST, convention=convention))
    assert found.breakdown.peak_bytes != footprint(REQUEST).breakdown.peak_bytes
    assert sum(found.breakdown.categories.values()) == found.breakdown.peak_bytes


def test_a_lean_step_holds_what_its_plan_says_also_when_pruned() -> None:
    for engine, ratio in (("lean", None), ("lean:least", None), ("lean:least", 0.5)):
        lean = replace(REQUEST.overrides, engine=engine)
        request = replace(REQUEST, overrides=lean, ratio=ratio, convention="allocator")
        found = footprint(replace(request, measure=True))
        assert found.relative_error == 0
        assert found.lean is not None
        assert found.breakdown.peak_bytes < found.lean.stock_peak_bytes
        assert found.lean.plan.time is not None
        assert sum(block.time_share or 0 for block in found.lean.plan.blocks) <= 1


def test_a_lean_step_is_planned_within_the_ram() -> None:
    lean = replace(REQUEST.overrides, engine="lean", image_size=32)
    least = peak_bytes(REQUEST, engine="lean:least", image_size=32)
    loose = peak_bytes(REQUEST, engine="lean", image_size=32)
    ram_bytes = (least + loose) // 2
    request = replace(REQUEST, overrides=lean, ram_bytes=ram_bytes)
    found = footprint(request)
    assert least <= found.breakdown.peak_bytes <= ram_bytes < loose
    assert found.remedies[0].fits
    assert found.remedies[0].peak_bytes == found.lean_peak_bytes == found.breakdown.peak_bytes
    assert footprint(replace(request, ratio=0.5)).breakdown.peak_bytes <= ram_bytes
    with pytest.raises(InfeasibleError, match=f"the least takes {least:,} bytes"):
        footprint(replace(request, ram_bytes=least - 1))


def test_remedies_of_a_stock_step_are_compared_with_the_lean_one() -> None:
    lean = peak_bytes(REQUEST, engine="lean")
    found = footprint(replace(REQUEST, ram_bytes=lean))
    (engine,) = (remedy for remedy in found.remedies if remedy.change == "engine")
    assert (engine.value, engine.peak_bytes, engine.fits) == ("lean", lean, True)
    assert found.lean_peak_bytes == lean


def test_checkpointing_belongs_to_stock() -> None:
    both = replace(REQUEST.overrides, engine="lean", checkpointing="blocks")
    with pytest.raises(ConfigError, match='set checkpointing to "none"'):
        footprint(replace(REQUEST, overrides=both))


def test_the_allocators_peak_is_given_once_the_operators_have_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSE_CACHE", str(tmp_path))
    assert footprint(REQUEST).allocator_peak_bytes is None
    counted = footprint(replace(REQUEST, convention="allocator"))
    assert counted.allocator_peak_bytes is None
    again = footprint(REQUEST)
    assert again.allocator_peak_bytes == counted.breakdown.peak_bytes >= again.breakdown.peak_bytes
    assert again.to_json()["allocator_peak_bytes"] == again.allocator_peak_bytes
