# make demo                    1,000 downloads by unmodified requests, then again with one that fails
# make test                    the tests, without those marked "thorough"
# make test-all                all tests, with ten times as many examples of each property
# make test-variant            the tests for another engine or Python: what is "thorough" only if it depends on them
# make check                   lint, types, layers, test: what a change must pass
# make lint | types | layers   one check alone
# make docs                    the site, in build/site/index.html
# make check-site              each page of it in headless Chromium: three sizes, light and dark, links, console
#
# make test-stdlib             CPython's own test modules on virtual threads; test-stdlib-quick: a part of them
# make test-serve              the servers of vthreads.serve alone, with frameworks, PostgreSQL and nginx
# make test-frameworks         the last three of these alone
# make soak-serve              one minute of a server under load and abuse; its memory stays flat
# make test-drivers            drivers and clients against the servers that run on this machine
# make test-downstream         test suites of other projects; test-downstream-quick: a part of them
# make soak                    one minute of all features at once, under random cancellation
# make test-wheel              the engine tests against an installed wheel
# make test-no-compiler        installation without a C compiler and without Python.h
# make test-perfetto           a trace file read by Perfetto's trace processor
#
# make bench                   cost of small operations
# make bench-macro             the same beside asyncio, uvloop, trio, gevent, OS threads and C
# make bench-serve             HTTP and WebSocket servers beside uvicorn, granian, gunicorn, bjoern
# make test-benchmarks         every benchmark once, with every peer
#
# make clean                   remove environments, builds and caches
#
# Required: Python 3.11 or newer with its venv module. Everything else is installed into $(VENV) on first use, and
# again after a change of pyproject.toml. Overrides:
#
#   make test PYTHON=python3.13 VENV=.venv-3.13
#   make test ARGS='tests/core -k cancel'
#   make test-stdlib ARGS='test_socket --columns plain,vthreads,gevent'

# The tests start Python about a thousand times. Let it cache compiled modules, or `make test` takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)

# Stamp files. The Python version is part of the name, so that another interpreter creates the environment again.
MADE := $(VENV)/.made-with-$(VERSION)
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-all test-variant test-stdlib test-stdlib-quick test-serve test-frameworks test-drivers test-downstream
.PHONY: test-downstream-quick soak soak-serve
.PHONY: bench bench-macro bench-serve test-benchmarks test-perfetto test-wheel test-no-compiler
.PHONY: lint types layers docs check-site check clean

# Two installations into one environment at the same time would overwrite each other's files.
.NOTPARALLEL:

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(INSTALLED)-demo
	$(BIN)/python -m vthreads demo $(ARGS)

# Two workers per processor: a third of the time of the tests is waiting, for processes they start and for the kernel.
# With one worker per processor they take 270 s on two processors, with two 155 s. A worker that has finished its tests
# takes over some of another one.
WORKERS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test: $(INSTALLED)-test
	$(PYTEST) -m 'not thorough' $(ARGS)

test-all: $(INSTALLED)-test
	$(PYTEST) --hypothesis-profile=thorough $(ARGS)

test-variant: $(INSTALLED)-test
	$(PYTEST) -m 'not thorough or everywhere' $(ARGS)

# CPython's own test modules on virtual threads, compared with plain Python. Takes some minutes.
test-stdlib: $(INSTALLED)-test
	$(BIN)/python -m tests.stdlib $(ARGS)

test-stdlib-quick: $(INSTALLED)-test
	$(BIN)/python -m tests.stdlib --quick --brief $(ARGS)

# The servers of `vthreads.serve` alone, with the frameworks and servers that are on this machine.
test-serve: $(INSTALLED)-drivers
	$(PYTEST) tests/serve $(ARGS)

test-frameworks: $(INSTALLED)-drivers
	$(BIN)/python -m pytest tests/serve/frameworks $(ARGS)

# One minute of a server under load and abuse; its memory stays flat.
soak-serve: $(INSTALLED)-test
	$(BIN)/python -m tests.serve.soak $(ARGS)

# Drivers and clients against the servers that run on this machine.
test-drivers: $(INSTALLED)-drivers
	$(BIN)/python -m pytest tests/drivers $(ARGS)

# Test suites of other projects, from their source distributions, on plain Python and on virtual threads.
test-downstream: $(INSTALLED)-test
	$(BIN)/python -m tests.downstream $(ARGS)

test-downstream-quick: $(INSTALLED)-test
	$(BIN)/python -m tests.downstream --quick $(ARGS)

# One minute of all features at once, under random cancellation.
soak: $(INSTALLED)-test
	$(BIN)/python -m tests.soak $(ARGS)

# Cost of small operations, on the engine that VTHREADS_ENGINE selects.
bench: $(INSTALLED)-bench
	$(BIN)/python benchmarks/micro.py $(ARGS)

