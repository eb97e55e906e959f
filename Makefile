# `make demo` and `make test` need nothing but make and a Python >= 3.11 with venv; the environment is made on first use.
PY ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest
SCALE ?= full
PIP_ARGS ?=
PYTEST_ARGS ?=
JOBS ?= 2
BENCH_ARGS ?=
SLURM ?= slurm

BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.stamp-run
DEV_STAMP := $(VENV)/.stamp-dev

.DEFAULT_GOAL := help
.PHONY: help env demo test slurm bench oldest check docs clean distclean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: PY=$(PY) VENV=$(VENV) SCALE=$(SCALE) (full or small) PIP_ARGS=$(PIP_ARGS) PYTEST_ARGS=$(PYTEST_ARGS) JOBS=$(JOBS) (test processes)"

env: $(DEV_STAMP) ## make the environment with the development tools

demo: $(RUN_STAMP) ## train the four models on phantom slides, run them on unseen ones and score them (SCALE=small is quicker)
	$(BIN)/quadrat demo --scale $(SCALE) --out demo

test: $(DEV_STAMP) ## run the tests (PYTEST_ARGS="-m slow" and the like are passed on)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

slurm: $(DEV_STAMP) ## run the tests that start a SLURM on this machine (root; apt install slurm-wlm munge)
	$(BIN)/python -m pytest -m "$(SLURM)"

bench: $(DEV_STAMP) ## run every benchmark with --quick: does it still work? (BENCH_ARGS="--minutes 5": as many as that allows)
	$(BIN)/python benchmarks/run_all.py --jobs $(JOBS) $(BENCH_ARGS)

oldest: ## run the unit tests with the oldest release of each dependency, in an environment of its own
	$(PY) -m venv $(OLDEST)
	$(PY) tests/oldest.py pyproject.toml > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install $(PIP_ARGS) -c $(OLDEST)/constraints.txt -e '.[dev]'
	$(OLDEST)/bin/python -m pytest -n $(JOBS) --dist loadfile tests/unit $(PYTEST_ARGS)

check: $(DEV_STAMP) ## lint, formatting, types and the import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_layers.py

docs: $(DEV_STAMP) ## write docs/pipeline.md from the sections of a pipeline file
	$(BIN)/quadrat config docs > docs/pipeline.md

clean: ## remove caches, built files and the demo's output
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf $(VENV) $(OLDEST)

$(BIN)/python:
	$(PY) -m venv $(VENV)

# The stamps depend on pyproject.toml: a changed dependency list installs again, anything else does not.
$(RUN_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -e .
	touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) -e '.[dev]'
	touch $(RUN_STAMP) $@
