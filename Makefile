# noetl-broker: `make help` lists what can be done. Needs make and Python >= 3.11; nothing else, root or not.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
SHELL := /bin/sh

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CODE   := src tests $(wildcard benchmarks)
# `make setup PYTHON=/path/to/python3.12` chooses the interpreter; `make test PYTEST_ARGS="-k loop"` narrows a run.
PYTHON ?=
PYTEST_ARGS ?=
PEERS := $(notdir $(patsubst %/requirements.txt,%,$(wildcard benchmarks/peers/*/requirements.txt)))

# `make setup LOCKED=1` installs what constraints.txt says, of everything; without it, the newest that pyproject.toml allows.
LOCKED ?=

# `make simulate SEEDS=100 START=4000` plays the seeds from 4000 to 4099.
SEEDS ?= 10000
START ?= 0
MINUTES ?= 10
RATE ?= 500

.PHONY: help setup demo test simulate chaos soak bench check format golden docs constraints clean

help: ## show this list
	@echo "noetl-broker. Start with: make demo"
	@echo
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with the program and its development tools

demo: $(STAMP) ## run an example playbook: own Postgres, broker and worker, nothing to configure
	@$(BIN)/noetl-broker demo

test: check ## check, then every test (starts its own Postgres)
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

chaos: $(STAMP) ## every fault at every point, in its long form; prints what was tried and what came of it
	NOETL_CHAOS=long $(BIN)/python -m pytest -n auto -m chaos $(PYTEST_ARGS)

# Small sizes with QUICK=1: whether everything runs. BENCH="drain core" narrows a run. Peers live in environments of their own.
bench: $(STAMP) ## every figure beside its bar and its peers: table, JSON and plot in benchmarks/results (QUICK=1: small)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@for peer in $(PEERS); do \
	  stamp=.venv-peers/$$peer/.installed; wanted=benchmarks/peers/$$peer/requirements.txt; \
	  if [ -e $$stamp ] && [ ! $$wanted -nt $$stamp ]; then continue; fi; \
	  $(BIN)/python -m venv --clear .venv-peers/$$peer \
	    && .venv-peers/$$peer/bin/python -m pip install --quiet --disable-pip-version-check -r $$wanted \
	    && touch $$stamp || echo "make: $$peer cannot be installed: it is left out" >&2; \
	done
	$(BIN)/python -m benchmarks $(BENCH) $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.page

simulate: $(STAMP) ## play 10,000 random executions through crashes and duplicates, each against a reference
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS) --start $(START)

# `make soak MINUTES=60 RATE=1000` keeps 1,000 transitions a second going for an hour, twice.
soak: $(STAMP) ## the same load for MINUTES, twice, the second time beside an old snapshot: does anything drift?
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) --rate $(RATE)

check: $(STAMP) ## lint, formatting and types; changes nothing
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

format: $(STAMP) ## mend formatting and what the linter can mend
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

golden: $(STAMP) ## record the histories of all examples anew: what the core decides from now on
	$(BIN)/python -m pytest -n auto tests/golden/record.py

docs: $(STAMP) ## write the generated pages anew: docs/playbook-reference.md, docs/tables.md
	$(BIN)/python -m pytest tests/docs/record.py

constraints: $(STAMP) ## write down in constraints.txt which versions .venv holds, for installs that come out the same
	@echo "# What the tests ran with; pip install -c constraints.txt, or make setup LOCKED=1. Made by make constraints." > constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check >> constraints.txt

clean: ## remove .venv, build results and caches
	rm -rf $(VENV) .venv-peers build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is newer than pyproject.toml exactly when .venv holds what it asks for.
# An interpreter is asked, not guessed from its name: a version manager's stand-in may exist and refuse to run.
$(STAMP): pyproject.toml
	@set -eu; \
	chosen=; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
	  if "$$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    chosen=$$candidate; \
	    if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then break; fi; \
	    lacking=$$candidate; chosen=; \
	  fi; \
	done; \
	if [ -z "$$chosen" ] && [ -n "$${lacking:-}" ]; then \
	  echo "make: $$lacking cannot create virtual environments (no ensurepip)." >&2; \
	  echo "make: on Debian or Ubuntu: apt-get install python3-venv. Or name another interpreter: make setup PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	if [ -z "$$chosen" ]; then \
	  echo "make: no Python >= 3.11 found$(if $(PYTHON), ($(PYTHON) is not one))." >&2; \
	  echo "make: install one, or name it: make setup PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "$(VENV): $$("$$chosen" --version) ($$chosen)"; \
	"$$chosen" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(LOCKED),-c constraints.txt) --editable '.[dev]'
	@touch $@
