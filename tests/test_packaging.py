import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dse

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", str(ROOT), "--wheel-dir", str(folder)),
            *("--no-deps", "--no-build-isolation", "--no-index", "--quiet"),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return next(folder.glob("dse-*.whl"))


def test_the_wheel_ships_studies_search_spaces_types_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for kind in ("studies", "search_spaces"):
        for path in (ROOT / kind).glob("*.toml"):
            assert f"dse/shipped_files/{kind}/{path.name}" in names
    assert "dse/py.typed" in names
    assert "dse/starter_study.toml" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)


def test_the_installed_command_works_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    """Unpacked wheel on the path, the checkout out of sight."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import sys, dse.cli, dse.shipped; "
        "print(*dse.shipped.shipped('studies'), *dse.shipped.shipped('search_spaces')); "
        "print(dse.__file__); "
        "sys.exit(dse.cli.main(['init', 'mine.toml']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    names, place, *_ = done.stdout.splitlines()
    assert {"digits", "auto", "mobilenet_v2", "resnet"} <= set(names.split())
    assert place == str(site / "dse" / "__init__.py")
    assert tomllib.loads((tmp_path / "mine.toml").read_text())["network"]


def test_constraints_pin_what_is_installed_and_needed() -> None:
    pins = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    pins = {canonicalize_name(name): pinned for name, pinned in pins.items()}
    needed = dict(_needed())
    assert needed.keys() <= pins.keys()
    assert {name: pins[name] for name in needed} == needed
    assert pins["torch"] == "2.14.1"
    assert pins["torchvision"] == "0.29.1"


def _needed() -> Iterator[tuple[str, str]]:
    """Name and installed version of everything that dse[dev] pulls in."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    todo = [
        Requirement(line)
        for line in project["dependencies"] + project["optional-dependencies"]["dev"]
    ]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        extras = frozenset(requirement.extras)
        if (name, extras) in done:
            continue
        done.add((name, extras))
        yield name, version(name)
        for line in requires(name) or []:
            inner = Requirement(line)
            marker = inner.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in {"", *extras}):
                todo.append(inner)


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    try:
        assert dse.__version__ == project["version"]
    except PackageNotFoundError:
        pytest.fail("dse isn't installed here: run `make venv`")


def test_every_public_name_is_there_and_listed() -> None:
    assert sorted(dse.__all__) == dse.__all__
    for name in dse.__all__:
        assert getattr(dse, name) is not None
        assert name in dir(dse)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dse.nothing


@pytest.mark.parametrize("module", ["dse", "dse.cli"])
def test_importing_stays_quick(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "print([n for n in ('torch', 'optuna', 'pandas', 'sklearn', 'matplotlib', 'scipy') "
        "if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_make_lists_its_targets() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("venv", "demo", "test", "test-slow", "help", "clean"):
        assert f"make {target} " in done.stdout


def test_continuous_integration_runs_the_suite_strictly() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert "make test" in text
    assert os.access(script, os.X_OK)
