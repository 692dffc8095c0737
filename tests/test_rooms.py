"""The rooms of the package import one another in one direction."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dse"

# Each room may import those that stand before it, as far as they are named here.
GROUND = {
    "plain_text", "errors", "units", "names", "registry", "digests", "caches", "shipped",
    "metrics", "textfiles",
    "factories", "user_code", "weight_files", "atomic", "memory_formats", "image_settings",
    "inputs", "measures",
}  # fmt: skip
ROOMS = {
    "config": GROUND,
    "candidate": GROUND | {"config"},
    "data": GROUND | {"config", "tasks"},
    "trust": GROUND | {"config"},
    "networks": GROUND | {"config"},
    "pruning": GROUND | {"networks"},
    "step": GROUND | {"config", "networks"},
    "tasks": GROUND | {"config", "networks", "step"},
    "memory": GROUND | {"networks", "pruning", "step"},
    "finetune": GROUND
    | {
        "config",
        "candidate",
        "data",
        "engines",
        "networks",
        "pruning",
        "step",
        "tasks",
    },
    "results": GROUND | {"config", "candidate", "data"},
    "sampling": GROUND | {"config", "candidate", "networks", "results", "step"},
}
ROOMS["engines"] = GROUND | {"memory", "networks", "pruning", "step"}
ROOMS["methods"] = {*GROUND, *ROOMS} - {"results"}
ROOMS["search"] = {*GROUND, *ROOMS}
ROOMS["report"] = GROUND | {"candidate", "config", "memory", "results", "step"}
ROOMS["footprint"] = GROUND | {
    "candidate", "config", "data", "engines", "memory", "networks", "pruning", "step", "tasks",
}  # fmt: skip
ROOMS["deploy"] = {*GROUND, *ROOMS} - {"report"}
ROOMS["notebook"] = GROUND | {"candidate", "report", "results", "search"}
ROOMS["draft"] = {"config", "data", "networks", "search", *GROUND}
ROOMS["commands"] = {*GROUND, *ROOMS, "dse"}  # for the version


def module_of(file: Path) -> str:
    """Return a file's module, such as `dse.memory.tape`; a package for its `__init__.py`."""
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


FILES = {module_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(module: str) -> frozenset[str]:
    """Return the modules of the package that a module imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{module} has a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in FILES else node.module for name in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(found & FILES.keys())


def imported_rooms(room: str) -> set[str]:
    modules = [module for module in FILES if module.split(".")[1:2] == [room]]
    found = {name for module in modules for name in imports(module)}
    return {name.split(".")[1] if "." in name else "dse" for name in found} - {room}


def reached_rooms(room: str) -> set[str]:
    """Return the rooms that a room imports, whether directly or through others."""
    waiting = [module for module in FILES if module.split(".")[1:2] == [room]]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += imports(module)
    return {module.split(".")[1] for module in seen if "." in module}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_those_below_it(room: str) -> None:
    assert imported_rooms(room) <= ROOMS[room]


def test_training_and_the_memory_model_know_nothing_of_each_other() -> None:
    assert not reached_rooms("memory") & {"data", "finetune"}
    assert "memory" not in reached_rooms("finetune")


def test_no_module_imports_itself_through_others() -> None:
    TopologicalSorter({module: imports(module) for module in FILES}).prepare()


@pytest.mark.parametrize("room", ["networks", "pruning", "step", "memory", "engines", "finetune"])
def test_what_trains_and_predicts_knows_no_search(room: str) -> None:
    texts = [file.read_text(encoding="utf-8") for file in (PACKAGE / room).rglob("*.py")]
    assert texts
    assert not [
        text for text in texts if re.search(r"^\s*(import|from) optuna", text, re.MULTILINE)
    ]


def test_every_module_and_folder_has_its_place() -> None:
    found = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert found <= GROUND | set(ROOMS) | {"__init__", "cli"}


def test_nobody_imports_the_command_line() -> None:
    assert not [module for module in FILES if "dse.cli" in imports(module)]
