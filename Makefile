# Everything a newcomer types. `make` alone says what there is.
SHELL := /bin/bash
VENV := .venv
PYTHON ?= python3
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

.DEFAULT_GOAL := help
.PHONY: help setup repro test test-all lint ui lock

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

setup: $(VENV)/.installed  ## Create .venv from the hash-pinned requirements, with the command wsol (once)

# uv installs in seconds; where it cannot be had, pip does the same more slowly.
$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python >= 3.11 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make setup PYTHON=python3.12" >&2; exit 1; }
	@command -v git >/dev/null || { echo "error: git is needed and was not found" >&2; exit 1; }
	@echo "Setting up $(VENV) (about 3 GB of packages, once) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@if $(VENV)/bin/python -m pip install -q --disable-pip-version-check uv 2>/dev/null; \
	  then $(VENV)/bin/uv pip install --python $(VENV)/bin/python --require-hashes -r requirements.lock; \
	  else $(VENV)/bin/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock; fi
	@$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

repro: setup  ## Run the whole pipeline: download, preprocess, train, evaluate, ablate, report
	@dvc repro
	@wsol summary

test: setup  ## Run the tests that take minutes
	@python -m pytest -m "not slow"

test-all: setup  ## Run the rest of the tests: real DVC projects, kills, full disks, many images
	@python -m pytest -m slow

lint: setup  ## ruff and mypy
	@ruff check . && ruff format --check . && mypy

ui: setup  ## Browse the runs: MLflow on 127.0.0.1:5000
	@wsol ui

lock: setup  ## Refresh requirements.lock from pyproject.toml
	@uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header -q -o requirements.lock
