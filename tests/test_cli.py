import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest
import torch
from referencing import Registry, Resource
from rich.console import Console

import dse
from dse.candidate import Candidate
from dse.cli import main
from dse.commands import console
from dse.commands.progress import RunDisplay
from dse.errors import ExportError
from dse.results.candidate_records import TrialRecord
from dse.search.progress import Progress
from dse.shipped import shipped
from support.images import write_folder
from support.tiny import STUDY, TinyRun, write_tiny_study

ROOT = Path(__file__).parent.parent
SCHEMAS = {
    path.name: json.loads(path.read_text("utf-8"))
    for path in (ROOT / "docs/schemas").glob("*.json")
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
COMMANDS = ("memory", "run", "report", "compare", "pick", "export", "baseline", "init", "doctor")
Captured = pytest.CaptureFixture[str]


def answer(capsys: Captured, schema: str, *arguments: object, status: int = 0) -> dict[str, Any]:
    """Run a command with --json: stdout holds one object, which fits its schema."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(SCHEMAS[schema], registry=REGISTRY).validate(found)
    assert found.keys() <= SCHEMAS[schema]["properties"].keys()
    return found


def text(capsys: Captured, *arguments: object, status: int = 0) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments)]) == status
    return capsys.readouterr().out


def error_line(capsys: Captured, *arguments: object, status: int = 2) -> str:
    """Run a command that is refused: nothing on stdout, one line last on stderr."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    last = captured.err.rstrip("\n").splitlines()[-1]
    assert last.startswith("dse: error: ")
    return last


def test_every_schema_is_one() -> None:
    for name, schema in SCHEMAS.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$id"] == name
        assert schema["properties"]["version"] == {"const": int(name[:-5].rpartition("-")[2])}


# --- help, version, usage ---------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_itself_with_examples(capsys: Captured, command: str) -> None:
    shown = text(capsys, command, "--help")
    assert "\b" not in shown
    assert "Examples:\n" in shown
    assert f"\n    dse {command}" in shown
    assert "--json" in shown


def test_the_overview_names_every_command_with_a_whole_sentence(capsys: Captured) -> None:
    shown = text(capsys, "--help")
    for command in COMMANDS:
        assert f"\n  {command} " in shown
    assert "..." not in shown.partition("Commands:")[2]


def completed(typed: str) -> list[str]:
    """What bash offers after these words, by a process that must not import torch."""
    code = (
        "import sys; from dse.cli import main; status = main([]); "
        "sys.exit(99 if 'torch' in sys.modules else status)"
    )
    position = str(len(typed.split(" ")) - 1)
    words = {"_DSE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": position}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **words},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_studies_and_words() -> None:
    assert completed("dse re") == ["report"]
    assert "--optimizer" in completed("dse memory x --opt")
    assert completed("dse run digits") == ["digits", "digits_joint", "digits_lora"]
    assert completed("dse memory x --scheme li") == ["lite-residual"]
    assert completed("dse memory x --optimizer adam") == ["adam", "adamw"]
    assert completed("dse baseline peak") == ["peak-greedy"]
    assert completed("dse pick x --device esp32") == ["esp32-s3", "esp32-s3-psram-8mb"]


