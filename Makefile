# Every target sets up what it needs, and no more: a fresh machine with python3.11 (with venv and headers), make and gcc
# suffices; to run without gcc plain Python decodes.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8000
WORKERS ?= 2
VENV := .venv
PY := $(VENV)/bin/python
# Python compiles what it imports; compiling all of it ahead would take a fifth of the time to the first answer.
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --no-compile
SERVICE := $(VENV)/.meterite-service
SETUP := $(VENV)/.meterite-setup
COMPILED := $(wildcard src/meterite/*/*.c src/meterite/*/*.h)
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header

.PHONY: help setup setup-system run test lint bench soak openapi lock

help:
	@echo "make run      start the service on http://127.0.0.1:8000 (PORT=8001: on another port)"
	@echo "make test     every test but the long ones"
	@echo "make soak     the long crash and load tests"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make bench    the benchmarks of docs/performance.md"
	@echo "make openapi  write openapi.json and docs/api.md from the program"
	@echo "make lock     pin requirements anew (needs uv)"

setup: $(SETUP)

# Stamps are made last, so that a set-up that was interrupted is done again. Where Debian's python3-venv was missing, the first
# try left a python without pip.
$(SERVICE): requirements.txt requirements/build.txt pyproject.toml setup.py $(COMPILED)
	test -x $(PY) -a -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements.txt -r requirements/build.txt
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# What tests and checks need on top.
$(SETUP): $(SERVICE) requirements/dev.txt
	$(PIP) --require-hashes -r requirements/dev.txt
	touch $@

# Programs that tests start and pip can't bring; done in a moment when they are there.
setup-system:
	@requirements/system.sh

run: $(SERVICE)
	$(VENV)/bin/meterite serve --port $(PORT)

test: setup setup-system
	$(PY) -m pytest -q -m "not soak" -n $(WORKERS) --dist loadfile

soak: setup
	$(PY) -m pytest -q -m soak --timeout=0

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: setup
	$(PY) -m benchmarks

openapi: setup
	$(VENV)/bin/meterite openapi

lock:
	$(LOCK) requirements/runtime.in -o requirements.txt
	$(LOCK) requirements/build.in -o requirements/build.txt
	$(LOCK) requirements/dev.in -o requirements/dev.txt
