"""The page as text: self-contained, escaped, and with the figures of the records."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dse.caches import CACHE_VARIABLE
from dse.measures import objective_title
from dse.memory.model import MemoryModel
from dse.report.html.entries import BEYOND_TENSORS
from dse.report.html.search_charts import history_chart
from dse.report.html.vega import vega_library
from dse.report.plan_table import plan_table
from dse.report.selection import front_trials
from dse.results.candidate_records import TrialRecord
from dse.results.records import RunRecords
from dse.step.plan_figures import BlockFigures, PlanFigures
from support.networks import Residual
from support.pages import hostile, page_of, run_over
from support.runs import MIB, make_study


@pytest.fixture(scope="module")
def text(records: RunRecords, model: MemoryModel) -> str:
    return page_of(records, model)


@pytest.mark.parametrize(("baselines", "side"), [(0.0, "bottom"), (0.4, "top"), (2.0, "bottom")])
def test_the_name_of_the_baselines_has_room(
    records: RunRecords, monkeypatch: pytest.MonkeyPatch, baselines: float, side: str
) -> None:
    module = "dse.report.html.search_charts"
    monkeypatch.setattr(f"{module}.baseline_hypervolume", lambda _: baselines)
    monkeypatch.setattr(f"{module}.hypervolume_shares", lambda _: np.full(len(records.trials), 0.6))
    name = next(
        one["mark"] for one in history_chart(records).spec["layer"] if one["mark"]["type"] == "text"
    )
    assert name["baseline"] == side


class Reader(HTMLParser):
    """Collects tags, attributes and the text of one element of JSON."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self._inside: list[str] = []
        self._json = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append("json" if dict(attrs).get("id") == "data" else tag)

    def handle_endtag(self, tag: str) -> None:
        del tag
        self._inside.pop() if self._inside else None

    def handle_data(self, data: str) -> None:
        last = self._inside[-1] if self._inside else ""
        if last == "json":
            self._json += data
        elif last not in {"script", "style"}:
            self.shown.append(data)

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._json)
        return found


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    own = text.replace(vega_library(), "")
    assert len(own) < 250_000
    for tag, attributes in Reader(own).tags:
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, value)
    assert "url(" not in own
    assert "@import" not in own
    policy = next(
        attributes["content"]
        for tag, attributes in Reader(own).tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy


def test_every_trained_candidate_is_there_once_with_its_figures(
    records: RunRecords, model: MemoryModel, text: str
) -> None:
    data = Reader(text).data
    digests = [one["digest"] for one in data["candidates"]]
    scored = [*records.complete, *records.baselines, *records.finals]
    assert len(set(digests)) == len(digests)
    assert set(digests) == {one.candidate.digest for one in scored}
    firsts = {trial.candidate.digest: trial for trial in reversed(records.complete)}
    for trial in firsts.values():
        shown = data["candidates"][digests.index(trial.candidate.digest)]
        kept = trial.candidate.kept(model.groups)
        assert shown["kept"] == list(kept)
        assert sum(held for _, held, _ in shown["ledger"]) == trial.peak_bytes
        facts = dict(shown["facts"])
        assert facts["Accuracy, short"].startswith(f"{100 * (trial.accuracy or 0):.1f} %")
    for final in records.finals:
        shown = data["candidates"][digests.index(final.candidate.digest)]
        seeds = [value for name, value in shown["facts"] if name.startswith("Seed ")]
        assert [float(value.split()[0]) for value in seeds] == [
            round(100 * accuracy, 1) for accuracy in final.validation_accuracies
        ]


def test_of_many_trials_those_closest_to_the_front_are_shown(
    model: MemoryModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.report.html.entries.MOST_TRIALS", 12)
    records = run_over(model, trials=60)
    text = page_of(records, model)
    shown = {one["digest"] for one in Reader(text).data["candidates"]}
    known = {one.candidate.digest for one in front_trials(records)}
    known |= {one.candidate.digest for one in records.finals}
    known |= {one.candidate.digest for one in records.baselines}
    assert known <= shown
    trials = {one.candidate.digest: one for one in records.complete}
    count = len(shown & trials.keys())
    assert 12 <= count < len(trials)
    assert f"shows the {count} of {len(trials)} trials that are closest" in " ".join(
        Reader(text).shown
    )

    def loss(one: TrialRecord) -> float:
        less = [t.accuracy or 0.0 for t in records.complete if t.peak_bytes <= one.peak_bytes]
        return max(less) - (one.accuracy or 0.0)

    chosen = [loss(one) for digest, one in trials.items() if digest in shown - known]
    assert max(chosen, default=0.0) <= min(
        loss(one) for digest, one in trials.items() if digest not in shown
    )


def test_the_heat_map_has_the_ratios_of_the_front(
    records: RunRecords, model: MemoryModel, text: str
) -> None:
    chart = Reader(text).data["charts"]["ratios"]["data"]
    cells = {(member, group): ratio for member, group, ratio in chart["cells"]["rows"]}
    for member, trial in enumerate(front_trials(records)):
        for group, (own, kept) in enumerate(
            zip(model.groups, trial.candidate.kept(model.groups), strict=True)
        ):
            assert cells[member, group] == pytest.approx(1 - kept / own.channels, abs=1e-3)


def test_an_allocator_that_holds_more_than_tensors_has_a_line_in_the_ledger(
    records: RunRecords, model: MemoryModel
) -> None:
    first = records.complete[0]
    more = replace(first, peak_bytes=first.peak_bytes + 4096)
    changed = replace(
        records,
        trials=tuple(more if one is first else one for one in records.trials),
        convention="allocator",
    )
    data = Reader(page_of(changed, model)).data
    ledger = next(
        one["ledger"] for one in data["candidates"] if one["digest"] == first.candidate.digest
    )
    assert ledger[-1][:2] == [BEYOND_TENSORS, 4096]


def test_hostile_text_stays_text(records: RunRecords, model: MemoryModel) -> None:
    renamed = hostile(run_over(model))
    text = page_of(renamed, model)
    usual = page_of(records, model)
    assert len(Reader(text).tags) == pytest.approx(len(Reader(usual).tags), abs=25)
    assert [tag for tag, _ in Reader(text).tags].count("script") == 3
    assert not any(tag == "img" or "onerror" in found for tag, found in Reader(text).tags)
    assert "{{ 7*7 }}" in "".join(Reader(text).shown)
    assert "\u202e" not in text
    assert any(one["label"].startswith("</script>") for one in Reader(text).data["candidates"])


def test_a_run_without_trials_still_has_a_page(model: MemoryModel) -> None:
    text = page_of(run_over(model, trials=0, finals=0), model)
    data = Reader(text).data
    assert data["candidates"] == []
    assert data["first"] is None
    assert set(data["charts"]) == {"memory-0"}
    assert "No trial and no baseline is there yet" in text


def test_the_same_records_give_the_same_page(
    records: RunRecords, model: MemoryModel, text: str
) -> None:
    assert page_of(records, model) == text


def test_folders_of_this_machine_are_not_in_the_configuration(model: MemoryModel) -> None:
    records = run_over(model)
    study = records.study.model_copy(
        update={
            "source_dir": Path("/somewhere/of/mine"),
            "data": records.study.data.model_copy(
                update={"name": "folder", "root": "/somewhere/of/mine/images", "labels": None}
            ),
        }
    )
    text = page_of(replace(records, study=study), model)
    assert "/somewhere/of" not in text
    assert "./images" in text


def test_the_plan_of_a_lean_step_is_shown(records: RunRecords, model: MemoryModel) -> None:
    plan = PlanFigures(
        blocks=(
            BlockFigures("features.1", "chunked", 4, True, 1024, 0.5),
            BlockFigures("features.2", "lean", 1, False, None, None),
        ),
        untraced=("head",),
        time=1.25,
    )
    text = "".join(Reader(page_of(records, model, plan=plan)).shown)
    for part in ("features.1", "chunked", "1.0 KiB", "50.0 %", "lean (not recognised)"):
        assert part in text
    assert "can't be traced" in text
    assert "1.25 times" in text


def test_a_plan_has_raw_values_for_its_csv() -> None:
    plan = PlanFigures(blocks=(BlockFigures("a", "lean", 1, True, 3 * MIB, 0.25),))
    table = plan_table(plan)
    row = table.rows[0]
    assert [row.get(field) for field in table.fields] == ["a", "lean", 1, "true", 3 * MIB, 0.25]


def test_the_library_can_stand_inside_a_script_element() -> None:
    assert not re.search(r"</script", vega_library(), flags=re.IGNORECASE)


def test_the_library_is_bundled_once_and_never_read_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    made: list[str] = []

    def bundle(call: str) -> str:
        made.append(call)
        return "a\r\nb"

    monkeypatch.setattr("vl_convert.javascript_bundle", bundle)
    read = vega_library.__wrapped__
    assert (read(), read()) == ("a\r\nb", "a\r\nb")
    assert len(made) == 1
    (stored,) = tmp_path.iterdir()
    stored.write_bytes(stored.read_bytes()[:-1] + b"c")
    assert read() == "a\r\nb"
    assert len(made) == 2
    assert read() == "a\r\nb"
    assert len(made) == 2


def test_further_objectives_are_among_the_figures(model: MemoryModel) -> None:
    objectives = ("accuracy", "peak_bytes", "macs_forward")
    study = make_study(budgets=(MIB, 2 * MIB), objectives=objectives)
    records = run_over(model, study=study)
    candidates = Reader(page_of(records, model)).data["candidates"]
    trial = records.complete[0]
    facts = next(one["facts"] for one in candidates if one["digest"] == trial.candidate.digest)
    title = objective_title("macs_forward", metric="accuracy")
    assert dict(facts)[f"{title[0].upper()}{title[1:]}"] == f"{trial.values['macs_forward']:,.6g}"


def test_a_network_without_channel_groups_has_a_page(model: MemoryModel) -> None:
    del model
    network = Residual()
    fixed = MemoryModel.compile(network, torch.zeros(2, 3, 16, 16), groups=())
    data = Reader(page_of(run_over(fixed), fixed)).data
    assert "channels" not in data["charts"]
    assert "ratios" not in data["charts"]
    assert data["candidates"]


def test_the_page_names_the_metric_of_the_study(model: MemoryModel) -> None:
    records = run_over(model)
    search = records.study.search.model_copy(update={"metric": "macro-f1"})
    study = records.study.model_copy(update={"search": search})
    text = page_of(replace(records, study=study), model).replace(vega_library(), "")
    shown = " ".join(Reader(text).shown).replace('"accuracy"', "").replace("accuracy, peak", "")
    assert "Macro F1 over predicted peak memory" in shown
    assert "accuracy" not in shown.lower()