def test_the_completion_script_is_shown(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    with_shell = text(capsys, "--show-completion")
    assert "_DSE_COMPLETE=complete_bash" in with_shell


def test_the_overview_lists_the_exit_statuses(capsys: Captured) -> None:
    shown = text(capsys, "--help")
    listed = shown.partition("Exit statuses:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines()] == ["0", "1", "2", "70", "130", "141"]


def test_version(capsys: Captured) -> None:
    assert text(capsys, "--version") == f"dse {dse.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["memory"],
        ["memory", "digits", "--nothing"],
        ["memory", "digits", "--batch", "0"],
        ["memory", "digits", "--batch", "many"],
        ["memory", "digits", "--classes", "0"],
        ["memory", "digits", "--image-size", "-3"],
        ["run", "digits", "--trials", "0"],
        ["run", "digits", "--seed", "-1"],
        ["pick", "runs/digits"],
        ["export", "runs/digits", "--trial", "-1", "--out", "x"],
        ["export", "runs/digits", "--trial", "1"],
    ],
)
def test_wrong_usage_exits_with_2_and_says_where_help_is(
    capsys: Captured, arguments: list[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--help" in captured.err
    assert "Error: " in captured.err


# --- errors at the edge -----------------------------------------------------------------------


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_an_unexpected_error_is_one_line_and_70(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.commands.init.starter_study", raising(ZeroDivisionError("a\nb")))
    line = error_line(capsys, "init", "new.toml", status=70)
    assert line == "dse: error: unexpected ZeroDivisionError: a b (dse --debug ... shows where)"


@pytest.mark.parametrize("place", [0, 2])
def test_debug_shows_the_traceback(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr("dse.commands.init.starter_study", raising(ZeroDivisionError()))
    arguments = ["init", "new.toml"]
    arguments.insert(place, "--debug")
    assert main(arguments) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_ctrl_c_exits_with_130_and_says_so(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.commands.init.starter_study", raising(KeyboardInterrupt()))
    assert main(["init", "new.toml"]) == 130
    assert capsys.readouterr().err == "dse: interrupted\n"


def test_ctrl_c_while_dse_starts_is_one_line(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dse.cli._prepare_streams", raising(KeyboardInterrupt()))
    assert main(["init", "new.toml"]) == 130
    assert capsys.readouterr().err == "dse: interrupted\n"


COMMAND = f"{sys.executable} -c 'from dse.cli import main; raise SystemExit(main())'"


@pytest.mark.parametrize(
    ("redirected", "status", "message"),
    [
        ("| true", 141, ""),
        (">&-", 0, ""),
        (">/dev/full", 2, "dse: error: stdout can't be written: No space left on device"),
    ],
)
@pytest.mark.parametrize("flag", ["", "--json"])
def test_output_that_nobody_can_read_is_no_accident(
    tmp_path: Path, redirected: str, status: int, message: str, flag: str
) -> None:
    wait = "sleep 0.1; " if "|" in redirected else ""  # until the reader has gone
    pipeline = f"({wait}{COMMAND} init new.toml {flag}; echo $? >status) {redirected}"
    done = subprocess.run(
        ["/bin/sh", "-c", pipeline], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (tmp_path / "status").read_text() == f"{status}\n"
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == bool(message)


def test_letters_that_the_terminal_lacks_are_written_as_codes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "straße").mkdir()
    # What Python gives a process whose terminal has ASCII alone.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    with monkeypatch.context() as patched:
        patched.chdir(tmp_path)
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        assert main(["init", "straße/new.toml"]) == 0
        assert main(["pick", "straße", "--ram", "1MiB"]) == 2
    for stream in (out, err):
        stream.seek(0)
    assert "stra\\xdfe/new.toml" in out.read()
    assert "stra\\xdfe is not a run folder" in err.read()


def test_a_stopped_run_says_how_to_go_on(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("dse.search.study.run", raising(KeyboardInterrupt()))
    out = tmp_path / "run"
    assert main(["run", str(write_tiny_study(tmp_path)), "--out", str(out)]) == 130
    assert f"results are in {out}" in capsys.readouterr().err


def test_the_command_is_installed_and_exits_with_its_status(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from dse.cli import main; sys.exit(main())",
            "run",
            "x",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("dse: error: ")
    assert len(done.stderr.splitlines()) == 1


# --- wrong input ------------------------------------------------------------------------------

MEMORY = ("memory", "torchvision:mobilenet_v2", "--image-size", "32", "--classes", "5")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("memory", "torchvision:mobilenet_v9"), "did you mean 'mobilenet_v2'?"),
        (("memory", "mobilenet_v2"), "write torchvision:mobilenet_v2"),
        (("memory", "digitz"), "digits"),
        (("memory", "no_such_module:build"), "importing 'no_such_module' failed"),
        (("memory", "json:nothing"), "json has no function 'nothing'"),
        (("memory", "json:dumps"), "can't be built with num_classes=1000"),
        (("memory", ":"), "network ':' is not a valid name: write torchvision:NAME"),
        (("memory", "missing.toml"), "missing.toml"),
        ((*MEMORY, "--scheme", "half"), "unknown scheme 'half'"),
        ((*MEMORY, "--scheme", "from:nowhere"), "from:nowhere"),
        ((*MEMORY, "--scheme", "from:"), "from:"),
        ((*MEMORY, "--optimizer", "sdg"), "unknown optimizer 'sdg'"),
        ((*MEMORY, "--ratio", "1.0"), "--ratio is 1.0: it must lie between 0 and below 1"),
        ((*MEMORY, "--ratio", "nan"), "--ratio is nan"),
        ((*MEMORY, "--ratio", "-0.1"), "--ratio is -0.1"),
        ((*MEMORY, "--ratio", "inf"), "--ratio is inf"),
        ((*MEMORY, "--convention", "rss"), "--convention 'rss' is not known: use tensors"),
        ((*MEMORY, "--element-bits", "8"), "--element-bits 8 needs --convention arena"),
        ((*MEMORY, "--convention", "arena", "--element-bits", "12"), "one of 8, 16, 32, not 12"),
        (
            (*MEMORY, "--convention", "layerwise", "--accumulate", "2"),
            "does not cover accumul",
        ),
        ((*MEMORY, "--checkpointing", "layers"), "checkpointing is 'layers'"),
        ((*MEMORY, "--precision", "fp16"), "precision is 'fp16'"),
        ((*MEMORY, "--mode", "evaluation"), "mode is 'evaluation'"),
        ((*MEMORY, "--mode", "inference", "--measure"), "leave out --mode inference"),
        ((*MEMORY, "--foreach", "--fused"), "foreach or fused, not both"),
        ((*MEMORY, "--scheme", ""), "unknown scheme ''"),
        ((*MEMORY, "--batch", "1"), "batch normalisation gets a single value per channel"),
        ((*MEMORY, "--batch", "9" * 20), "batch_size must be from 1 to 16,777,216"),
        ((*MEMORY, "--batch", "9999999", "--measure"), "needs more memory than this machine"),
        ((*MEMORY, "--ram", "0"), "--ram is 0"),
        ((*MEMORY, "--probe"), "--probe runs operators again"),
        ((*MEMORY, "--device", "cuda:9"), "--device cuda:9 changes nothing"),
        ((*MEMORY, "--device", "gpu", "--measure"), "--device = 'gpu': this machine has no such"),
        (
            (*MEMORY, "--device", "cuda:9", "--convention", "allocator"),
            "--device = 'cuda:9': this machine has no such device; use 'cpu'",
        ),
        ((*MEMORY, "--set", "data.root=x"), "--set data.root=x changes a key of a study, and"),
        (("memory", "image_folder_resnet18"), "--set data.root=path/to/images"),
        (("run", "digits", "--out", "a?b"), "can't contain '?'"),
        ((*MEMORY, "--picture", "step.doc"), "--picture step.doc must end in .pdf, .png, .svg"),
        ((*MEMORY, "--picture", "/nowhere/step.png"), "--picture /nowhere/step.png can't be"),
        ((*MEMORY, "--candidate", "missing.json"), "missing.json can't be read"),
        ((*MEMORY, "--candidate", "."), "--candidate . can't be read"),
        (
            ("memory", "torchvision:alexnet", "--image-size", "16"),
            "at 'features.5': RuntimeError:",
        ),
        (("run", "nothing"), "nothing"),
        (("run", "missing.toml"), "missing.toml: no such file"),
        (("run", "."), "."),
        (("run", "digits", "--set", "nonsense"), "must read KEY=VALUE"),
        (("run", "digits", "--set", "trainin.batch_size=4"), "did you mean training?"),
        (("run", "digits", "--set", "training.batchsize=4"), "did you mean batch_size?"),
        (("run", "digits", "--set", "training.batch_size=0"), "training.batch_size"),
        (("run", "digits", "--set", "training.optimizer=sdg"), 'did you mean "sgd"?'),
        (("run", "digits", "--set", "training.optimizer=adamW"), 'did you mean "adamw"?'),
        (("run", "digits", "--set", "search.sampler=TPE"), 'did you mean "tpe"?'),
        (("run", "digits", "--set", "training.scheme=LAST"), 'did you mean "last"?'),
        (("run", "digits", "--set", "Training.batch_size=4"), "did you mean training?"),
        ((*MEMORY, "--optimizer", "adamW"), "unknown optimizer 'adamW': use sgd, sgd-momentum"),
        ((*MEMORY, "--precision", "BF16-mixed"), "did you mean bf16-mixed?"),
        (("baseline", "Peak-Greedy", "digits"), "did you mean peak-greedy?"),
        (("run", "digits", "--set", "training.scheme=half"), "training.scheme"),
        (("run", "digits", "--set", "search.budgets=['64 potatoes']"), "'64 potatoes'"),
        (("run", "digits", "--set", "network.name=mobilenet_v2"), "torchvision:mobilenet_v2"),
        (("run", "digits", "--set", "data.labels=[5, 99]", "--dry-run"), "'99'"),
        (("run", "digits", "--timeout", "soon"), "--timeout: 'soon' is not a duration"),
        (("run", "digits", "--timeout", "0"), "--timeout 0: search.timeout must be greater"),
        (("run", "digits", "--seed", "99999999999"), "--seed 99999999999: seed must be less"),
        (("pick", "nowhere", "--ram", "9" * 5000), "is larger than any memory"),
        (("run", "digits", "--set", "training.device=cuda:9"), "no such device"),
        (("report", "nowhere"), "nowhere is not a run folder"),
        (("pick", "nowhere", "--ram", "64MiB"), "nowhere is not a run folder"),
        (("pick", "nowhere", "--ram", "64 potatoes"), "--ram: '64 potatoes' is not a size"),
        (("pick", "nowhere", "--ram", "-1"), "--ram: '-1' is not a size"),
        (("pick", "nowhere", "--ram", "1B", "--reserve", "x"), "--reserve: 'x' is not a size"),
        (("pick", "nowhere", "--ram", "64"), "--ram: '64' has no unit: write 64MiB, or 64B for"),
        ((*MEMORY, "--ram", "64"), "--ram: '64' has no unit: write 64MiB, or 64B for bytes"),
        (("export", "nowhere", "--out", "x", "--ram", "64"), "--ram: '64' has no unit"),
        (("pick", "nowhere", "--ram", "1B", "--reserve", "8"), "--reserve: '8' has no unit"),
        (("report", "nowhere", "--max-drop", "-1"), "--max-drop only has an effect with --ram"),
        (("report", "nowhere", "--reserve", "1MiB"), "--reserve only has an effect with --ram"),
        (
            ("export", "nowhere", "--out", "x"),
            "give either --trial N, or --ram SIZE or --device NAME",
        ),
        (
            ("export", "nowhere", "--out", "x", "--trial", "1", "--ram", "1MiB"),
            "give either --trial N, or --ram SIZE or --device NAME",
        ),
        (("export", "nowhere", "--out", "x", "--trial", "1"), "nowhere is not a run folder"),
        (("init", "."), ". is a folder"),
    ],
)
def test_wrong_input_gets_one_line(
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert complaint in error_line(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["study", "space", "candidate"])
def test_devices_and_pipes_in_place_of_files_are_refused_at_once(
    capsys: Captured, tmp_path: Path, kind: str
) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "device.toml").symlink_to("/dev/zero")
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(2**40)
    for name, reason in (("pipe", "a pipe"), ("device", "a device"), ("huge", "larger than")):
        path = tmp_path / f"{name}.toml"
        if kind == "study":
            complaint = error_line(capsys, "run", path)
        elif kind == "space":
            complaint = error_line(capsys, "run", "digits", "--set", f"space.name={path}")
        else:
            complaint = error_line(capsys, *MEMORY, "--candidate", path)
        assert reason in complaint


DEEP = 5000


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("x = " + "[" * DEEP + "]" * DEEP, "deep"),
        ("x = " + "{x = " * DEEP + "1" + "}" * DEEP, "deep"),
        (".".join("x" * 900) + " = 1", "deep"),
        ("[network.options]\nx = " + "[" * 60 + "]" * 60, "deep"),
        ("x" * 100_000, "is not valid TOML"),
    ],
)
def test_studies_that_nobody_writes_get_one_short_line(
    capsys: Captured, tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "odd.toml"
    file.write_text(content, encoding="utf-8")
    line = error_line(capsys, "run", file)
    assert complaint in line
    assert len(line) < 600


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--set", ".".join("x" * 900) + "=1"), "deep"),
        (("--set", "network.options=" + "[" * DEEP + "]" * DEEP), "deep"),
        (("--set", "search.trials=" + "9" * 5000), "search.trials"),
        (("--set", "x" * 100_000), "must read KEY=VALUE"),
        (("--set", "data.image_size=2147483648"), "data.image_size"),
        (("--set", "data.image_size=12000"), "data.image_size"),
    ],
)
def test_overrides_that_nobody_writes_get_one_short_line(
    capsys: Captured, arguments: tuple[str, ...], complaint: str
) -> None:
    line = error_line(capsys, "run", "digits", *arguments)
    assert complaint in line
    assert len(line) < 600


def test_names_that_no_file_has_get_one_line(capsys: Captured) -> None:
    for name in ("x" * 5000, "x" * 5000 + ".toml", "a\0b", "a\0b.toml", "x" * 5000 + ":y"):
        for command in ("run", "memory"):
            assert error_line(capsys, command, name)
    assert main(["memory", "torchvision:resnet18", "--image-size", "12000"]) == 2
    assert "less than or equal to 4096" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "the whole is []"),
        ('{"version": 7}', "version is 7"),
        ('{"chanels": {}}', "chanels"),
        ('{"channels": {"features.0.0": 0}}', "channels.features.0.0 is 0"),
        ('{"channels": {"features.0.0": 1.5}}', "channels.features.0.0 is 1.5"),
        ('{"channels": {"features.0.0": 99}}', "keeps 99 channels of 'features.0.0': it has 32"),
        ('{"channels": {"nowhere": 3}}', "no such channel group"),
        ('{"batch_size": 0}', "batch_size is 0"),
        ('{"batch_size": 1, "batch_size": 2}', "'batch_size' occurs twice"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_wrong_candidate_gets_one_line(
    capsys: Captured, tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "candidate.json"
    file.write_text(content, encoding="utf-8")
    assert complaint in error_line(capsys, *MEMORY, "--candidate", file)


LARGE_BATCH = STUDY.replace("batch_size = 16", "batch_size = 300").replace("1 MiB", "1 GiB")


@pytest.mark.parametrize(
    ("study", "complaint", "status"),
    [
        ("name = ", "is not valid TOML", 2),
        (STUDY.replace("batch_size", "batchsize"), "did you mean batch_size?", 2),
        (STUDY.replace("tiny_network:Tiny", "tiny_network:Tinny"), "did you mean 'Tiny'?", 2),
        (STUDY.replace("tiny_network:Tiny", "absent:Tiny"), "importing 'absent' failed", 2),
        (STUDY.replace("labels = [0, 1, 2]", "labels = [0, 1, 77]"), "'77'", 2),
        (STUDY.replace("400 KiB", "64 potatoes"), "'64 potatoes' is not a size", 2),
        (STUDY.replace('["400 KiB", "1 MiB"]', '["1 KiB"]'), "1.0 KiB", 1),
        (LARGE_BATCH, "training.batch_size", 2),
        (f"{STUDY}\n[trainig]\n", "did you mean training?", 2),
    ],
)
def test_a_wrong_study_gets_one_line(
    capsys: Captured, tmp_path: Path, study: str, complaint: str, status: int
) -> None:
    file = write_tiny_study(tmp_path)
    file.write_text(study, encoding="utf-8")
    for extra in ((), ("--dry-run",)):
        out = tmp_path / "run"
        assert complaint in error_line(capsys, "run", file, "--out", out, *extra, status=status)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (("run.json", None), "is not a run folder"),
        (("run.json", b"{"), "run.json is damaged"),
        (("run.json", b"\xff"), "run.json is damaged"),
        (("run.json", b'{"version": 2}'), "run.json was written by a newer release: update dse"),
        (("study.db", None), "has lost its study.db"),
        (("study.db", b"no database" * 99), "file is not a database; make room if the disk is"),
        (("study.db", b""), "has an empty study.db; restore it"),
        (("study.toml", None), "study.toml"),
        (("study.toml", b"name = "), "study.toml"),
        (("memory_model.npz", None), "memory_model.npz"),
        (("memory_model.npz", b"PK no zip"), "memory_model.npz is damaged"),
    ],
)
def test_a_damaged_run_gets_one_line(
    capsys: Captured,
    tiny_run: TinyRun,
    tmp_path: Path,
    damage: tuple[str, bytes | None],
    complaint: str,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    name, content = damage
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert complaint in error_line(capsys, "report", folder)


def test_wrong_input_to_a_real_run_gets_one_line(
    capsys: Captured, tiny_run: TinyRun, tmp_path: Path
) -> None:
    folder = tiny_run.folder
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    for arguments, complaint in (
        (("pick", folder, "--ram", "0"), "--ram is 0 bytes: it must be above 0"),
        (("pick", folder, "--ram", "1MiB", "--max-drop", "nan"), "--max-drop is nan"),
        (("pick", folder, "--ram", "1MiB", "--max-drop", "-1"), "--max-drop is -1.0"),
        (("pick", folder, "--ram", "1MiB", "--reserve", "1MiB"), "leaves nothing"),
        (("export", folder, "--trial", "77", "--out", tmp_path / "x"), "has no trial 77"),
        (("export", folder, "--trial", "0", "--out", tmp_path), "holds 'mine.txt'"),
        (("report", folder, "--out", tmp_path / "mine.txt"), "mine.txt"),
        (("run", tiny_run.study, "--out", tmp_path), "holds 'mine.txt'"),
        (("pick", tiny_run.study, "--ram", "1MiB"), "is not a run folder: it is a file"),
        (
            ("export", folder, "--trial", "0", "--out", "/proc/bundle"),
            "/proc/bundle can't hold a bundle",
        ),
        (
            ("export", folder, "--trial", "0", "--out", tmp_path / "mine.txt" / "x"),
            "mine.txt/x can't hold a bundle",
        ),
        (
            ("run", tiny_run.study, "--out", folder, "--set", "training.batch_size=8"),
            "was run with training.batch_size = 16, now it is 8",
        ),
        (("run", tiny_run.study, "--out", folder, "--seed", "9"), "was run with seed = 0"),
        (
            ("run", tiny_run.study, "--out", tmp_path / "y", "--storage", "nonsense"),
            "storage is no URL",
        ),
    ):
        assert complaint in error_line(capsys, *arguments)


# --- dse memory -------------------------------------------------------------------------------


def memory(capsys: Captured, *arguments: object) -> dict[str, Any]:
    found = answer(capsys, "memory-1.json", "memory", *arguments)
    assert sum(found["categories"].values()) == found["peak_bytes"]
    return found


def test_memory_has_the_documented_defaults(capsys: Captured) -> None:
    found = memory(capsys, "torchvision:mobilenet_v2")
    keys = ("scheme", "batch_size", "image_size", "optimizer", "convention")
    assert [found[key] for key in keys] == ["full", 8, 224, "sgd-momentum", "tensors"]
    assert found["network"] == "torchvision:mobilenet_v2"
    assert found["peak_at"]["phase"] == "backward"
    assert found["categories"]["weights"] == 4 * 3_504_872
    assert "measured_peak_bytes" not in found


def test_memory_measures_on_the_given_device(capsys: Captured) -> None:
    found = memory(capsys, *MEMORY[1:], "--measure", "--ratio", "0.5")
    ratio = found["peak_bytes"] / found["measured_peak_bytes"]
    assert found["relative_error"] == pytest.approx(ratio - 1)
    assert 0.8 < ratio < 1.001


def test_flags_override_a_candidate(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "candidate.json"
    settings = {"batch_size": 4, "scheme": "last", "optimizer": "adam", "image_size": 40}
    file.write_text(json.dumps({"version": 1, "channels": {"features.0.0": 8}, **settings}))
    network = "torchvision:mobilenet_v2"
    given = memory(capsys, network, "--candidate", file)
    assert {key: given[key] for key in settings} == settings
    flags = ("--batch", "6", "--scheme", "bias", "--optimizer", "sgd", "--image-size", "48")
    found = memory(capsys, network, "--candidate", file, *flags)
    assert [found[k] for k in settings] == [6, "bias", "sgd", 48]
    pruned = memory(capsys, network, "--candidate", file, "--ratio", "0.5")
    assert pruned["categories"]["weights"] < given["categories"]["weights"] / 2


def test_memory_of_a_study_takes_its_settings(capsys: Captured, tiny_run: TinyRun) -> None:
    found = memory(capsys, tiny_run.study)
    assert found["peak_bytes"] == tiny_run.answer["unpruned"]["peak_bytes"]
    assert (found["batch_size"], found["image_size"]) == (16, 12)
    assert memory(capsys, tiny_run.study, "--batch", "4")["peak_bytes"] < found["peak_bytes"]


def test_a_flag_turns_off_what_the_study_turns_on(capsys: Captured, tiny_run: TinyRun) -> None:
    for switch in ("foreach", "fused"):
        on = ("--set", f"training.{switch}=true")
        assert memory(capsys, tiny_run.study, *on)["step"][switch] is True
        assert memory(capsys, tiny_run.study, *on, f"--no-{switch}")["step"][switch] is False
    both = ("--set", "training.fused=true", "--no-fused", "--foreach")
    assert memory(capsys, tiny_run.study, *both)["step"]["foreach"] is True


def test_memory_prints_a_table(capsys: Captured) -> None:
    shown = text(capsys, *MEMORY)
    assert "torchvision:mobilenet_v2, scheme full, batch 8, 32x32 pixels, sgd-momentum" in shown
    assert "Convention tensors" in shown
    assert "optimizer state" in shown
    assert "Reached in " in shown


# --- dse run ----------------------------------------------------------------------------------


def test_a_run_answers_as_documented(tiny_run: TinyRun) -> None:
    found = tiny_run.answer
    schema = SCHEMAS["run-1.json"]
    jsonschema.Draft202012Validator(schema, registry=REGISTRY).validate(found)
    assert found.keys() == schema["properties"].keys()
    assert found["trials"]["complete"] == 3 + 2  # two baselines are entered, which fit
    peaks = [member["peak_bytes"] for member in found["front"]]
    assert peaks == sorted(peaks)
    assert found["unpruned"]["final"]["seeds"] == 2


def test_running_again_trains_nothing_and_prints_the_front(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tiny_run: TinyRun
) -> None:
    monkeypatch.setattr("dse.finetune.proxy.Proxy.evaluate", raising(AssertionError("trained")))
    capsys.readouterr()
    assert main(["run", str(tiny_run.study), "--out", str(tiny_run.folder)]) == 0
    captured = capsys.readouterr()
    assert "of unpruned" in captured.out
    for member in tiny_run.answer["front"]:
        assert f"trial {member['trial']}  " in captured.out
    assert "unpruned" in captured.out
    assert "uniform 0.50" in captured.out
    suggested = captured.out.rstrip("\n").splitlines()[-1].split()
    assert suggested[:4] == ["dse", "pick", str(tiny_run.folder), "--ram"]
    assert "Picked for" in text(capsys, *suggested[1:])
    assert "\x1b" not in captured.out + captured.err
    assert "\r" not in captured.out + captured.err


def test_imbalanced_classes_are_reported_by_every_command(capsys: Captured, tmp_path: Path) -> None:
    write_folder(tmp_path / "images", {"common": 95, "rare": 4, "rarer": 3})
    study = write_tiny_study(tmp_path)
    study.write_text(
        study.read_text("utf-8")
        .replace('name = "digits"', 'name = "folder"\nroot = "images"')
        .replace("labels = [0, 1, 2]", "")
        .replace("full_seeds = 2", "full_seeds = 1")
        .replace("trials = 3", "trials = 1"),
        "utf-8",
    )
    folder, advice = tmp_path / "run", 'set search.metric = "balanced-accuracy" or "macro-f1"'
    assert advice in text(capsys, "run", study, "--dry-run")
    assert main(["run", str(study), "--out", str(folder)]) == 0
    ran = capsys.readouterr()
    assert advice in ran.err
    archive = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}")
    assert archive.metric_names == ["accuracy", "peak (bytes)"]
    suggested = ran.out.rstrip("\n").splitlines()[-1].split()
    for command in (
        suggested[1:],
        ["report", str(folder)],
        ["export", str(folder), "--trial", "0", "--out", str(tmp_path / "bundle")],
    ):
        assert main(command) == 0
        assert advice in capsys.readouterr().err
    recipe = json.loads((tmp_path / "bundle" / "recipe.json").read_text("utf-8"))
    assert len(recipe["recalls"]) == 3
    page = (folder / "report" / "report.md").read_text("utf-8")
    assert "## Recall of each class" in page
    assert "A test of which of them differ needs at least two seeds." in page


LEAVING = """
import os
import sys

import torch


class Greys(torch.utils.data.Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, index):
        if "DSE_TEST_LEAVE" in os.environ:
            sys.exit(3)
        return torch.full((3, 12, 12), 100 * (index % 2) + index, dtype=torch.uint8), index % 2


def greys():
    return Greys(), Greys()
"""


def test_a_data_set_that_ends_the_process_is_refused_in_a_line(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "leaving_data.py").write_text(LEAVING, encoding="utf-8")
    study, out = write_tiny_study(tmp_path), tmp_path / "run"
    content = study.read_text("utf-8").replace(
        '"digits"\nlabels = [0, 1, 2]', '"leaving_data:greys"'
    )
    study.write_text(content.replace("trials = 3", "trials = 1"), "utf-8")
    assert main(["run", str(study), "--out", str(out)]) == 0
    monkeypatch.setenv("DSE_TEST_LEAVE", "1")
    for command in (
        ("run", study, "--out", out),
        ("export", out, "--trial", "0", "--out", tmp_path / "bundle"),
    ):
        line = error_line(capsys, *command)
        assert "data 'leaving_data:greys': image 0" in line
        assert "it ends the process (SystemExit: 3)" in line
    assert not (tmp_path / "bundle").exists()


def test_progress_is_a_line_for_each_trial_where_stderr_is_no_terminal(
    capsys: Captured, tmp_path: Path
) -> None:
    study = write_tiny_study(tmp_path)
    arguments = ["--out", str(tmp_path / "run"), "--set", "proxy.full_epochs=1"]
    assert main(["run", str(study), "--trials", "1", *arguments]) == 0
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    line = next(line for line in shown.splitlines() if line.startswith("[1/1] trial "))
    for part in (
        " % at ",
        " elapsed, ",
        " left, ",
        "front ",
        "best ",
        " in 1.0 MiB",
        "hypervolume 0.",
    ):
        assert part in line


def test_a_terminal_gets_a_bar_with_the_standing_below(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(console, "messages", lambda: screen)
    record = TrialRecord(
        number=7,
        state="complete",
        params={},
        candidate=Candidate(),
        peak_bytes=2**19,
        accuracy=0.91,
        values={"accuracy": 0.91, "peak_bytes": 2**19},
        fidelity="short",
        wall_seconds=2.0,
    )
    progress = Progress(
        phase="search",
        done=1,
        total=4,
        states={"complete": 1},
        front_size=1,
        best={2**20: 0.91},
        hypervolume=0.25,
        elapsed_seconds=2.0,
        remaining_seconds=6.0,
    )
    with RunDisplay(clock=lambda: 0.0) as display:
        display.on_progress(0.5)
        display.on_phase("search", 4)
        display.on_trial(record, progress)
        display.on_progress(0.5)
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert "preparing" in shown
    assert "trial 7: 91.0 % at 512.0 KiB, 2.0s\n" in shown
    assert "1/4" in shown
    assert "\n0.0s elapsed, 6.0s left, front 1, best 91.0 % in 1.0 MiB, hypervolume 0.250" in shown


def test_pretraining_is_a_phase_with_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (False, True):
        screen = Console(
            file=io.StringIO(),
            force_terminal=terminal,
            width=100,
            color_system=None,
            soft_wrap=True,
        )
        monkeypatch.setattr(console, "messages", lambda screen=screen: screen)
        now = [0.0]
        with RunDisplay(clock=lambda now=now: now[0]) as display:  # type: ignore[misc]
            now[0] = 5.0
            display.on_phase("pretraining", 1)
            now[0] = 15.0
            display.on_progress(0.25)
            now[0] = 45.0
            display.on_progress(1.0)
            display.on_phase("baselines", 4)
            now[0] = 47.0
            display.on_progress(0.5)
        assert isinstance(screen.file, io.StringIO)
        shown = screen.file.getvalue()
        assert "pretraining" in shown
        if terminal:
            assert "15.0s elapsed, about 30.0s left of pretraining" in shown
            assert "47.0s elapsed, about 14.0s left of baselines" in shown
        else:
            assert shown.splitlines() == [
                "pretraining: begins after 5.0s",
                "pretraining: 25 %, about 30.0s left of pretraining",
                "pretraining: 100 %",
                "baselines: 4 in all",
            ]


def test_a_narrower_terminal_loses_every_row_of_the_old_bar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(console, "messages", lambda: screen)
    now = [0.0]
    assert isinstance(screen.file, io.StringIO)
    with RunDisplay(clock=lambda: now[0]) as display:
        display.on_phase("baselines", 4)
        now[0] = 4.0
        display.on_progress(0.5)
        before = len(screen.file.getvalue())
        screen.width = 25  # the bar of 39 and the line of 42 columns now take two rows each
        now[0] = 8.0
        display.on_progress(0.6)
        drawn = screen.file.getvalue()[before:]
    up = "\x1b[1A"
    assert drawn.partition("baselines")[0].count(up) == 3
    assert (
        max(len(line) for line in drawn.replace("\r", "\n").splitlines() if "\x1b" not in line)
        <= 25
    )


def test_a_dry_run_writes_nothing(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    study = write_tiny_study(tmp_path)
    before = sorted(tmp_path.iterdir())
    found = answer(capsys, "run-plan-1.json", "run", study, "--dry-run", "--trials", "7")
    assert (found["groups"], found["trials"], found["classes"]) == (2, 7, 3)
    assert "tiny can run:" in text(capsys, "run", study, "--dry-run")
    assert [p for p in sorted(tmp_path.iterdir()) if p.name != "__pycache__"] == before


# --- dse report, pick and export --------------------------------------------------------------


def test_a_report_names_what_it_wrote(capsys: Captured, tiny_run: TinyRun, tmp_path: Path) -> None:
    out = tmp_path / "report"
    device = ("--device", "esp32-s3-psram-8mb")
    found = answer(capsys, "report-1.json", "report", tiny_run.folder, "--out", out, *device)
    paths = [found["index"], *found["pictures"], *found["tables"]]
    assert all(Path(path).is_file() for path in paths)
    assert {Path(path).suffix for path in found["pictures"]} == {".pdf", ".png"}
    assert {Path(path).suffix for path in found["tables"]} == {".csv", ".md", ".tex"}
    assert "picked" in (out / "front.md").read_text("utf-8")


def test_a_pick_is_measured_and_shown_beside_the_unpruned_network(
    capsys: Captured, tiny_run: TinyRun
) -> None:
    found = answer(capsys, "pick-1.json", "pick", tiny_run.folder, "--ram", "1MiB")
    assert found["feasible"]
    assert found["fidelity"] == "full"
    assert 0 < found["measured_peak_bytes"] <= found["budget_bytes"] == 2**20
    shown = text(capsys, "pick", tiny_run.folder, "--ram", "1MiB")
    for part in (
        found["label"],
        "unpruned",
        "(--reserve)",
        "Measured: a real step held",
        "measured",
        "left",
    ):
        assert part in shown


def test_a_picked_candidate_can_be_given_to_memory(
    capsys: Captured, tiny_run: TinyRun, tmp_path: Path
) -> None:
    found = answer(
        capsys, "pick-1.json", "pick", tiny_run.folder, "--ram", "600KiB", "--max-drop", "50"
    )
    file = tmp_path / "candidate.json"
    file.write_text(json.dumps(found["candidate"]), encoding="utf-8")
    again = memory(capsys, tiny_run.study, "--candidate", file)
    assert again["peak_bytes"] == found["peak_bytes"]


def test_where_nothing_fits_the_status_is_1_and_the_size_that_would_does(
    capsys: Captured, tiny_run: TinyRun
) -> None:
    found = answer(capsys, "pick-1.json", "pick", tiny_run.folder, "--ram", "10KiB", status=1)
    assert found["feasible"] is False
    line = error_line(capsys, "pick", tiny_run.folder, "--ram", "10KiB", status=1)
    size = line.rpartition("--ram ")[2]
    again = answer(capsys, "pick-1.json", "pick", tiny_run.folder, "--ram", size)
    assert again["feasible"] is True
    out = tiny_run.folder.parent / "never"
    assert "nothing fits" in error_line(
        capsys, "export", tiny_run.folder, "--ram", "10KiB", "--out", out, status=1
    )
    assert not out.exists()


def test_a_report_for_a_size_that_nothing_fits_is_drawn_all_the_same(
    capsys: Captured, tiny_run: TinyRun, tmp_path: Path
) -> None:
    found = answer(
        capsys,
        "report-1.json",
        "report",
        tiny_run.folder,
        "--ram",
        "10KiB",
        "--out",
        tmp_path / "r",
    )
    assert Path(found["index"]).is_file()


def test_an_exported_trial_comes_back_as_it_was_scored(
    capsys: Captured, tiny_run: TinyRun, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    number = tiny_run.answer["front"][0]["trial"]
    found = answer(
        capsys, "export-2.json", "export", tiny_run.folder, "--trial", number, "--out", out
    )
    recipe = found["recipe"]
    assert recipe == json.loads((out / "recipe.json").read_text("utf-8"))
    assert (recipe["trial"], recipe["labels"]) == (number, ["0", "1", "2"])
    assert recipe["accuracy"] > 0.8
    assert recipe["preprocessing"]["pixel_values"] == "scans from 0 to 16, brought to bytes"
    assert recipe["peak_bytes"] == tiny_run.answer["front"][0]["peak_bytes"]
    with pytest.raises(ExportError, match="runs code of its own; load it with trust=True, or give"):
        dse.load(out, search_path=tiny_run.study.parent)
    network = dse.load(out, search_path=tiny_run.study.parent, trust=True)
    assert not network.training
    assert network(torch.zeros(2, 3, 12, 12)).shape == (2, 3)
    channels = recipe["channels"]
    assert network.get_submodule("stem.0").weight.shape[0] == channels["stem.0"]
    model = dse.MemoryModel.compile(
        network, torch.zeros(2, 3, 12, 12), optimizer=recipe["optimizer"], groups=()
    )
    assert int(model.peaks([], batch_size=recipe["batch_size"])) == recipe["peak_bytes"]


def test_an_export_for_a_device_is_the_pick(
    capsys: Captured, tiny_run: TinyRun, tmp_path: Path
) -> None:
    device = ("--device", "arduino-portenta-h7")
    picked = answer(capsys, "pick-1.json", "pick", tiny_run.folder, *device)
    shown = text(capsys, "export", tiny_run.folder, *device, "--out", tmp_path / "bundle")
    assert f'dse.load("{tmp_path / "bundle"}", trust=True)' in shown
    recipe = json.loads((tmp_path / "bundle" / "recipe.json").read_text("utf-8"))
    assert recipe["trial"] == picked["trial"]
    # The board's planner holds another peak than PyTorch, which the bundle's recipe is for.
    candidate = tmp_path / "candidate.json"
    candidate.write_text(json.dumps(picked["candidate"]), encoding="utf-8")
    for convention, found in (("arena", picked), ("tensors", recipe)):
        step = ("memory", tiny_run.study, "--candidate", candidate, "--convention", convention)
        assert answer(capsys, "memory-1.json", *step)["peak_bytes"] == found["peak_bytes"]


# --- dse init and the shipped studies ---------------------------------------------------------


def test_init_writes_a_study_that_can_run(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "new" / "study.toml"
    assert answer(capsys, "init-1.json", "init", file)["study"] == str(file)
    assert answer(capsys, "run-plan-1.json", "run", file, "--dry-run")["study"] == "my_study"
    assert "exists: give another name, or --force" in error_line(capsys, "init", file)
    file.write_text("mine", encoding="utf-8")
    assert "dse run" in text(capsys, "init", file, "--force")
    assert file.read_text("utf-8") != "mine"


def test_the_demo_study_can_run(capsys: Captured) -> None:
    assert "digits" in shipped("studies")
    found = answer(capsys, "run-plan-1.json", "run", "digits", "--dry-run")
    assert found["smallest_peak_bytes"] < min(found["budgets"]) < found["unpruned_peak_bytes"]


def test_what_is_printed_meanwhile_goes_to_stderr(capsys: Captured) -> None:
    with console.stdout_reserved():
        sys.stdout.write("a library talks\n")
    console.print_json({"answer": 1})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"answer": 1}
    assert captured.err == "a library talks\n"


def test_no_json_is_written_of_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        console.print_json({"answer": float("nan")})


def test_memory_explains_its_peak_and_says_what_batch_fits(capsys: Captured) -> None:
    arguments = ("memory", "torchvision:squeezenet1_1", "--classes", "3", "--image-size", "32")
    found = answer(capsys, "memory-1.json", *arguments, "--explain", "--ram", "64MiB")
    held = sum(holding["bytes"] for holding in found["explanation"]["holdings"])
    assert held == found["peak_bytes"] == found["explanation"]["moments"][0]["bytes"]
    batch = found["largest_batch_size"]
    fits, exceeds = (
        answer(capsys, "memory-1.json", *arguments, "--batch", number)["peak_bytes"]
        for number in (batch, batch + 1)
    )
    assert fits <= found["ram_bytes"] == 2**26 < exceeds
    shown = text(capsys, *arguments, "--explain", "--ram", "1KiB")
    assert "It needs" in shown
    assert "more than 1.0 KiB" in shown
    assert "What pruning one group alone saves" in shown


def test_memory_shows_and_draws_a_lean_step(capsys: Captured, tmp_path: Path) -> None:
    network = ("memory", "support.networks:Blocks", "--classes", "3", "--image-size", "32")
    stock = answer(capsys, "memory-1.json", *network)
    found = answer(capsys, "memory-1.json", *network, "--engine", "lean")
    assert found["lean"]["stock_peak_bytes"] == stock["peak_bytes"] > found["peak_bytes"]
    picture = tmp_path / "step.svg"
    shown = text(capsys, *network, "--engine", "lean", "--picture", picture)
    for block in found["lean"]["blocks"]:
        assert f"{block['block']} " in shown
    assert "share of time" in shown
    assert picture.read_text().count("peak ") == 2
    few = ("--engine", "lean", "--ram", "1KiB")
    assert "the least takes" in error_line(capsys, *network, *few, status=1)


def test_every_remedy_is_what_the_changed_step_needs(capsys: Captured) -> None:
    network = ("memory", "support.networks:Blocks", "--classes", "3", "--image-size", "96")
    whole = answer(capsys, "memory-1.json", *network)
    ram = whole["peak_bytes"] // 2
    found = answer(capsys, "memory-1.json", *network, "--ram", f"{ram}B")
    flags = {
        "none": (),
        "batch size": ("--batch",),
        "scheme": ("--scheme",),
        "checkpointing": ("--checkpointing",),
        "engine": ("--engine",),
        "optimizer": ("--optimizer",),
        "image size": ("--image-size",),
        "pruning": ("--ratio",),
    }
    assert {remedy["change"] for remedy in found["remedies"]} == set(flags)
    for remedy in found["remedies"]:
        given = [*flags[remedy["change"]], *filter(None, [remedy["value"]])]
        again = answer(capsys, "memory-1.json", *network, *given)
        assert again["peak_bytes"] == remedy["peak_bytes"]
        assert remedy["fits"] == (remedy["peak_bytes"] <= ram)


@pytest.mark.parametrize("mode", ["training", "inference"])
@pytest.mark.parametrize(
    "convention",
    ["tensors", "allocator", "layerwise", "arena"],
)
def test_every_convention_adds_up(convention: str, mode: str, capsys: Captured) -> None:
    network = ("torchvision:resnet18", "--classes", "3", "--image-size", "32", "--ratio", "0.3")
    found = memory(capsys, *network, "--convention", convention, "--mode", mode)
    assert found["convention"] == convention
    assert found["peak_activation_bytes"] <= found["peak_bytes"]


def test_smaller_elements_need_a_smaller_arena(capsys: Captured) -> None:
    network = ("torchvision:resnet18", "--classes", "3", "--image-size", "32")
    peaks = [
        memory(capsys, *network, "--convention", "arena", "--element-bits", bits)["peak_bytes"]
        for bits in (32, 16, 8)
    ]
    assert 1.9 < peaks[0] / peaks[1] < 2.1
    assert 3.8 < peaks[0] / peaks[2] < 4.2


def test_memory_draws_its_step(capsys: Captured, tmp_path: Path) -> None:
    network = ("torchvision:squeezenet1_1", "--classes", "3", "--image-size", "32")
    for suffix, begins in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        path = tmp_path / f"step{suffix}"
        memory(capsys, *network, "--picture", path)
        assert path.read_bytes().startswith(begins)


def test_the_allocator_convention_holds_in_any_precision(capsys: Captured) -> None:
    arguments = ("memory", "torchvision:resnet18", "--classes", "3", "--image-size", "32")
    flags = ("--precision", "bf16-mixed", "--batch", "2", "--convention", "allocator")
    found = answer(capsys, "memory-1.json", *arguments, *flags, "--probe", "--measure")
    assert found["probed"]
    assert found["categories"]["workspace"] > 0
    assert found["peak_bytes"] == found["measured_peak_bytes"]


def test_the_allocator_convention_adds_workspace(capsys: Captured) -> None:
    arguments = ("memory", "torchvision:squeezenet1_1", "--classes", "3", "--image-size", "32")
    tensors = answer(capsys, "memory-1.json", *arguments)
    allocator = answer(capsys, "memory-1.json", *arguments, "--convention", "allocator")
    assert allocator["peak_bytes"] >= tensors["peak_bytes"]
    assert "workspace" in allocator["categories"]
    assert sum(allocator["categories"].values()) == allocator["peak_bytes"]
