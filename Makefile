# `make help` lists the targets. Needs make and Python >= 3.11; works as root and as a normal user.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
SHELL := /bin/sh
# Images of Python often set it. Without compiled files, each command compiles the program anew: 0.2 s.
unexport PYTHONDONTWRITEBYTECODE

# COMPILED=1 with setup, test, simulate, chaos, bench or soak: the hot path compiled to machine code. It needs a C compiler. The
# program is then a wheel in .venv-compiled, made again when a source is newer. src never gets a compiled module.
COMPILED ?=
COMPILE  := HATCH_BUILD_HOOK_ENABLE_CUSTOM=true

VENV   := $(if $(COMPILED),.venv-compiled,.venv)
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TYPES  := $(VENV)/.types
READY  := $(if $(COMPILED),$(VENV)/.compiled,$(STAMP))
PROGRAM := $(VENV)/.program
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Plain: the checkout itself.
INSTALL := $(if $(COMPILED),$(COMPILE) $(PIP) install,$(PIP) install --editable)
PYTEST  := $(BIN)/python -m pytest $(if $(COMPILED),-o pythonpath=.)
IN_BUCKET := $(addprefix tests/,daemon/lanes daemon/iterators daemon/throttles daemon/undo daemon/reaper store/test_mail.py store/test_throttles.py)
CODE   := src tests docs hatch_build.py $(wildcard benchmarks)
SPHINX = $(BIN)/python -m sphinx --quiet --nitpicky --fresh-env --jobs auto -d build/site-cache
# `make setup PYTHON=/path/to/python3.12` chooses the interpreter; `make test PYTEST_ARGS="-k loop"` narrows a run.
PYTHON ?=
PYTEST_ARGS ?=
PEERS := $(notdir $(patsubst %/requirements.txt,%,$(wildcard benchmarks/peers/*/requirements.txt)))

# `make setup LOCKED=1` installs the versions of constraints.txt; without it, the newest that pyproject.toml allows.
LOCKED ?=

# `make simulate SEEDS=100 START=4000` runs the seeds 4000 to 4099. Without START, half are plain, the others of each other kind.
# SEEDS=100000 is the long form. `make chaos` runs 5,000 seeds on a real database.
SEEDS ?= 10000
START ?=
SITE_VERSION ?= latest
MINUTES ?= 10
SEED ?= 1
COUNT ?= 200
RATE ?= 500

.PHONY: help setup dev demo test test-in-bucket test-matrix test-pinned mutants simulate chaos soak bench check lint format golden site site-links pictures changelog wheels release-check constraints clean

help: ## show this list
	@echo "noetl-broker. Start with: make dev"
	@echo
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with the program and its development tools

# Before `make setup`, these two install the program without the development tools: half the time.
# The data of dev are in .noetl/ of the checkout; FRESH=1 begins without those of earlier runs.
dev: $(if $(wildcard $(STAMP)),$(STAMP),$(PROGRAM)) ## run Postgres, broker, worker and console for playbooks/, until Ctrl-C
	@$(BIN)/noetl-broker dev playbooks --home . $(if $(FRESH),--fresh)

demo: $(if $(wildcard $(STAMP)),$(STAMP),$(PROGRAM)) ## run example playbooks with an own Postgres, broker and worker
	@$(BIN)/noetl-broker demo

# mypy runs beside the tests, because they do not use all of the cores. Its output comes last.
test: $(READY) $(if $(COMPILED),,lint) ## run check and every test; starts its own Postgres
ifneq ($(COMPILED),)
	$(PYTEST) -n auto $(PYTEST_ARGS)
else
	@$(BIN)/mypy >$(TYPES) 2>&1 & types=$$!; trap 'kill $$types; exit 130' INT TERM; \
	echo "$(PYTEST) -n auto $(PYTEST_ARGS)"; $(PYTEST) -n auto $(PYTEST_ARGS); tests=$$?; \
	$(if $(PYTEST_ARGS),,[ $$tests = 0 ] && { $(MAKE) --no-print-directory test-in-bucket test-pinned; tests=$$?; };) \
	wait $$types; checked=$$?; echo "mypy:"; cat $(TYPES); exit $$((tests ? tests : checked))
endif

test-in-bucket: $(READY) ## run the tests of turns and jobs in one bucket of an installation with four
	NOETL_TEST_BUCKET=2 $(PYTEST) -n auto $(IN_BUCKET)

test-pinned: $(READY) ## run the same tests where each table is an empty shell beside its shard, as on Citus
	NOETL_TEST_BUCKET=2 NOETL_TEST_PINNED=1 $(PYTEST) -n auto $(IN_BUCKET)

# QUICK=1 runs a selection. `.venv/bin/python -m tests.matrix --list` lists what this machine has.
test-matrix: $(STAMP) ## test Python 3.11 to 3.14 with Postgres 15 to 18, as far as this machine has them
	$(BIN)/python -m tests.matrix $(if $(QUICK),--quick)

chaos: $(READY) ## test every fault at every point; print what was tried
	NOETL_CHAOS=long $(PYTEST) -n auto -m chaos $(PYTEST_ARGS)

# QUICK=1 shows that everything runs, not how fast. BENCH="drain core" narrows a run. Each peer has its own environment.
# Table, JSON and plot go to benchmarks/results.
bench: $(READY) ## measure everything beside its bar and its peers; QUICK=1 for small sizes
	$(INSTALL) '.[dev,bench]'
	@for peer in $(PEERS); do \
	  stamp=.venv-peers/$$peer/.installed; wanted=benchmarks/peers/$$peer/requirements.txt; \
	  if [ -e $$stamp ] && [ ! $$wanted -nt $$stamp ]; then continue; fi; \
	  $(BIN)/python -m venv --clear .venv-peers/$$peer \
	    && .venv-peers/$$peer/bin/python -m pip install --quiet --disable-pip-version-check -r $$wanted \
	    && touch $$stamp || echo "make: $$peer cannot be installed: it is left out" >&2; \
	done
	$(BIN)/python -m benchmarks $(BENCH) $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.performance_page

# `make mutants SEED=2` draws others. The first run of the tests, with their coverage, tells which tests reach which line.
mutants: $(STAMP) ## change the program in COUNT places, and report which changes no test finds
	$(PYTEST) -n auto -q --cov --cov-context=test --cov-report= --junitxml=.coverage.xml $(PYTEST_ARGS)
	$(BIN)/python -m tests.mutation --seed $(SEED) --count $(COUNT) --coverage .coverage --durations .coverage.xml --out mutants.json

simulate: $(READY) ## run 10,000 random executions with lost turns and duplicates against a reference
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS) $(if $(START),--start $(START))

# `make soak MINUTES=60 RATE=1000` runs 1,000 transitions a second for an hour, twice.
soak: $(READY) ## run one load for MINUTES, twice, and report what drifts
	$(INSTALL) '.[dev,bench]'
	NOETL_THROTTLED_SECONDS=600 $(BIN)/python -m pytest -q -n 0 -p no:cacheprovider tests/chaos/test_throttles.py
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) --rate $(RATE)

check: lint ## check lint, formatting and types; change nothing
	$(BIN)/mypy

# actionlint would run two other programs where they are installed, and find other things there.
lint: $(STAMP)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/actionlint -shellcheck= -pyflakes=
	$(BIN)/zizmor --offline --pedantic --quiet --no-progress .github
	@draft=$$($(BIN)/towncrier build --draft --version next 2>&1) || { echo "$$draft"; exit 1; } # changelog.d

format: $(STAMP) ## fix formatting and what the linter can fix
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

golden: $(STAMP) ## record the histories of all examples again
	$(BIN)/python -m pytest -n auto tests/golden/record.py

# Sphinx reads all pages anew: it gives no warning about a page that it knows. A version of the site is a folder.
site: $(STAMP) ## build the docs site into build/site/latest, or SITE_VERSION=v0.1
	rm -rf build/site/$(SITE_VERSION)
	$(SPHINX) -W --keep-going -b html docs build/site/$(SITE_VERSION)
	$(BIN)/python -m docs.generate.versions build/site

site-links: $(STAMP) ## check the links of the docs to other sites
	$(SPHINX) -b linkcheck docs build/site-links

pictures: $(STAMP) ## draw the pictures of the docs again
	$(BIN)/python -m tests.docs.pictures

changelog: $(STAMP) ## move the fragments of changelog.d to CHANGELOG.md, as those of VERSION
	$(BIN)/towncrier build --yes --version $(VERSION)

wheels: $(STAMP) ## build into dist: the sdist, a plain wheel, one compiled for this Python and platform
	$(BIN)/python -m tests.packaging.release_check --build-only

# `make release-check PYTHONS="3.11 3.13"` names the Pythons of the compiled wheels.
release-check: $(STAMP) ## build and check what a release has: sdist, wheels for each Python here, SBOM
	$(INSTALL) '.[dev,release]'
	$(BIN)/python -m tests.packaging.release_check $(addprefix --python ,$(PYTHONS))

# Take the oldest Python: it has the oldest Sphinx, and every Python can install that.
constraints: $(STAMP) ## write the versions of .venv to constraints.txt
	@echo "# The versions that the tests ran with: pip install -c constraints.txt, or make setup LOCKED=1. Made by make constraints." > constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check >> constraints.txt

clean: ## remove environments, build results and caches
	rm -rf .venv .venv-compiled .venv-peers .venv-matrix build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* mutants.json
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than pyproject.toml if .venv is up to date.
$(STAMP): pyproject.toml
	@$(create_venv)
	$(PIP) install $(if $(LOCKED),-c constraints.txt) $(if $(COMPILED),,--editable) '.[dev]'
	@touch $@

# Its time is that of the beginning: a source that changes meanwhile is newer.
ifneq ($(COMPILED),)
$(READY): $(STAMP) hatch_build.py $(shell find src migrations playbooks deploy/roles.sql -type f ! -name '*.pyc')
	@touch $@.begun
	$(INSTALL) --no-deps --force-reinstall .
	@$(BIN)/noetl-broker --version | grep compiled
	@mv $@.begun $@
endif

$(PROGRAM): pyproject.toml
	@$(create_venv)
	$(PIP) install $(if $(LOCKED),-c constraints.txt) --editable '.[embedded,console]'
	@touch $@

# Creates .venv, unless it has the program already.
# Each interpreter is run: a shim of a version manager may exist and refuse.
define create_venv
	set -eu; \
	if [ $(PROGRAM) -nt pyproject.toml ] && [ -z "$(PYTHON)" ]; then exit 0; fi; \
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
endef
