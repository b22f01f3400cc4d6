# Two commands do everything on a fresh machine: `make demo` and `make test`.
#
#   GENIE_VENV=DIR  another virtual environment than .venv
#   PYTHON=python   the interpreter to make it from
#   TORCH=...       another torch than the pinned one, as pip spells it (see .ci/setup)

VENV := $(or $(GENIE_VENV),.venv)
BIN  := $(VENV)/bin
# One test process more than CPUs, because daemons are waited for much of the time; at most four:
# each one loads torch.
WORKERS ?= $(shell n=$$(($$(nproc) + 1)); echo $$((n > 4 ? 4 : n)))
export GENIE_VENV PYTHON TORCH

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage test-all native-test fuzz check format opinfo compatibility semantics bench golden-update \
	locks clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make or refresh the virtual environment
	@.ci/setup

demo: setup ## compile the digits example, execute its plan, compare with the model itself
	@.ci/demo

test: setup ## every test but the long sweeps; fails under 85 % branch coverage
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -m "not sweep" -n $(WORKERS) --dist loadfile --no-loadscope-reorder -q --cov --cov-report= $(ARGS)

coverage: ## what the last test run left uncovered
	$(BIN)/coverage report

test-all: setup ## the long sweeps too
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -q --cov --cov-report= $(ARGS)

native-test: setup ## the C++ tests, the fuzzers for a short while, ThreadSanitizer
	$(BIN)/python -m pytest tests/native -q $(ARGS)

fuzz: setup ## the fuzzers for FUZZ_SECONDS each (default 600)
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) $(BIN)/python -m pytest tests/native -q -k fuzz $(ARGS)

check: setup ## style, types, the import law, lock files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/locks.py check

format: setup ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

opinfo: setup ## torch's own operator tests through every path; ARGS=--write rewrites docs/coverage.md
	@$(BIN)/python -m tests.opinfo $(ARGS)

semantics: setup ## evaluate the semantics on the corpus, rewrite docs/semantics-evaluation.md
	$(BIN)/python -m pip install -q --no-deps -r tests/semantics/corpus/requirements.txt
	$(BIN)/python -m tests.semantics.evaluate $(or $(ARGS),--write)

bench: setup ## measure; ARGS names suites and options
	$(BIN)/genie bench $(ARGS)

compatibility: setup ## attempt every family and program, rewrite docs/compatibility.md
	$(BIN)/python -m tests.compat.sweep $(ARGS)

golden-update: setup ## rewrite the golden files that the tests compare with; review the diff
	$(BIN)/python -m pytest -m "not sweep" -q --snapshot-update $(ARGS)
	git diff --stat -- golden

locks: setup ## resolve the lock files anew; ARGS=--upgrade moves every pin
	$(BIN)/python .ci/locks.py write $(ARGS)

clean: ## remove what was built, but not the virtual environment
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f .coverage .coverage.*
