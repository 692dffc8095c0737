"""What is known of operators on disk: found again, for this machine alone, and never trusted."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dse.memory import machine, probe_cache
from dse.memory.machine import machine_of
from dse.memory.operator_run import OperatorRun, TensorSpec
from dse.memory.probe import CpuProbe, Probed
from dse.memory.probe_cache import CachedProbe, operator_digest


def product(rows: int, **changes: Any) -> OperatorRun:
    spec = TensorSpec((rows, 4), (4, 1), torch.float32, on_device=True)
    square = TensorSpec((4, 4), (4, 1), torch.float32, on_device=True)
    values: dict[str, Any] = {
        "position": 1,
        "phase": "forward",
        "function": torch.ops.aten.mm.default,
        "arguments": ((spec, square), ()),
        "results": (0,),
        "strides": ((4, 1),),
    }
    return OperatorRun(**values | changes)


class Counting:
    """Remembers what it was given to run, and says of each how many bytes its results have."""

    block_bytes = 1

    def __init__(self) -> None:
        self.seen: list[OperatorRun] = []

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        self.seen += operators
        return [Probed(0, (result_bytes(run),), run.strides) for run in operators]


class Constant(Counting):
    """Says of each operator that it needs 99 bytes."""

    def run(self, operators: Sequence[OperatorRun]) -> list[Probed]:
        return [Probed(99, (0,), run.strides) for run in operators]


def result_bytes(run: OperatorRun) -> int:
    return 16 * run.arguments[0][0].shape[0]


def cached(folder: Path, *, renew: bool = False) -> tuple[CachedProbe, Counting]:
    inner = Counting()
    return CachedProbe(inner, device="cpu", folder=folder, renew=renew), inner


def test_an_operator_runs_once_on_a_machine(tmp_path: Path) -> None:
    first, ran = cached(tmp_path)
    found = first.run([product(3), product(5)])
    assert [each.result_bytes for each in found] == [(3 * 4 * 4,), (5 * 4 * 4,)]
    assert len(ran.seen) == first.ran == 2
    again, ran_again = cached(tmp_path)
    assert again.run([product(5), product(7), product(3)]) == [
        found[1],
        Probed(0, (7 * 16,), ((4, 1),)),
        found[0],
    ]
    assert ran_again.seen == [product(7)]


def test_real_findings_survive_the_file(tmp_path: Path) -> None:
    found = CachedProbe(CpuProbe(), device="cpu", folder=tmp_path).run([product(3)])
    assert cached(tmp_path)[0].run([product(3)]) == found == CpuProbe().run([product(3)])


def test_all_are_run_again_where_that_is_wanted(tmp_path: Path) -> None:
    cached(tmp_path)[0].run([product(3)])
    probe = CachedProbe(Constant(), device="cpu", folder=tmp_path, renew=True)
    probe.run([product(3)])
    assert cached(tmp_path)[0].run([product(3)])[0].workspace_bytes == 99
    assert cached(tmp_path, renew=True)[0].run([product(3)])[0].workspace_bytes == 0
    assert cached(tmp_path)[0].run([product(3)])[0].workspace_bytes == 0


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 1, "operators": [3]}',
        '{"version": 1, "operators": {"a": [1, 2]}}',
        '{"version": 1, "operators": {"a": [-1, 0, [], []]}}',
        '{"version": 1, "operators": {"a": [0, 0, ["x"], [null]]}}',
        "\x00\x01",
    ],
)
def test_a_damaged_file_is_made_again_with_one_line(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached(tmp_path)[0].run([product(3)])
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    file.write_text(content)
    with caplog.at_level(logging.WARNING):
        probe, ran = cached(tmp_path)
        probe.run([product(3)])
    assert ran.seen == [product(3)]
    assert file.read_text() == whole
    (line,) = caplog.messages
    assert "is damaged" in line
    assert str(file) in line


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
def test_a_single_bit_is_enough(position: float, tmp_path: Path) -> None:
    cached(tmp_path)[0].run([product(rows) for rows in range(1, 9)])
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[int(len(content) * position)] ^= 1
    file.write_bytes(bytes(content))
    probe, ran = cached(tmp_path)
    probe.run([product(3)])
    assert len(ran.seen) == 1


def test_a_file_of_another_version_is_made_again(tmp_path: Path) -> None:
    cached(tmp_path)[0].run([product(3)])
    (file,) = tmp_path.iterdir()
    file.write_text('{"version": 0, "anything": 1}')
    probe, ran = cached(tmp_path)
    probe.run([product(3)])
    assert ran.seen == [product(3)]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    probe, _ = cached(tmp_path / "file" / "operators")
    assert probe.run([product(3)])[0].result_bytes == (48,)


def test_writers_keep_what_others_found_meanwhile(tmp_path: Path) -> None:
    one, other = cached(tmp_path)[0], cached(tmp_path)[0]
    one.run([product(3)])
    other.run([product(5)])
    both, ran = cached(tmp_path)
    both.run([product(3), product(5)])
    assert not ran.seen
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"]


def test_the_cache_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_cache, "MOST_OPERATORS", 3)
    monkeypatch.setattr(probe_cache, "MOST_FILES", 2)
    for rows in range(1, 6):
        cached(tmp_path)[0].run([product(rows)])
    probe, ran = cached(tmp_path)
    probe.run([product(rows) for rows in (5, 4, 3, 2)])
    assert ran.seen == [product(2)]
    for threads in ("8", "9", "10"):
        monkeypatch.setattr(machine, "_cpu", lambda threads=threads: {"threads": threads})
        cached(tmp_path)[0].run([product(1)])
    assert len(list(tmp_path.iterdir())) == 2


def test_everything_that_matters_names_another_operator() -> None:
    half = TensorSpec((3, 4), (4, 1), torch.bfloat16, on_device=True)
    turned = TensorSpec((3, 4), (1, 3), torch.float32, on_device=True)
    elsewhere = TensorSpec((3, 4), (4, 1), torch.float32, on_device=False)
    square = TensorSpec((4, 4), (4, 1), torch.float32, on_device=True)
    runs = [
        product(3),
        product(4),
        product(3, function=torch.ops.aten.matmul.default),
        product(3, phase="backward"),
        product(3, results=(None,)),
        *(product(3, arguments=((spec, square), ())) for spec in (half, turned, elsewhere)),
        product(3, arguments=(product(3).arguments[0], (("out_dtype", torch.float64),))),
    ]
    digests = {operator_digest(run) for run in runs}
    assert None not in digests
    assert len(digests) == len(runs)
    assert operator_digest(product(3)) == operator_digest(product(3, position=7, results=(5,)))
    assert operator_digest(product(3, arguments=((object(),), ()))) is None


def test_operators_without_a_plain_form_run_each_time(tmp_path: Path) -> None:
    generator = torch.Generator()
    function = torch.ops.aten.bernoulli.default
    spec = TensorSpec((4,), (1,), torch.float32, on_device=True)
    run = product(
        1, function=function, arguments=((spec,), (("generator", generator),)), strides=((1,),)
    )
    for _ in range(2):
        probe, ran = cached(tmp_path)
        probe.run([run])
        assert len(ran.seen) == 1


def test_settings_and_variables_that_choose_kernels_describe_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = machine_of("cpu")
    assert before == machine_of("cpu")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    isa = machine_of("cpu")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    more = machine_of("cpu")
    torch.set_num_threads(threads)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    wider = machine_of("cpu")
    assert len({repr(each) for each in (before, isa, more, wider)}) == 4


def test_a_machine_without_linux_files_is_described_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(machine, "CPU_CACHES", tmp_path / "none")
    machine._cpu_info.cache_clear()
    machine._caches.cache_clear()
    try:
        assert machine_of("cpu")["processor"]
    finally:
        machine._cpu_info.cache_clear()
        machine._caches.cache_clear()
