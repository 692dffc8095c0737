"""Pictures: drawn in every state of a run, with no word on another or over the edge."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dse.candidate import Candidate
from dse.memory.site import Site
from dse.memory.tape import CATEGORIES
from dse.memory.timeline import Timeline
from dse.report import wording
from dse.report.front_plot import front_figure
from dse.report.history_plot import history_figure
from dse.report.memory_plot import Panel, memory_figure, step_alone, thinned
from dse.report.ratios_plot import ratios_figure
from dse.report.selection import shown_candidate
from dse.report.style import Width, paper_style
from dse.results.records import RunRecords
from support.drawing import check_texts
from support.runs import MIB, Groups, make_records, make_study

LONG = "a.package.with.a_very_long_path.that.somebody.really.wrote:factory_with_a_long_name"
DENSE: Groups = (
    ("features.conv0", 64),
    *(
        (f"features.denseblock{block}.denselayer{layer}.conv{part}", 128 if part == 1 else 32)
        for block in range(1, 5)
        for layer in range(1, 16)
        for part in (1, 2)
    ),
)

RUNS: dict[str, Callable[[], RunRecords]] = {
    "usual": make_records,
    "one trial": lambda: make_records(trials=1, finals=0),
    "no finals": lambda: make_records(finals=0),
    "one seed": lambda: make_records(seeds=1),
    "no baselines": lambda: make_records(baselines=False),
    "baselines alone": lambda: make_records(trials=0, finals=0),
    "nothing feasible": lambda: make_records(
        finals=0, baselines=False, study=make_study(budgets=(MIB,))
    ),
    "500 trials of 121 groups, close budgets, long names": lambda: make_records(
        trials=500,
        groups=DENSE,
        study=make_study(
            name="a-rather-long-name-of-a-study-" * 3,
            network=LONG,
            budgets=(16 * MIB, 17 * MIB, 18 * MIB, 19 * MIB, 50 * MIB, 10**12),
        ),
    ),
    "many budgets": lambda: make_records(
        study=make_study(budgets=tuple(n * MIB for n in range(8, 40, 2)))
    ),
    "three objectives": lambda: make_records(
        study=make_study(objectives=("accuracy", "peak_bytes", "macs_forward"))
    ),
    "nothing to prune": lambda: make_records(groups=(), study=make_study(budgets=(64 * MIB,))),
    "sizes far apart": lambda: make_records(
        peak=lambda kept: 2 ** (10 + 16 * sum(kept) // 1000), study=make_study(budgets=(MIB,))
    ),
}

each_width = pytest.mark.parametrize("width", ["column", "page"])


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest) -> RunRecords:
    return RUNS[request.param]()


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with paper_style():
        yield


@each_width
def test_no_picture_has_overlapping_texts(run: RunRecords, width: Width) -> None:
    shown = shown_candidate(run, picked=run.complete[-1].candidate if run.complete else None)
    for figure in (
        front_figure(run, width=width, picked=shown),
        history_figure(run, width=width),
        ratios_figure(run, width=width, picked=shown),
    ):
        if figure is not None:
            check_texts(figure)


def texts_of(figure: Figure | None) -> list[str]:
    assert figure is not None
    return check_texts(figure)


def test_the_front_says_what_its_figures_hold_for() -> None:
    records = make_records()
    picked = shown_candidate(records, picked=records.finals[0].candidate)
    texts = texts_of(front_figure(records, width="column", picked=picked))
    pixels = "32\N{MULTIPLICATION SIGN}32 px"
    for word in ("scheme full", "batch 32", pixels, "convention tensors", "s.d. of 3 seeds"):
        assert word in " ".join(texts)
    assert "digits" in " ".join(texts)
    assert {"24 MiB", "48 MiB", "unpruned", "uniform ratio, 0.25 to 0.9", "Accuracy (%)"} <= set(
        texts
    )
    assert "over budget, not trained" in texts
    assert picked is not None
    assert picked.label in texts
    assert "Search: short training (1 epoch), selection part" in texts
    assert "The best, trained in full (10 epochs), validation part" in texts


@each_width
def test_letters_name_the_recipes_of_a_joint_run(width: Width) -> None:
    long = "from:" + LONG
    recipes = [
        Candidate(scheme="last", batch_size=8, accumulate=4, image_size=24),
        Candidate(checkpointing="blocks"),
        Candidate(scheme=long),
        Candidate(),
    ]
    records = make_records()
    trials = tuple(
        replace(
            trial,
            candidate=recipes[trial.number % 4].with_channels(trial.candidate.channels),
        )
        for trial in records.trials
    )
    figure = front_figure(replace(records, trials=trials, finals=()), width=width, picked=None)
    texts = texts_of(figure)
    assert figure is not None
    assert {"a", "b", "c"} <= set(texts)
    assert "last, batch 8\N{MULTIPLICATION SIGN}4, 24 px" in texts
    assert "checkpointed" in texts
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0
    assert box.x1 <= whole.x1
    assert whole.y0 <= box.y0


def test_every_setting_that_memory_depends_on_is_in_the_caption() -> None:
    records = make_records()
    changes = {
        "accumulate": 4,
        "checkpointing": "blocks",
        "precision": "bf16-mixed",
        "foreach": True,
        "device": "cuda",
    }
    training = records.study.training.model_copy(update=changes)
    study = records.study.model_copy(update={"training": training})
    described = wording.regime(replace(records, study=study))
    assert described.endswith(
        "contiguous, 4 batches accumulated, checkpointed by block, bf16-mixed, foreach, on cuda"
    )
    assert wording.regime(records).endswith("sgd-momentum, contiguous")


def test_a_pruned_baseline_of_an_extension_is_not_called_unpruned() -> None:
    records = make_records()
    own = replace(records.baselines[1], kind="half-batch", label="half the batch")
    texts = texts_of(front_figure(replace(records, baselines=(own,)), width="page", picked=None))
    assert "other baseline" in texts
    assert "unpruned, other recipe" not in texts


def test_the_key_of_a_column_is_not_shortened() -> None:
    records = make_records()
    rule = replace(records.baselines[1], kind="peak-greedy", label="peak-greedy 24.0 MiB")
    records = replace(records, baselines=(*records.baselines, rule))
    texts = texts_of(front_figure(records, width="column", picked=None))
    assert "peak-greedy (the paper's rule)" in texts
    assert not any("…" in text for text in texts)


def test_a_budget_far_off_is_named_and_not_drawn() -> None:
    records = make_records(study=make_study(budgets=(24 * MIB, 2**40)))
    texts = texts_of(front_figure(records, width="page", picked=None))
    assert "1 TiB" not in texts
    assert "budgets beyond: 1 TiB" in " ".join(texts)


def test_nothing_to_draw_is_no_picture() -> None:
    empty = make_records(trials=0, baselines=False, finals=0)
    assert front_figure(empty, width="column", picked=None) is None
    assert history_figure(empty, width="column") is None
    assert ratios_figure(empty, width="column", picked=None) is None
    unprunable = make_records(groups=(), study=make_study(budgets=(64 * MIB,)))
    assert ratios_figure(unprunable, width="column", picked=None) is None


def test_every_finalist_has_an_error_bar_over_its_seeds() -> None:
    records = make_records()
    figure = front_figure(records, width="column", picked=None)
    assert figure is not None
    spans = [
        tuple(np.sort(segment[:, 1]))
        for collection in figure.axes[1].collections
        for segment in getattr(collection, "get_segments", list)()
    ]
    expected = [
        (
            100 * (final.validation_accuracy - final.validation_spread),
            100 * (final.validation_accuracy + final.validation_spread),
        )
        for final in records.finals
    ]
    assert np.array(sorted(spans)) == pytest.approx(np.array(sorted(expected)))


def test_the_history_never_falls_and_counts_every_trial() -> None:
    records = make_records()
    figure = history_figure(records, width="page")
    assert figure is not None
    line = figure.axes[0].lines[0]
    heights = np.asarray(line.get_ydata(), dtype=float)
    assert len(heights) == len(records.trials)
    assert np.all(np.diff(heights) >= 0)


def test_the_heat_map_shows_removed_shares_in_layer_order() -> None:
    records = make_records()
    figure = ratios_figure(records, width="page", picked=None)
    assert figure is not None
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    assert shown.shape[0] == len(records.groups)
    by_digest = {trial.candidate.digest: trial for trial in records.complete}
    first = min(by_digest.values(), key=lambda trial: trial.peak_bytes)
    for row, (name, channels) in enumerate(records.groups):
        kept = first.candidate.channels.get(name, channels)
        assert shown[row, 0] == pytest.approx(1 - kept / channels)


def make_timeline(rows: Sequence[tuple[str, str, dict[str, int]]], **changes: Any) -> Timeline:
    held = np.array([[row.get(name, 0) for name in CATEGORIES] for *_, row in rows])
    sites: Any = tuple(Site(phase, operator, "features.0") for phase, operator, _ in rows)  # type: ignore[arg-type]
    return replace(
        Timeline(
            categories=CATEGORIES,
            bytes=held,
            sites=sites,
            peak_index=int(held.sum(axis=1).argmax()),
        ),
        **changes,
    )


STEP = make_timeline(
    [
        ("forward", "", {"weights": MIB}),
        ("forward", "", {"weights": 2 * MIB}),
        ("forward", "aten::convolution", {"weights": 2 * MIB, "saved": MIB}),
        ("forward", "aten::relu", {"weights": 2 * MIB, "saved": 3 * MIB}),
        ("backward", "aten::mm", {"weights": 2 * MIB, "saved": 3 * MIB, "gradients": MIB}),
        ("optimizer", "aten::add_", {"weights": 2 * MIB, "gradients": MIB}),
        ("optimizer", "aten::detach", {"weights": 2 * MIB}),
        ("optimizer", "aten::detach", {"weights": MIB}),
    ]
)


def test_the_step_alone_leaves_out_setting_up_and_tearing_down() -> None:
    step = step_alone(STEP)
    assert step.operators == [one.operator for one in STEP.sites[2:7]]
    assert step.bytes.sum(axis=1).tolist() == [b * MIB for b in (3, 5, 6, 3, 2)]
    assert step.peak_index == 2
    assert step_alone(step).operators == step.operators


@each_width
@pytest.mark.parametrize("networks", [1, 2])
def test_memory_over_a_step_names_phases_and_peaks(width: Width, networks: int) -> None:
    panels = [Panel(label="unpruned", timeline=STEP), Panel(label=LONG, timeline=STEP)][:networks]
    figure = memory_figure(panels, caption=wording.origin(make_records()), width=width)
    texts = check_texts(figure)
    assert "unpruned: peak 6.00 MiB" in texts
    assert texts.count("in backward, aten::mm, features.0") == networks
    assert {"forward", "weights", "saved for backward", "gradients"} <= set(texts)
    assert "optimizer state" not in texts  # never held
    limits = {(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}
    assert len(limits) == 1


@each_width
def test_another_recipe_is_spelt_out_below_the_title(width: Width) -> None:
    candidate = Candidate(
        scheme="lite-residual",
        batch_size=8,
        accumulate=4,
        image_size=24,
        checkpointing="blocks",
        optimizer="sgd-momentum",
        learning_rate=0.0003,
        importance="batch-norm-scale",
        reconstruct=True,
    )
    panels = [
        Panel(label="unpruned", timeline=STEP),
        Panel(label="picked (trial 15)", timeline=STEP, recipe=candidate.recipe_text),
    ]
    texts = check_texts(memory_figure(panels, caption=["made up"], width=width))
    (notes,) = (text for text in texts if "lite-residual" in text)
    *recipe, place = notes.split("\n")
    assert ", ".join(recipe) == candidate.recipe_text
    assert place == "in backward, aten::mm, features.0"


def test_a_category_of_a_later_release_is_drawn() -> None:
    categories = (*CATEGORIES[:-1], "kernel_workspace")
    later = replace(STEP, categories=categories, bytes=STEP.bytes + 1)
    texts = check_texts(
        memory_figure(
            [Panel(label="unpruned", timeline=later)], caption=["made up"], width="column"
        )
    )
    assert "kernel workspace" in texts


def test_thinning_keeps_ends_and_peak() -> None:
    totals: NDArray[np.int64] = np.random.default_rng(0).integers(0, 10**9, 7301)
    kept = thinned(totals, most=600)
    assert len(kept) <= 601
    assert kept[0] == 0
    assert kept[-1] == len(totals) - 1
    assert np.argmax(totals) in kept
    assert np.all(np.diff(kept) > 0)
    assert thinned(totals[:5], most=600).tolist() == [0, 1, 2, 3, 4]
