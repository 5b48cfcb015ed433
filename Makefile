# Two commands on a fresh machine: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
PORT   ?= 4200
SERVE_PORT ?= 3000
PRESET ?=
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install run repro real ablation test test-slow lint format types bench up down serve clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## make .venv with the pinned packages

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

run: install ## the whole chain on the embedded cohort: table of results, HTML report, Bento (PRESET=name)
	$(BIN)/python -m flows pretrain $(if $(PRESET),--preset $(PRESET))

repro: install ## the same chain through DVC alone
	$(BIN)/dvc repro

real: install ## the whole chain on real CTs and reports in ../shared/data/sts_cohort
	$(BIN)/python -m flows pretrain --preset sts

ablation: install ## train and compare the arms of flows/ablation/ablations.yaml
	$(BIN)/python -m flows.ablation

lint: install ## style, layout and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: install ## static types
	$(BIN)/mypy

test: lint types ## lint, types and every test that is not slow
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: install ## the slow tests
	$(BIN)/python -m pytest -m slow

bench: install ## the benchmarks (they print figures and assert nothing)
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

format: install ## rewrite the source in the house's format
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

up: install ## start a Prefect server and a worker, deploy prefect.yaml (PORT=4200)
	$(BIN)/python -m flows up --port $(PORT)

down: ## stop what `up` started
	$(BIN)/python -m flows down

serve: install ## serve the packaged encoders (SERVE_PORT=3000, TRITON=host:port)
	$(BIN)/python -m serving.server --port $(SERVE_PORT) $(if $(TRITON),--triton $(TRITON))

clean: ## remove what runs made (data, models, caches), not the environment
	rm -rf artifacts restricted logs .velvet .prefect .bentoml
