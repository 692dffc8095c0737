"""Whatever a file holds, it is read or refused in one line: no other exception, and no hang.

The suite tries a few inputs of each kind; `make fuzz` tries more than 100,000. Each follows from a
number, which a failure names.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import numpy as np
import pytest

import dse
from dse.candidate import Candidate
from dse.config import load_space, load_study, study_toml
from dse.deploy import bundle
from dse.deploy.recipe import Recipe
from dse.errors import DseError
from dse.footprint.rebuild import rebuild
from dse.inputs import InputSpec
from dse.metrics import Confusion
from dse.search.journal_repair import repair_journal
from dse.search.load import load_run
from dse.search.run_folder import RunFolder
from dse.shipped import shipped
from support.damage import HangError, damaged_json, damaged_toml, edited, one_line, spliced, value
from support.figures import figures_of
from support.recipes import make_recipe
from support.searches import search

NETWORK = "torchvision:squeezenet1_1"
CELLS = ("null", "[]", "{}", '"x"', "1e999", "NaN", "[1,[2]]", b"\xff\xfe", None, 2**62, -1.5)

STUDY = b"""
name = "mine"
description = "a study"
seed = 3
[network]
name = "torchvision:mobilenet_v2"
weights = "pretrain"
options = {width_mult = 0.5}
[network.pretrain]
epochs = 2
labels = ["0", "1"]
learning_rate = 0.1
[data]
name = "digits"
labels = ["5", "6"]
image_size = 32
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]
[space]
ratio = [0.0, 0.9]
multiple = 8
floor = 8
[[space.group]]
pattern = "features.*"
ratio = [0.0, 0.5]
[[space.group]]
pattern = "classifier*"
fixed = 0.0
[training]
scheme = "from:features.3"
batch_size = 16
threads = 1
[proxy]
short_epochs = 0.5
full_seeds = 2
[reference]
tune = false
[baselines]
methods = ["uniform", "peak-greedy"]
[search]
trials = 20
timeout = "1h30m"
budgets = ["1 MiB", "50 %"]
objectives = ["accuracy", "peak_bytes"]
"""
Check = Callable[[Random], None]


def of_studies(folder: Path) -> Check:
    path = folder / "study.toml"
    sound = (STUDY, shipped("studies")["digits_joint"].read_bytes())
    for document in sound:  # of one that is refused undamaged, nothing would be tried
        path.write_bytes(document)
        load_study(path)

    def check(rng: Random) -> None:
        path.write_bytes(damaged_toml(rng.choice(sound), rng))
        one_line(lambda: study_toml(load_study(path)), DseError)

    return check


def of_spaces(folder: Path) -> Check:
    path = folder / "space.toml"
    sound = shipped("search_spaces")["mobilenet_v2"].read_bytes()

    def check(rng: Random) -> None:
        path.write_bytes(damaged_toml(sound, rng))
        one_line(lambda: load_space(str(path)), DseError)

    return check


def sound_bundle(folder: Path) -> Path:
    place = folder / "bundle"
    place.mkdir()
    network = rebuild(NETWORK, classes=2, inputs=InputSpec.image(32), candidate=Candidate()).eval()
    recipe = make_recipe(network=NETWORK, classes=2, labels=("a", "b"))
    scored = figures_of(Confusion(np.eye(2, dtype=np.int64)))
    bundle.write(place, network=network, recipe=recipe, score=lambda _: scored)
    return place


def of_recipes(folder: Path) -> Check:
    path = sound_bundle(folder) / "recipe.json"
    sound = path.read_bytes()

    def check(rng: Random) -> None:
        path.write_bytes(damaged_json(sound, rng))
        one_line(lambda: Recipe.read(path), DseError)

    return check


def of_bundles(folder: Path) -> Check:
    """Damage the recipe; or the weights, and their digest with them as an attacker would."""
    place = sound_bundle(folder)
    recipe = place / "recipe.json"
    weights = place / Recipe.read(recipe).weights_file
    sound, tensors = recipe.read_bytes(), weights.read_bytes()
    header = 8 + int.from_bytes(tensors[:8], "little")

    def check(rng: Random) -> None:
        if rng.random() < 0.5:
            recipe.write_bytes(damaged_json(sound, rng))
        else:
            weights.write_bytes(spliced(tensors[:header], rng) + tensors[header:])
            whole = json.loads(sound)
            whole["digests"][weights.name] = hashlib.sha256(weights.read_bytes()).hexdigest()
            recipe.write_text(json.dumps(whole), encoding="utf-8")
        one_line(lambda: dse.load(place), DseError)
        weights.write_bytes(tensors)

    return check


def of_run_files(folder: Path) -> Check:
    """Damage run.json, or the study beside it."""
    out = folder / "run"
    search(out)
    sound = {name: (out / name).read_bytes() for name in ("run.json", "study.toml")}

    def read() -> None:
        place = RunFolder(out)
        place.check_storage(place.read(), trusted=False)
        place.storage_url(place.read(), given=None)
        place.resolved_study()

    def check(rng: Random) -> None:
        name = rng.choice(sorted(sound))
        damaged = damaged_json if name == "run.json" else damaged_toml
        (out / name).write_bytes(damaged(sound[name], rng))
        one_line(read, DseError)
        (out / name).write_bytes(sound[name])

    return check


def of_databases(folder: Path) -> Check:
    """Damage cells or bytes of a run's database."""
    out = folder / "run"
    search(out)
    path = out / "study.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
        tables = [
            (table, column)
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for _, column, *_ in database.execute(f"PRAGMA table_info({table})")
        ]
    sound = path.read_bytes()

    def check(rng: Random) -> None:
        path.write_bytes(sound if rng.random() < 0.8 else spliced(sound, rng))
        if path.read_bytes() == sound:
            table, column = rng.choice(tables)
            cell = rng.choice(CELLS) if rng.random() < 0.5 else json.dumps(value(rng))
            with closing(sqlite3.connect(path)) as database:
                query = f"SELECT rowid FROM {table}"  # noqa: S608
                rows = [row for (row,) in database.execute(query)]
                with suppress(sqlite3.IntegrityError, IndexError):
                    query = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608
                    database.execute(query, (cell, rng.choice(rows)))
                database.commit()
        one_line(lambda: load_run(out, trust=True), DseError)

    return check


