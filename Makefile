# `make demo` and `make test` need Python 3.11 or newer and nothing else; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test science bench gpu lint clean

demo: $(READY)
	$(BIN)/auditor demo --out demo

test: $(READY)
	$(BIN)/ruff check src tests
	$(BIN)/mypy
	$(BIN)/pytest -m "not science and not bench"

science: $(READY)
	$(BIN)/pytest -m science

bench: $(READY)
	$(BIN)/pytest -m bench -s

gpu: $(READY)
	$(BIN)/python -m tests.gpu.measure

lint: $(READY)
	$(BIN)/ruff check src tests
	$(BIN)/mypy

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache
