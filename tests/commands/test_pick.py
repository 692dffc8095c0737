"""What `dse pick` prints, on made-up records."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from dse.candidate import Candidate
from dse.cli import main
from dse.errors import MemoryModelError
from dse.footprint.speed import Ratio, Speed
from dse.report.write import ReportFiles
from dse.results.records import RunRecords
from support.runs import make_records

SCHEMAS = {
    path.name: json.loads(path.read_text("utf-8"))
    for path in (Path(__file__).parents[2] / "docs/schemas").glob("*.json")
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
Captured = pytest.CaptureFixture[str]
DROP = ("--max-drop", "30")


SPEED = Speed(
    step=Ratio(median=0.42, interval=(0.4, 0.45)),
    forward=Ratio(median=0.98, interval=(0.9, 1.04)),
    rounds=9,
)


@dataclass(frozen=True)
class Step:
    peak_bytes: int
    step_seconds: float = 0.5


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunRecords], None]:
    """Let the command read these records, and measure what they predict."""

    def choose(records: RunRecords) -> None:
        known = {
            one.candidate.digest: one.peak_bytes
            for one in (*records.finals, *records.complete, *records.baselines)
        }

        def measure(one: Candidate) -> Step:
            return Step(known[one.digest])

        monkeypatch.setattr("dse.search.load.load_run", lambda *_, **__: records)
        monkeypatch.setattr("dse.deploy.pick.measure_of", lambda _: measure)
        monkeypatch.setattr("dse.deploy.pick.speed_of", lambda _: lambda _candidate: SPEED)

    return choose


@pytest.fixture(autouse=True)
def _records(use: Callable[[RunRecords], None]) -> None:
    use(make_records(finals=5))


def out(capsys: Captured, *arguments: str, status: int = 0) -> str:
    assert main(["pick", "run", *arguments]) == status
    return capsys.readouterr().out


def answer(capsys: Captured, schema: str, *arguments: str, status: int = 0) -> Any:
    assert main(["pick", *arguments, "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(SCHEMAS[schema], registry=REGISTRY).validate(found)
    return found


def test_several_sizes_are_a_table_with_intervals(capsys: Captured) -> None:
    shown = out(capsys, "--ram", "24MiB", "--ram", "48MiB", "--ram", "50%", *DROP)
    heading, *rows = shown.splitlines()
    assert "points lost (95 %)" in heading
    assert [row.split("  ")[0] for row in rows[:3]] == ["24.0 MiB", "48.0 MiB", "32.0 MiB"]
    assert all(" to " in row for row in rows[:3])


def test_no_figure_of_a_long_row_is_cut(capsys: Captured) -> None:
    devices = ["raspberry-pi-zero-2-w", "jetson-orin-nano-8gb"]
    shown = out(capsys, *(part for one in devices for part in ("--device", one)), *DROP)
    heading, *rows = shown.splitlines()
    assert heading.split()[-3:] == ["step", "time", "forward"]
    assert [row.split()[0] for row in rows[:2]] == devices
    assert "…" not in shown


def test_several_sizes_are_several_objects(capsys: Captured) -> None:
    sizes = ("--ram", "24MiB", "--ram", "48MiB")
    found = answer(capsys, "picks-1.json", "run", *sizes, *DROP)
    assert [one["ram_bytes"] for one in found["picks"]] == [24 * 2**20, 48 * 2**20]
    single = answer(capsys, "pick-1.json", "run", "--ram", "48MiB", *DROP)
    assert single == found["picks"][1]


def test_a_size_that_nothing_fits_is_a_row_and_the_status(capsys: Captured) -> None:
    given = ("pick", "run", "--ram", "24MiB", "--ram", "1KiB", *DROP)
    assert main(given) == 1
    captured = capsys.readouterr()
    assert "1.0 KiB" in captured.out
    assert "nothing fits" in captured.out
    assert captured.err.splitlines()[-1].startswith("dse: error: 1 of 2: nothing fits 1.0 KiB")


def test_a_device_is_named_with_what_is_free(capsys: Captured) -> None:
    assert main(["pick", "run", "--device", "raspberry-pi-zero-2-w"]) == 0
    captured = capsys.readouterr()
    assert "Raspberry Pi Zero 2 W: 512.0 MiB of RAM, of which 90.0 MiB are free" in captured.out
    assert "raspberry-pi-zero-2-w: 90.0 MiB free of 512.0 MiB is an estimate" in captured.err


def test_ties_are_named_and_one_seed_gives_none(
    capsys: Captured, use: Callable[[RunRecords], None]
) -> None:
    records = make_records(finals=5)
    figures = (0.95, 0.951, 0.949)
    alike = tuple(
        replace(one, accuracies=figures, validation_accuracies=figures) for one in records.finals
    )
    use(replace(records, finals=alike))
    shown = out(capsys, "--ram", "64MiB")
    assert "the most accurate that fits, from trial" in shown
    assert "unpruned (64.0 MiB) (Welch's test, 5 %)" in shown
    use(make_records(finals=5, seeds=1))
    shown = out(capsys, "--ram", "64MiB", "--ram", "48MiB", *DROP)
    assert "Too few seeds for a test of ties: 64.0 MiB, 48.0 MiB." in shown


def test_a_knee_needs_no_size(capsys: Captured) -> None:
    shown = out(capsys, "--knee", "--max-drop", "60")
    assert "The knee of the front, for any size of RAM:" in shown
    table = out(capsys, "--knee", "--ram", "24MiB", "--ram", "48MiB", "--max-drop", "60")
    assert "(knee)" in table
    assert "Too few seeds" not in table


def test_devices_are_listed(capsys: Captured) -> None:
    assert main(["pick", "--list-devices"]) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    found = answer(capsys, "devices-1.json", "--list-devices")
    assert all(one["name"] in shown for one in found["devices"])


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--device", "esp32s3"), "did you mean esp32-s3?"),
        (("--device", "esp32-s3", "--reserve", "1KiB"), "--reserve and --device exclude each"),
        (("--ram", "1MiB", "--devices", "x.toml"), "--devices only has an effect with --device"),
        (("--knee", "--reserve", "1KiB"), "--reserve only has an effect with --ram"),
        (("--device", "x", "--devices", "none.toml"), "none.toml: no such file"),
        (("--list-devices",), "--list-devices only lists"),
    ],
)
def test_contradictory_flags_are_refused(
    capsys: Captured, flags: tuple[str, ...], complaint: str
) -> None:
    assert main(["pick", "run", *flags]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dse: error: ")
    assert complaint in line


@pytest.mark.parametrize("arguments", [[], ["run"], ["--ram", "1MiB"]])
def test_what_is_missing_is_wrong_usage(capsys: Captured, arguments: list[str]) -> None:
    assert main(["pick", *arguments]) == 2
    assert "dse pick --help" in capsys.readouterr().err


def test_sizes_of_an_arena_are_worded_as_such(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = make_records(finals=5)
    known = {one.candidate.digest: one.peak_bytes for one in (*records.complete, *records.finals)}
    monkeypatch.setattr(
        "dse.deploy.pick.planned_sizes",
        lambda _: lambda one: known.get(one.digest, records.unpruned_peak_bytes) // 8,
    )
    assert main(["pick", "run", "--device", "arduino-portenta-h7", *DROP]) == 0
    captured = capsys.readouterr()
    assert "predicted arena" in captured.out
    assert "a real step held" not in captured.out
    assert "the arena that a static planner needs" in captured.err
    found = answer(capsys, "pick-1.json", "run", "--device", "arduino-portenta-h7", *DROP)
    assert found["runtime"] == "microcontroller"
    assert main(["pick", "run", "--device", "esp32-s3"]) == 1
    refusal = capsys.readouterr().err
    assert "the smallest feasible size is " in refusal
    assert "size is --ram" not in refusal  # which would be of PyTorch's steps


def test_a_report_takes_a_size_or_a_device_not_both(capsys: Captured) -> None:
    assert main(["report", "run", "--ram", "1MiB", "--device", "esp32-s3"]) == 2
    assert "--ram and --device exclude each other" in capsys.readouterr().err
    assert main(["export", "run", "--trial", "1", "--device", "x", "--out", "o"]) == 2
    assert "give either --trial N, or --ram SIZE or --device NAME" in capsys.readouterr().err


def test_a_report_says_what_is_estimated(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"index": tmp_path / "report.md", "html": tmp_path / "index.html"}
    written = ReportFiles(**pages, pictures=(), tables=())
    given: list[Candidate | None] = []

    def content(_: RunRecords, *, picked: Candidate | None, **__: object) -> None:
        given.append(picked)

    monkeypatch.setattr("dse.report.content.report_content", content)
    monkeypatch.setattr("dse.report.write.write_report", lambda *_, **__: written)
    assert main(["report", "run", "--device", "raspberry-pi-zero-2-w"]) == 0
    assert "90.0 MiB free of 512.0 MiB is an estimate" in capsys.readouterr().err
    assert given[0] is not None


def test_speed_is_a_share_of_the_unpruned_networks_in_one_run(capsys: Captured) -> None:
    shown = out(capsys, "--ram", "48MiB", *DROP)
    assert "a training step takes 42 % of the unpruned network's time per sample" in shown
    assert "(40 to 45 %)" in shown
    assert "The choice pays in memory here, not in time: a forward pass is not" in shown
    assert "one step" not in shown
    found = answer(capsys, "pick-1.json", "run", "--ram", "48MiB", *DROP)
    assert found["speed"]["step"] == {"median": 0.42, "interval": [0.4, 0.45]}
    table = out(capsys, "--ram", "24MiB", "--ram", "48MiB", *DROP)
    assert "step time" in table
    assert "42 %" in table


def test_without_speed_nothing_is_timed(capsys: Captured) -> None:
    assert "Speed" not in out(capsys, "--ram", "48MiB", "--no-speed", *DROP)
    assert (
        answer(capsys, "pick-1.json", "run", "--ram", "48MiB", "--no-speed", *DROP)["speed"] is None
    )


def test_where_the_unpruned_network_has_no_room_speed_is_a_note(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Candidate) -> Speed:
        raise MemoryModelError("no room")

    monkeypatch.setattr("dse.deploy.pick.speed_of", lambda _: refuse)
    assert main(["pick", "run", "--ram", "48MiB", *DROP]) == 0
    printed = capsys.readouterr()
    assert "speed was not compared: no room" in printed.err
    assert "one step" in printed.out
