# `make demo` and `make test` need Python 3.11 or newer and nothing else; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/auditor-*)
READY := $(VENV)/.ready
PYTHON_FILES := src tests plugins docs
GPU_FILE ?= gpu.jsonl
MAIN_JOB := tests/audit tests/builtins/metrics tests/checkpoint tests/cli tests/diffusion tests/erase tests/policy tests/study tests/testing
# tests/conftest.py has the longest files first
MAIN := OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not science and not bench"

.PHONY: demo test beside docs lowest coverage science bench gpu gpu-wheels lint format clean

demo: $(READY)
	$(BIN)/auditor demo --out demo

# types and the plugins' tests run beside the main job, and are shown after it
test: $(READY)
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	@mkdir -p build; $(MAKE) --no-print-directory beside >build/beside.txt 2>&1 & beside=$$!; \
	$(MAIN) --durations 40; main=$$?; \
	wait $$beside; other=$$?; cat build/beside.txt; test $$main = 0 -a $$other = 0

beside: $(READY)
	$(BIN)/lint-imports
	$(BIN)/mypy
	for plugin in $(PLUGINS); do OMP_NUM_THREADS=1 $(BIN)/pytest $$plugin || exit 1; done

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
	$(MAIN) --cov --cov-report term:skip-covered

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