# The same beside asyncio, uvloop, trio, gevent, OS threads and C: ARGS='echo queue --rounds 3 --html page.html'.
bench-macro: $(INSTALLED)-bench
	$(BIN)/python -m benchmarks.compare $(ARGS)

# Servers alone, each with all its processes.
bench-serve: $(INSTALLED)-bench
	$(BIN)/python -m benchmarks.compare $(notdir $(patsubst %/,%,$(dir $(wildcard benchmarks/macro/serve_*/__init__.py)))) $(ARGS)

# Every benchmark once with every peer. `make test-all` skips the peers that it does not install.
test-benchmarks: $(INSTALLED)-test $(INSTALLED)-bench
	VTHREADS_REQUIRE_PEERS=1 $(BIN)/python -m pytest tests/project/test_benchmarks.py $(ARGS)

# A trace file read by Perfetto's trace processor.
test-perfetto: $(INSTALLED)-perfetto
	VTHREADS_REQUIRE_PERFETTO=1 $(BIN)/python -m pytest tests/debug/test_trace_in_perfetto.py $(ARGS)

# Builds a wheel, installs it into a new environment in a folder without the checkout, and runs the tests of both
# engines against it.
test-wheel: $(MADE)
	.ci/test-wheel $(BIN)/python

# Installs without a C compiler, and without the headers of Python.
test-no-compiler: $(MADE)
	.ci/test-no-compiler $(BIN)/python

lint: $(INSTALLED)-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python .ci/english

types: $(INSTALLED)-dev
	$(BIN)/python -m mypy
	$(BIN)/basedpyright
	PATH="$(abspath $(BIN)):$$PATH" .ci/public-types

layers: $(INSTALLED)-dev
	$(BIN)/lint-imports --no-logo

# -n: a reference to a page or heading that does not exist is a warning; -W: a warning is an error.
docs: $(INSTALLED)-docs
	$(BIN)/sphinx-build -n -W --keep-going -q -d build/doctrees docs build/site $(ARGS)
	@echo 'The site is in build/site/index.html'

check-site: docs $(INSTALLED)-test
	$(BIN)/python .ci/check-site $(ARGS)

check: lint types layers test

clean:
	rm -rf .venv .venv-* .downstream build dist src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# --clear empties any directory, so use it only on an environment that this file created (it has a stamp).
$(MADE):
	@test -n '$(VERSION)' || \
		{ echo 'PYTHON=$(PYTHON) does not run; name a working Python 3.11 or newer: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'vthreads needs Python 3.11 or newer, $(PYTHON) is $(VERSION); name another: make PYTHON=/path/to/python3' >&2; exit 1; }
	$(PYTHON) -m venv $(if $(wildcard $(VENV)/.made-with-*),--clear )$(VENV)
	@test "$$($(BIN)/python -c 'import platform; print(platform.python_version())')" = '$(VERSION)' || \
		{ echo '$(VENV) exists and is not of Python $(VERSION); remove it, or name another: make VENV=.venv-other' >&2; exit 1; }
	@touch $@

# Compiled sources are prerequisites, because a changed source needs another installation. The stem may name several
# extras, separated by commas. Some extras contain `test`: one installation is enough for `make check`.
comma := ,
WITH_TEST := dev drivers perfetto
COMPILED := src/vthreads/_core/engine/accelerated.pyx $(shell find src/vthreads -path '*/compiled/*.pxi' -o -path '*/compiled/*.h')
COMPILED += $(addprefix src/vthreads/debug/_event_log.,py pxd)
COMPILED += $(foreach types,$(wildcard src/vthreads/serve/*.pxd src/vthreads/serve/_http/*.pxd),$(types) $(types:.pxd=.py))

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable
# Editable installations of one Python share the modules that are compiled in the source tree: compiling them again takes
# a few minutes.
BUILT := src/vthreads/_core/engine/accelerated$(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))' 2>/dev/null)

$(INSTALLED)-%: $(MADE) pyproject.toml setup.py $(COMPILED)
	@echo 'Installing vthreads[$*] into $(VENV) ...'
	@if test "$$VTHREADS_PURE" = 1 || \
		{ test -e $(BUILT) && test -z "$$(find pyproject.toml setup.py $(COMPILED) -newer $(BUILT))"; }; then \
		VTHREADS_PURE=1 $(INSTALL) '.[$*]'; \
	else \
		echo 'It compiles the engine, which takes a few minutes.' && $(INSTALL) '.[$*]'; \
	fi
	@touch $(addprefix $(INSTALLED)-,$(subst $(comma), ,$*) $(if $(filter $(WITH_TEST),$(subst $(comma), ,$*)),test))
