# The whole loop: run, test, lint, bench. `make env` prepares .venv and does nothing when it is up to date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PORT ?= 8080
HOST ?= 127.0.0.1
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help env env-dev run test lint format bench eval soak docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: $(VENV)/.serving ## .venv with what serving needs, and the orbweaver command

$(VENV)/bin/python:
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.serving: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what serving needs, the local engine's torch among it (two minutes with a warm package cache)"
	@$(PIP) -e ".[cpu,providers,otel,merge]"
	@touch $@

env-dev: env $(VENV)/.dev ## the same, with training and test packages

$(VENV)/.dev: $(VENV)/.serving
	@echo "installing training and test packages (torch among them: a few minutes)"
	@$(PIP) -e ".[cpu,providers,otel,merge,train,dev]"
	@touch $@

run: env ## start the gateway on PORT (default 8080) with the bundled zoo
	@exec $(BIN)/orbweaver serve --host $(HOST) --port $(PORT)

test: env env-dev ## all tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTS)

lint: env-dev ## format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: env-dev ## rewrite the layout of all files
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: env-dev ## speed and memory, as JSON with machine and commit, under bench-results/
	@$(BIN)/python -m tests.bench

eval: env-dev ## route recorded answers of real LLMs end to end over HTTP; pages under reports/
	@$(BIN)/python -m tests.eval

soak: env-dev ## twenty minutes of abuse; says what leaked, was lost or counted twice
	@$(BIN)/python -m tests.soak

docs: env-dev ## regenerate the generated pages under docs/
	@$(BIN)/python -m docs.build

clean: ## remove the environment and caches (state in .orbweaver stays)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
