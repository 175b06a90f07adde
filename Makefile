# Everything runs from .venv in this checkout, made with nothing but python3 and its pip.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := constraints.txt
# pip reads these for the packages that build upswell itself, which -c does not reach.
PIP    := PIP_CONSTRAINT=$(PINS) PIP_BUILD_CONSTRAINT=$(PINS) PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq -c $(PINS)
# As pip does for what it installs; else each of the thousand processes of the tests may have to compile upswell for itself.
BYTECODE := $(BIN)/python -m compileall -q src/upswell
# Tests that run at once: one more than there are processors, as those of real processes mostly wait.
SIDE_BY_SIDE = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.DEFAULT_GOAL := help
.PHONY: help demo test suite test-ray check lint types laws fuzz bench sabotage chaos soak simulate clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## the main job: a map over 100 numbers, then a census of the standard library
	$(BIN)/upswell run examples/census.py
	$(BIN)/upswell run examples/library.py

test: lint ## ruff, then mypy --strict beside the whole test suite (ARGS="-k name" to choose, ARGS="-n 0" one after the other)
	@$(MAKE) --no-print-directory --jobs 2 types suite

suite: $(VENV)/.dev
	@$(BYTECODE)
	$(BIN)/python -m pytest -n $(SIDE_BY_SIDE) --dist worksteal $(ARGS)

test-ray: $(VENV)/.dev ## the engines' tests over Ray, on a cluster of three nodes on this machine (about ten minutes)
	@$(PIP) -e '.[dev,ray]'
	UPSWELL_TEST_RAY=1 $(BIN)/python -m pytest -k ray $(ARGS) tests/conformance

check: lint types ## ruff, mypy --strict, and the layers of the code
	$(BIN)/python -m pytest -qq tests/test_layers.py tests/test_tidy.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

laws: $(VENV)/.dev ## play many histories against the laws of the core, drawn afresh (EXAMPLES=2000)
	UPSWELL_EXAMPLES=$(or $(EXAMPLES),2000) $(BIN)/python -m pytest --timeout=0 tests/properties $(ARGS)

fuzz: $(VENV)/.dev ## send malformed frames to a server by every door (FRAMES=1000000 SEED=1)
	UPSWELL_FUZZ_FRAMES=$(or $(FRAMES),1000000) UPSWELL_FUZZ_SEED=$(or $(SEED),1) $(BIN)/python -m pytest tests/server/test_fuzz.py $(ARGS)

bench: $(VENV)/.bench ## measure against the peers (ONLY=name, WITH=ray,dask, ENGINE=ray, ARGS="--rounds 5")
	@$(BYTECODE)
	$(if $(WITH),$(PIP) -e '.[bench-cluster]')
	$(if $(filter ray,$(ENGINE)),$(PIP) -e '.[ray]')
	$(BIN)/python -m $(if $(filter ray,$(ENGINE)),benchmarks.cluster,benchmarks) $(if $(ONLY),--only $(ONLY)) $(if $(WITH),--with $(WITH)) $(ARGS)

sabotage: $(VENV)/.dev ## plant known bugs one by one; the suite must catch each
	$(BIN)/python tests/sabotage.py $(ARGS)

chaos: $(VENV)/.dev ## kill servers, zygotes, containers and clients under load (SEED=1 KILLS=300)
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),1) --kills $(or $(KILLS),300)

soak: $(VENV)/.dev ## two million inputs while weeks pass on the server's calendar (ARGS="--inputs 100000 --seconds 30")
	$(BIN)/python -m tests.soak $(ARGS)

simulate: $(VENV)/.runtime ## the autoscaler beside its rivals, in simulated time (ARGS="--seeds 20 --all", "--laws 2000")
	$(BIN)/python -m upswell.sim $(ARGS)

clean: ## remove .venv and everything that was generated
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a set of dependencies; changed pins or a changed pyproject install again.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "upswell needs Python 3.11 or newer: make PYTHON=python3.11")'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml $(PINS)
	@echo "installing upswell into $(VENV)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml $(PINS)
	@echo "installing upswell and its tests' tools into $(VENV)"
	@$(PIP) -e '.[dev,examples]'
	@touch $@

$(VENV)/.bench: $(VENV)/bin/python pyproject.toml $(PINS)
	@echo "installing upswell and its peers into $(VENV)"
	@$(PIP) -e '.[bench]'
	@touch $@
