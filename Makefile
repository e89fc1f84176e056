# make demo, make test: each does all of its own set-up. Needed: Python 3.11 or newer with pip, make.
#
#   PYTHON=python3.12   the interpreter that the environment is made with
#   PYTEST_ARGS="-k x"  further arguments for pytest

PYTHON ?= python3
PYTEST_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo demo-experiment test check lint lock clean

help:  ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(VENV)/.runtime  ## train an ensemble on generated streets, test in adverse weather; see demo/
	scripts/demo.sh $(BIN)/python

demo-experiment: $(VENV)/.runtime  ## both experiments on instance uncertainty, small; see experiments/streets/
	PYTHON=$(BIN)/python scripts/instance_uncertainty/streets.sh

# One process per core with one thread each is faster than one process with all cores.
test: $(VENV)/.dev  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

check: lint test  ## lint, types and tests: what a change has to pass

lint: $(VENV)/.dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: $(VENV)/.dev  ## write the installed versions to requirements.lock
	{ sed '/^[^#]/d' requirements.lock; $(PIP) freeze | sed 's/+.*//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:  ## remove the environment, caches and the demo's files
	rm -rf $(VENV) .mypy_cache .ruff_cache demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are newer than the requirements that they were installed from.
$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(PIP) install -r requirements-dev.txt
	touch $@

$(VENV)/.runtime: requirements.txt | $(BIN)/pip
	@echo "Installing into $(VENV); the first time this downloads several GB where torch comes with CUDA"
	$(PIP) install -r requirements.txt
	touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "SegDoubt needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." \
	    "Name another one: make PYTHON=python3.12"; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	  $(PYTHON) -m venv $(VENV); \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -m venv --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install pip; \
	else \
	  echo "$(PYTHON) has neither ensurepip nor pip, so no environment can be made." \
	    "On Debian and Ubuntu: apt install python3-venv; or name another one: make PYTHON=python3.12"; \
	  exit 1; \
	fi
