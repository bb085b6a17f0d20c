# Every target makes the environment it needs, in .venv; nothing here deletes results.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
OLDEST := .venv-minimum
TORCH  := $(shell sed -n 's/^ *"torch>=\([0-9.]*\)".*/\1/p' pyproject.toml)

FIGURE ?= all
PRESET ?= quick
JOBS   ?= 2
WORKERS ?= 2
OUTPUT ?= outputs
ARGS   ?=

export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup figures report docs status survey-packages survey-sample survey test test-slow test-grid test-minimum coverage lint hooks faults fuzz calibrate shortcut statements benchmark lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the environment in .venv from the lock file

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --no-build-isolation --editable .
	@touch $@

figures: $(READY) ## train what is missing, test, draw: FIGURE=1 PRESET=paper JOBS=2 OUTPUT=outputs ARGS='key=value ...'
	$(BIN)/autospec figures --figure $(FIGURE) --preset $(PRESET) --jobs $(JOBS) output_dir=$(OUTPUT) $(ARGS)

report: $(READY) ## write one page of all runs, figures and tests: OUTPUT=outputs
	$(BIN)/autospec report $(OUTPUT)

status: $(READY) ## say how far a sweep is: done, running, failed, stale: OUTPUT=outputs
	$(BIN)/autospec status $(OUTPUT)

test: $(READY) ## run the tests, but for the slow ones, in WORKERS=2 processes
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not slurm" $(ARGS)

test-slow: $(READY) ## run the slow tests, those on a local SLURM among them, in WORKERS=2 processes
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "slow or slurm" --ignore=tests/survey $(ARGS)

docs: $(READY) ## build the documentation into site/, and stop at a broken link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

survey-packages: $(READY) ## install the packages of the survey's architectures in .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements-survey.lock

survey-sample: survey-packages ## record a sample of foreign architectures, and the example that needs one of them
	$(BIN)/python -m pytest -n $(WORKERS) tests/survey -m "not slow"
	$(BIN)/python -m pytest tests/test_examples.py::test_eeg

survey: survey-packages ## record all of them and write docs/survey.md (ten minutes)
	$(BIN)/python -m pytest tests/survey -m slow --survey-page docs/survey.md $(ARGS)

test-grid: $(READY) ## run every cell of the grid for two epochs, and measure floors on every instruction set (long)
	AUTOSPEC_WHOLE_GRID=1 $(BIN)/python -m pytest -n $(WORKERS) tests/experiments/test_grid_runs.py tests/recording/test_measured_floor.py

test-minimum: $(OLDEST)/.ready ## run the library's tests on the oldest torch that is allowed (an environment of 5 GB)
	$(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" tests/spectra tests/capture tests/recording tests/store

$(OLDEST)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	grep -Ev '^(torch|sympy|setuptools)==' requirements.lock > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check --no-compile -c $(OLDEST)/constraints.txt \
		--editable '.[all]' torch==$(TORCH) hypothesis pytest pytest-xdist scipy setuptools transformers
	@touch $@

coverage: $(READY) ## run the tests of make test and say which lines none of them reaches
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not slurm" --cov --cov-report=term-missing:skip-covered $(ARGS)

lint: $(READY) ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

hooks: $(READY) ## check style, types and imports at every commit
	$(BIN)/pre-commit install

faults: $(READY) ## kill a sweep at 100 random moments and see whether anything is lost and, for figures, 100 more; then in odd environments (two hours)
	$(BIN)/python scripts/faults.py $(ARGS)
	$(BIN)/python scripts/figure_faults.py
	$(BIN)/python scripts/environments.py

fuzz: $(READY) ## damage 5,000 files of every kind and see what their readers make of it (ten minutes): ARGS='--inputs 500'
	PYTHONPATH=tests $(BIN)/python -m fuzz.campaign $(ARGS)

calibrate: $(READY) ## run thousands of studies without a difference through every test (a quarter of an hour): ARGS='--docs docs' for the page
	$(BIN)/python scripts/calibrate.py --output-dir $(OUTPUT) $(ARGS)

shortcut: $(READY) ## plant a shortcut in simulated data and see how often it is found (a quarter of an hour)
	$(BIN)/python scripts/shortcut.py --output-dir $(OUTPUT) $(ARGS)

statements: $(READY) ## put the paper's statements to the test over 20 seeds (ten minutes)
	$(BIN)/python scripts/statements.py --output-dir $(OUTPUT) $(ARGS)

benchmark: $(READY) ## time every engine against plain training, other libraries and what a user would write (hours): ARGS='--models mlp'
	$(BIN)/python scripts/benchmark.py $(ARGS)

lock: ## write requirements.lock anew from pyproject.toml, in an environment of its own
	$(PYTHON) scripts/make_lock.py