def of_journals(folder: Path) -> Check:
    """Damage a journal's tail; read it as it is, or repaired."""
    out, path = folder / "run", folder / "study.log"
    search(out, storage=f"journal:///{path}")
    lines = path.read_bytes().splitlines(keepends=True)

    def check(rng: Random) -> None:
        place = rng.randrange(len(lines))
        if rng.random() < 0.5:
            tail = spliced(b"".join(lines[place : place + 3]), rng)
        else:
            changed = json.dumps(edited(json.loads(lines[place]), rng)).encode()
            tail = changed + b"\n" + b"".join(lines[place + 1 :])
        path.write_bytes(b"".join(lines[:place]) + tail)
        if rng.random() < 0.5:
            one_line(lambda: repair_journal(path), DseError)
            for backup in folder.glob("study.log.backup-*"):
                backup.unlink()
        one_line(lambda: load_run(out, trust=True), DseError)

    return check


KINDS = {
    "studies": (of_studies, 40_000),
    "spaces": (of_spaces, 15_000),
    "recipes": (of_recipes, 30_000),
    "bundles": (of_bundles, 2000),
    "run files": (of_run_files, 12_000),
    "databases": (of_databases, 3000),
    "journals": (of_journals, 3000),
}


def attempt(name: str, folder: Path, count: int) -> None:
    check = KINDS[name][0](folder)
    for number in range(count):
        try:
            check(Random(f"{name} {number}"))  # noqa: S311
        except (Exception, HangError) as error:
            raise AssertionError(f"{name}, input {number}: {error!r}") from error


@pytest.mark.parametrize("name", KINDS)
def test_a_few_inputs(tmp_path: Path, name: str) -> None:
    attempt(name, tmp_path, 25)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", KINDS)
def test_many_inputs(tmp_path: Path, name: str) -> None:
    attempt(name, tmp_path, KINDS[name][1])
