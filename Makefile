# make demo          the embedded experiment, from a bare checkout to a report
# make test          lint, types, architecture, and the quick tests (at most 12 minutes on two cores)
# make test-slow     the long proofs (at most 60 minutes)
# make test-explore  the property tests with new examples, and the fuzzers (about 20 minutes); what fails becomes an @example

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TURNS ?= 1 2 3 4 5 6
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test test-slow test-explore lint clean

demo: $(VENV)/.demo
	$(BIN)/securekd run

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -n 2 -m "not slow and not explore"

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m "slow and not explore"

test-explore: $(VENV)/.test
	for turn in $(TURNS); do \
	  HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -n 2 -m "explore or (hypothesis and not slow)" || exit 1; \
	done

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[train,report]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[test]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
