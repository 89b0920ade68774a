# Everything runs in .venv, which is made on first use. PYTHON: 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow check lint types clean

demo: .venv/installed
	$(BIN)/python -m pipeline +release=zoo

# One process a core, a file of tests in one of them: the files share their fixtures.
test: .venv/installed
	$(BIN)/python -m pytest -m "not slow" --numprocesses=auto --dist=loadfile

# Every opset on the whole zoo, large weights, the benchmarks: what takes more than ten seconds a test.
slow: .venv/installed
	$(BIN)/python -m pytest -m slow --numprocesses=auto --dist=loadfile

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
