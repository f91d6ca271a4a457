# The commands of the course. `make` alone lists them.
# Works with GNU make 3.81 and newer, on Linux and macOS.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help course gallery test lint lab clean

help: ## list the commands
	@echo "make COMMAND, where COMMAND is one of:"
	@sed -n 's/^\([a-z]*\):[^#]*## /\1|/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS='|' read -r name text; do printf '  %-8s %s\n' "$$name" "$$text"; done
	@echo "Variables: PYTHON=$(PYTHON) (3.11 or newer), JOBS=$(JOBS) (test processes)"

course: $(STAMP) ## train, evaluate, run the notebooks; writes runs/course/index.html
	$(BIN)/python -m wsfcn.study.course

gallery: $(STAMP) ## each executed notebook as a page of its own: runs/gallery/index.html
	$(BIN)/python -m wsfcn.study.gallery

test: $(STAMP) ## run every test, the notebooks in their smoke profile included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(STAMP) ## formatting, lint, types, notebook pairs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m wsfcn.study.pairs check

lab: $(STAMP) ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=notebooks

clean: ## remove the environment and caches; runs/ is kept
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Torch comes first and alone: whichever build the package index offers (CPU or CUDA) is kept.
# The stamp is written last, so an interrupted installation is taken up again.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
		echo "No '$(PYTHON)' here: install Python 3.11 or newer, or say make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "No virtual environment could be made in $(VENV); on Debian: apt install python3-venv"; exit 1; }
	@echo "1/3 torch: the largest download"
	$(PIP) install --quiet -c constraints.txt torch
	@echo "2/3 the package, the notebooks, the tests"
	$(PIP) install --quiet -c constraints.txt -e '.[notebooks,coco,cluster,dev]'
	@echo "3/3 the dense CRF, compiled here"
	@if command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null; then \
		$(PIP) install --quiet -c constraints.txt -e '.[crf]' \
			|| echo "The dense CRF could not be compiled: all works but the CRF steps."; \
	else \
		echo "No C++ compiler here: the dense CRF (extra 'crf') is left out; all else works."; \
	fi
	$(BIN)/python -m ipykernel install --sys-prefix --name wsfcn --display-name 'Python 3 (wsfcn)' >/dev/null
	@touch $@
	@echo "The environment in $(VENV) is ready."
