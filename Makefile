# The two commands of the README: `make demo` runs the main job, `make test` runs everything that CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := .venv-models

# With it each of the many processes of the tests would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-models check unit bench bench-page chaos format clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp, so that the environment is made once and again only when the dependencies change.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# What is used is compiled when it is: most of what these bring along never is.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --group dev
	@touch $@

# An environment of its own: most people have no torch, and `make test` runs as they do. torch comes first, so that
# nothing else decides which build of it is taken.
$(MODELS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(MODELS)
	$(MODELS)/bin/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(MODELS)/bin/python -m pip install --quiet --disable-pip-version-check --group torch
	$(MODELS)/bin/python -m pip install --quiet --disable-pip-version-check --group models \
		--editable '.[sentence-transformers]'
	@touch $@

install: $(VENV)/.installed ## Make the virtual environment and install embedq in it

demo: $(VENV)/.installed ## Embed the standard library's docstrings and search them
	@$(BIN)/embedq demo

check: $(VENV)/.installed-dev ## Format, lint, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: $(VENV)/.installed-dev ## The fast tests only
	$(BIN)/python -m pytest -q tests/unit

# Tracing every line in every process that the tests start takes a third as long again: CI has the patience.
COVERAGE ?=

# While the checks run: else each of the four processes that share the tests would compile all of them for itself.
.PHONY: compiled
compiled: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest --collect-only -qq > /dev/null 2>&1 || true

test: $(VENV)/.installed-dev ## Checks, then every test; with COVERAGE=yes, as CI does it, also what of the code they reach
	@$(MAKE) --no-print-directory -j 2 check compiled
ifeq ($(COVERAGE),)
	$(BIN)/python -m pytest -n 4 --dist worksteal
else
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n 4 --dist worksteal
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=95
endif

# Which questions, and how large: make bench BENCH="--only search startup", BENCH=--large, BENCH=--quick.
BENCH ?=

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@

$(VENV)/.installed-model: $(VENV)/.installed-bench
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench-model
	@touch $@

bench: $(VENV)/.installed-model ## Measure embedq beside its peers, 40 minutes; figures go to bench.json
	$(BIN)/python -m benchmarks --out bench.json $(BENCH)

bench-page: ## Put the figures of bench.json into docs/performance.md
	$(BIN)/python -m benchmarks.page bench.json
test-models: $(MODELS)/.installed ## Tests with the weights of a real model: installs torch, takes minutes
	$(MODELS)/bin/python -m pytest tests/models

chaos: $(VENV)/.installed-dev ## Kill workers, producers and Redis over 24,000 items, and under an operator, and count
	PYTHONPATH=tests $(BIN)/python -m chaos.driver --seed 1 2 3
	PYTHONPATH=tests $(BIN)/python -m chaos.console_driver --seed 1 2 3 4 5 6 7 8

format: $(VENV)/.installed-dev ## Rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(MODELS) bench.json .mypy_cache .ruff_cache .pytest_cache .coverage .coverage.* dist
