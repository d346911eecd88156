# Every target sets itself up on a fresh machine: Python 3.11+ with venv, and pip's package index, are all it
# takes. Options for pip, such as another index for CPU builds of torch: make test PIP_ARGS="..."

PYTHON   ?= python3
PIP_ARGS ?=
VENV     := .venv
BIN      := $(VENV)/bin
# constraints.txt is not a nicety: unpinned, `pip install torch` pulls gigabytes of CUDA libraries on Linux.
PIP      := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint docs format clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.installed  ## register the bundled sample pairs; pictures go to out/
	@$(BIN)/python examples/demo.py

test: lint docs  ## everything a change must pass
	@$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev  ## ruff and mypy
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "unformatted files: run 'make format'" >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary

docs: $(VENV)/.installed-dev  ## the documentation, in docs/_build/html
	@$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "documentation: docs/_build/html/index.html"

format: $(VENV)/.installed-dev  ## format the code and fix what ruff can fix
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

clean:  ## remove what was built, but not the virtual environment
	rm -rf build dist out docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamps are renewed when the requirements change. One depends on the other so that `make -j` never runs
# two installers in one environment.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up $(VENV) (once; most of it is torch) ..."
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "adding the development tools ..."
	@$(PIP) -e '.[dev]'
	@touch $@
