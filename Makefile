# `make demo` and `make test` need Python 3.11 or newer and nothing else; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/auditor-*)
READY := $(VENV)/.ready
PYTHON_FILES := src tests plugins docs
GPU_FILE ?= gpu.jsonl
MAIN_JOB := tests/audit tests/builtins/metrics tests/checkpoint tests/cli tests/diffusion tests/erase tests/policy tests/study tests/testing

.PHONY: demo test docs lowest coverage science bench gpu gpu-wheels lint format clean

demo: $(READY)
	$(BIN)/auditor demo --out demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --durations 40 -m "not science and not bench"
	echo $(PLUGINS) | OMP_NUM_THREADS=1 xargs -n 1 -P 2 $(BIN)/pytest

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

science: $(READY)
	$(BIN)/pytest -m science

bench: $(READY)
	$(BIN)/pytest -m bench -s

# the first minutes on a GPU (docs/gpu.md); where there is no .venv, with what `make gpu-wheels` brought
gpu:
	$(if $(wildcard $(READY)),$(BIN)/python,PYTHONPATH=src:build/gpu-wheels $(PYTHON)) -m tests.gpu $(GPU_FILE)

gpu-wheels:
	$(PYTHON) -m tests.gpu.wheels build/gpu-wheels

lint: $(READY)
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)

coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile -m "not science and not bench" --cov --cov-report term:skip-covered

# the main job on exactly the lowest versions that pyproject.toml allows
lowest:
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet packaging
	build/lowest/bin/python tests/lowest.py > build/lowest.txt
	build/lowest/bin/python -m pip install --quiet --constraint build/lowest.txt --editable '.[fid,study]' $(addprefix --editable ./,$(PLUGINS)) hypothesis mpmath pytest pytest-timeout
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest -o filterwarnings=default $(MAIN_JOB)

$(READY): pyproject.toml $(PLUGINS:=/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' $(addprefix --editable ./,$(PLUGINS))
	touch $(READY)

clean:
	rm -rf $(VENV) build/lowest build/lowest.txt build/site demo .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
