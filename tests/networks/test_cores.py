import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dse.networks.cores import (
    busy_cores,
    cpu_quota,
    logical_cores,
    thread_count,
    threads_chosen,
    usable_cores,
)


@pytest.mark.parametrize(
    ("machine", "threads"),
    [
        ({"usable": 8}, 8),
        ({"usable": 8, "busy": 0.4}, 8),  # what an idle machine does beside
        ({"usable": 8, "busy": 3.1}, 5),
        ({"usable": 2, "busy": 1.0}, 1),
        ({"usable": 2, "busy": 2.0}, 1),
        ({"usable": 2.5}, 2),  # by a quota
        ({"usable": 0.5}, 1),
        ({"usable": 8, "workers": 4}, 2),
        ({"usable": 8, "busy": 4.0, "workers": 4}, 1),
        ({"usable": 8, "others": 3}, 2),  # idle at the moment
        ({"usable": 8, "busy": 6.0, "others": 3}, 2),  # or training already
    ],
)
def test_threads_are_as_many_as_cores_are_free(machine: dict[str, float], threads: int) -> None:
    assert thread_count(**machine) == threads  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),
        (
            "5:cpu,cpuacct:/a\n4:memory:/x\n",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            "5:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("0::/\n", {}, math.inf),
    ],
)
def test_a_quota_of_the_control_group_counts(
    tmp_path: Path, own: str, files: dict[str, str], quota: float
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)
    assert cpu_quota(tmp_path, tmp_path / "own") == quota


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel shows no times of cores")
def test_a_busy_process_takes_a_core() -> None:
    assert 0 < usable_cores() <= logical_cores()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            assert 0.4 < busy_cores(0.5) <= logical_cores()
        finally:
            busy.kill()


def test_the_number_that_was_set_holds_without_a_look_at_the_machine() -> None:
    before, lines = torch.get_num_threads(), list[str]()
    with threads_chosen(3, device="cpu", on_message=lines.append) as threads:
        assert threads == torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    assert lines == []


def test_what_was_chosen_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dse.networks.cores.usable_cores", lambda: 4)
    monkeypatch.setattr("dse.networks.cores.busy_cores", lambda: 2.2)
    lines = list[str]()
    torch.set_num_threads(4)
    try:
        with threads_chosen(0, device="cpu", others=1, on_message=lines.append) as threads:
            assert threads == torch.get_num_threads() == 2
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(1)
    (line,) = lines
    assert line == (
        "uses 2 CPU threads (4 cores, 2.2 busy with other processes, 1 other worker of the study "
        "here); training.threads sets it"
    )
