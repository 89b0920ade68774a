# Everything runs in .venv, which is made on first use. PYTHON: 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check lint types clean

demo: .venv/installed
	$(BIN)/python -m pipeline +release=zoo

test: .venv/installed
	$(BIN)/python -m pytest

check: lint types test

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed
	$(BIN)/mypy

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[zoo,dev]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
