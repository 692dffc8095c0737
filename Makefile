# Everything a fresh machine needs: Debian 12 with python3 (venv, pip), make and git.
# `make help` lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

STUDY  ?= digits
RUN    ?= runs/$(STUDY)
RAM    ?= 24MiB

.DEFAULT_GOAL := help
.PHONY: help venv demo example bench-search test test-slow faults fuzz lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(READY)  ## create .venv and install dse there, with the tested versions (once)

# The stamp comes last: an interrupted installation is taken up again by the next make.
# --use-pep517: Debian 12's pip would otherwise run setup.py of the packages that ship no wheel.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --use-pep517 --disable-pip-version-check \
	    -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)  ## run the shipped study, draw its report, pick a network for RAM=24MiB
	$(BIN)/dse run $(STUDY) --out $(RUN)
	$(BIN)/dse report $(RUN) --ram $(RAM)
	$(BIN)/dse pick $(RUN) --ram $(RAM)

example: $(READY)  ## rewrite the committed examples, reports/digits and reports/digits_joint
	$(BIN)/dse run digits
	$(BIN)/dse report runs/digits --out reports/digits --ram 24MiB
	$(BIN)/dse run digits_joint
	$(BIN)/dse report runs/digits_joint --out reports/digits_joint --ram 24MiB

bench-search: $(READY)  ## compare samplers, recorded and trained, rewrite benchmarks/search
	cd benchmarks/search && ../../$(BIN)/python compare.py --slow-seeds 5 --minutes 120
	cd benchmarks/search && ../../$(BIN)/python compare.py --study cifar4 --slow-seeds 5 --minutes 120
	cd benchmarks/search && ../../$(BIN)/python rivals.py --minutes 120
	cd benchmarks/search && ../../$(BIN)/python trained.py
	cd benchmarks/search && ../../$(BIN)/python overhead.py

# A file's tests stay in one process, which shares their fixtures.
test: lint  ## lint, types and the whole test suite, on all cores (a quarter of an hour on two)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-slow: $(READY)  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow

faults: $(READY)  ## stop, freeze and flood real processes and databases, and print what was lost
	$(BIN)/python -m pytest -m faults

fuzz: $(READY)  ## read more than 100,000 damaged files: no traceback, no hang
	$(BIN)/python -m pytest -m fuzz

lint: $(READY)  ## ruff and mypy alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

format: $(READY)  ## format the sources and apply the fixes of ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches and build products; .venv and runs/ stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
