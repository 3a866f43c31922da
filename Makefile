# make demo | test | test-stdlib | test-stdlib-quick | test-drivers | test-downstream | test-downstream-quick | soak
# make bench | bench-macro | test-benchmarks | test-perfetto | test-wheel
# make lint | types | layers | check | clean
#
# Nothing has to be prepared but Python with its venv module. Everything is installed into $(VENV), once,
# and again when pyproject.toml has changed. Overrides:
#
#   make test PYTHON=python3.13 VENV=.venv-3.13
#   make test ARGS='tests/core -k cancel'
#   make test-stdlib ARGS='test_socket --columns plain,vthreads,gevent'

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)

# Stamps. The version is part of the name: another interpreter makes the environment anew.
MADE := $(VENV)/.made-with-$(VERSION)
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-stdlib test-stdlib-quick test-drivers test-downstream test-downstream-quick soak
.PHONY: bench bench-macro test-benchmarks test-perfetto test-wheel
.PHONY: lint types layers check clean

# Two installations into one environment at a time would trip over each other.
.NOTPARALLEL:

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(INSTALLED)-demo
	$(BIN)/python -m vthreads demo $(ARGS)

test: $(INSTALLED)-test
	$(BIN)/python -m pytest $(ARGS)

# CPython's own test modules on virtual threads, beside plain Python: some minutes, or the quick part of them.
test-stdlib: $(INSTALLED)-test
	$(BIN)/python -m tests.stdlib $(ARGS)

test-stdlib-quick: $(INSTALLED)-test
	$(BIN)/python -m tests.stdlib --quick --brief $(ARGS)

# Drivers and clients, against the servers that this machine runs.
test-drivers: $(INSTALLED)-drivers
	$(BIN)/python -m pytest tests/drivers $(ARGS)

# The test suites of other projects, from their source distributions, plainly and on virtual threads.
test-downstream: $(INSTALLED)-test
	$(BIN)/python -m tests.downstream $(ARGS)

test-downstream-quick: $(INSTALLED)-test
	$(BIN)/python -m tests.downstream --quick $(ARGS)

# A minute of everything at once, under random cancellation.
soak: $(INSTALLED)-test
	$(BIN)/python -m tests.soak $(ARGS)

# What small operations cost, on the engine that VTHREADS_ENGINE names.
bench: $(INSTALLED)-bench
	$(BIN)/python benchmarks/micro.py $(ARGS)

# What they cost beside asyncio, uvloop, trio, gevent, OS threads and C: ARGS='echo queue --rounds 3 --html page.html'.
bench-macro: $(INSTALLED)-bench
	$(BIN)/python -m vthreads bench $(ARGS)

# Every benchmark once with every peer; `make test` leaves out the peers that it does not install.
test-benchmarks: $(INSTALLED)-test $(INSTALLED)-bench
	VTHREADS_REQUIRE_PEERS=1 $(BIN)/python -m pytest tests/test_benchmarks.py $(ARGS)

# What Perfetto's trace processor finds in a trace.
test-perfetto: $(INSTALLED)-perfetto
	VTHREADS_REQUIRE_PERFETTO=1 $(BIN)/python -m pytest tests/debug/test_trace_in_perfetto.py $(ARGS)

# A wheel is built and installed into an environment of its own, in a folder that has nothing of the checkout, and the
# tests of both engines run against it.
test-wheel: $(MADE)
	.ci/test-wheel $(BIN)/python

lint: $(INSTALLED)-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(INSTALLED)-dev
	$(BIN)/python -m mypy

layers: $(INSTALLED)-dev
	$(BIN)/lint-imports --no-logo

check: lint types layers test

clean:
	rm -rf .venv .venv-* .downstream build dist src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Only an environment that this file made is ever emptied; --clear would take any directory.
$(MADE):
	@test -n '$(VERSION)' || \
		{ echo 'PYTHON=$(PYTHON) does not run; name a working Python 3.11 or newer: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'vthreads needs Python 3.11 or newer, $(PYTHON) is $(VERSION); name another: make PYTHON=/path/to/python3' >&2; exit 1; }
	$(PYTHON) -m venv $(if $(wildcard $(VENV)/.made-with-*),--clear )$(VENV)
	@test "$$($(BIN)/python -c 'import platform; print(platform.python_version())')" = '$(VERSION)' || \
		{ echo '$(VENV) exists and is not of Python $(VERSION); remove it, or name another: make VENV=.venv-other' >&2; exit 1; }
	@touch $@

# What is compiled at installation is installed again when its source has changed. Several extras, with a comma between
# them, are installed at once.
comma := ,
COMPILED := src/vthreads/_core/engine/accelerated.pyx $(addprefix src/vthreads/debug/event_log.,py pxd)

$(INSTALLED)-%: $(MADE) pyproject.toml setup.py $(COMPILED)
	@echo 'Installing vthreads[$*] into $(VENV) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $(addprefix $(INSTALLED)-,$(subst $(comma), ,$*))
