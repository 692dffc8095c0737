"""The rooms of the package import one another in one direction."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dse"

# Each room may import those that stand before it, as far as they are named here.
GROUND = {
    "errors", "units", "names", "registry", "digests", "caches", "shipped", "metrics", "textfiles",
    "factories", "user_code", "weight_files", "atomic", "memory_formats", "image_settings",
    "inputs",
}  # fmt: skip
ROOMS = {
    "config": GROUND,
    "candidate": GROUND | {"config"},
    "data": GROUND | {"config"},
    "trust": GROUND | {"config"},
    "networks": GROUND | {"config"},
    "pruning": GROUND | {"networks"},
    "step": GROUND | {"config", "networks"},
    "memory": GROUND | {"networks", "pruning", "step"},
    "finetune": GROUND | {"config", "candidate", "data", "engines", "networks", "pruning", "step"},
    "results": GROUND | {"config", "candidate", "data"},
    "sampling": GROUND | {"config", "candidate", "networks", "results", "step"},
}
ROOMS["engines"] = GROUND | {"memory", "networks", "pruning", "step"}
ROOMS["methods"] = {*GROUND, *ROOMS} - {"results"}
ROOMS["search"] = {*GROUND, *ROOMS}
ROOMS["report"] = GROUND | {"candidate", "config", "memory", "results", "step"}
ROOMS["footprint"] = GROUND | {
    "candidate", "config", "data", "engines", "memory", "networks", "pruning", "step",
}  # fmt: skip
ROOMS["deploy"] = {*GROUND, *ROOMS} - {"report"}
ROOMS["notebook"] = GROUND | {"candidate", "report", "results", "search"}
ROOMS["draft"] = {"config", "data", "networks", "search", *GROUND}
ROOMS["commands"] = {*GROUND, *ROOMS}


def imported_rooms(room: str) -> set[str]:
    folder = PACKAGE / room
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            found |= {name.split(".")[1] for name in names if name.startswith("dse.")}
    return found - {room}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_those_below_it(room: str) -> None:
    assert imported_rooms(room) <= ROOMS[room]


def test_every_module_and_folder_has_its_place() -> None:
    found = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert found <= GROUND | set(ROOMS) | {"__init__", "cli"}


def test_nobody_imports_the_command_line() -> None:
    assert not [room for room in ROOMS if "cli" in imported_rooms(room)]
