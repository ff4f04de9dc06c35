# `make demo` and `make test` need Python 3.11 or newer and nothing else; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/auditor-*)
READY := $(VENV)/.ready

.PHONY: demo test science bench gpu lint clean

demo: $(READY)
	$(BIN)/auditor demo --out demo

test: $(READY)
	$(BIN)/ruff check src tests plugins
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile -m "not science and not bench"
	echo $(PLUGINS) | OMP_NUM_THREADS=1 xargs -n 1 -P 2 $(BIN)/pytest

science: $(READY)
	$(BIN)/pytest -m science

bench: $(READY)
	$(BIN)/pytest -m bench -s

gpu: $(READY)
	$(BIN)/python -m tests.gpu.measure

lint: $(READY)
	$(BIN)/ruff check src tests plugins
	$(BIN)/mypy

$(READY): pyproject.toml $(PLUGINS:=/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' $(addprefix --editable ./,$(PLUGINS))
	touch $(READY)

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
