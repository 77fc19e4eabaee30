# make demo         charts in a few seconds, without torch       make test   the whole suite
# make demo-engine  the same tour on the real engine, on a CPU   make lint   style, types, import rules
# make serve        an OpenAI-compatible server on a CPU         make clean  remove what the others made
#
# Everything is installed into $(VENV), nothing outside it. A stamp says what is installed, so a second call is quick.

VENV   ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check
TESTS  ?= tests
DEMO_CHECKPOINT ?= outputs/demo_checkpoint

.DEFAULT_GOAL := help
.PHONY: help demo demo-engine serve test lint clean

help:
	@sed -n '1,3s/^# \{0,1\}//p' Makefile

$(VENV)/created:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or name one with make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/base: pyproject.toml constraints.txt | $(VENV)/created
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/dev: pyproject.toml constraints.txt | $(VENV)/created
	$(PIP) install --quiet -c constraints.txt -e ".[engine,serve,grpc,otel,dev]"
	@touch $(VENV)/base $(VENV)/engine $(VENV)/serve $@

$(VENV)/engine: pyproject.toml constraints.txt | $(VENV)/created
	$(PIP) install --quiet -c constraints.txt -e ".[engine]"
	@touch $(VENV)/base $@

$(VENV)/serve: pyproject.toml constraints.txt | $(VENV)/created
	$(PIP) install --quiet -c constraints.txt -e ".[engine,serve]"
	@touch $(VENV)/base $(VENV)/engine $@

demo: $(VENV)/base
	@$(PY) -m experiments.run --multirun experiment=demo

# a model this small gains little from a second thread, and crawls with one on a core that others use
demo-engine: export OMP_NUM_THREADS ?= 1
demo-engine: $(VENV)/engine
	@$(PY) -m engine.demo_checkpoint $(DEMO_CHECKPOINT)
	@$(PY) -m experiments.run --multirun experiment=demo_engine model.path=$(DEMO_CHECKPOINT)

serve: export OMP_NUM_THREADS ?= 1
serve: $(VENV)/serve
	@$(PY) -m experiments.serve demo $(SERVE)

# what a file's tests share is made once, by one worker; files in their order, for the last ones are short
test: $(VENV)/dev
	$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(TESTS)

lint: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

clean:
	rm -rf $(VENV) build dist *.egg-info outputs multirun .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
