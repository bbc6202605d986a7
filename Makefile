# Every target sets itself up: Python 3.11 or newer and make are all a fresh machine needs.
# Another interpreter: make test PYTHON=/path/to/python3.13. To start over: rm -rf .venv

SHELL := /bin/sh
.DEFAULT_GOAL := help
# The targets share one .venv, so `make -j` runs them one after another.
.NOTPARALLEL:
.PHONY: help demo test lint unit docs slow bench studies clean

VENV := .venv
BIN := $(VENV)/bin
ROOT := $(VENV)/.root
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev
SLOW := $(VENV)/.installed-slow
STUDIES := $(VENV)/.installed-studies

# Two calls of make at the same time must not install at the same time: the second waits where flock exists.
LOCKED := $(shell command -v flock >/dev/null 2>&1 && echo flock Makefile)

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(DEMO) ## the main job on real data: a walk-forward on monthly French portfolios, and its report
	$(BIN)/latentfactors demo
	$(BIN)/latentfactors report latentfactors-demo

test: lint unit docs ## everything that must hold, stopping at the first failure

lint: $(DEV) ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# One BLAS thread a worker: two workers with all cores each would only wait for one another.
unit slow: export OPENBLAS_NUM_THREADS := 1
unit slow: export OMP_NUM_THREADS := 1

unit: $(DEV) ## the tests and doctests
	$(BIN)/pytest -q -n 2

slow: $(SLOW) ## the slow tests: a local Dask cluster among them
	$(BIN)/pytest -q -m slow

docs: $(DEV) ## the documentation, warnings as errors, into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html

bench: $(DEV) ## the benchmarks
	$(BIN)/python benchmarks/run.py

studies: $(STUDIES) ## every study, one after another
	@set -e; for study in studies/[a-z]*.py; do \
		test -e "$$study" || { echo "there are no studies yet"; break; }; \
		echo "$$study"; $(BIN)/python "$$study"; \
	done

clean: ## remove caches and build outputs; .venv stays
	rm -rf build dist docs/_build docs/_generated .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests docs benchmarks studies -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# ── set-up ───────────────────────────────────────────────────────────────────────────────────────────

# An environment knows its own path: one that was copied along with its folder, or whose interpreter has gone,
# is made anew.
ifneq ($(shell test -x $(BIN)/python && cat $(ROOT) 2>/dev/null),$(CURDIR))
.PHONY: $(ROOT)
endif

$(ROOT): export CHOSEN := $(PYTHON)
$(ROOT): export HERE := $(CURDIR)
$(ROOT):
	@$(LOCKED) sh -c ' \
	    test -x $(BIN)/python && test "$$(cat $@ 2>/dev/null)" = "$$HERE" && exit 0; \
	    new="import sys; sys.exit(sys.version_info < (3, 11))"; \
	    for python in "$${CHOSEN:-python3}" $${CHOSEN:-python3.12 python3.13 python3.11 python3.14}; do \
	        "$$python" -c "$$new" 2>/dev/null && break; \
	        python=; \
	    done; \
	    test -n "$$python" || { \
	        echo "latentfactors needs Python 3.11 or newer, and $${CHOSEN:-python3} is not: make PYTHON=/path/to/python3.12" >&2; \
	        exit 1; \
	    }; \
	    test -e $@ && clear=--clear; \
	    "$$python" -m venv $$clear $(VENV) || { \
	        echo "$$python could not make $(VENV); on Debian and Ubuntu the package python3-venv is missing" >&2; \
	        exit 1; \
	    }; \
	    printf "%s\n" "$$HERE" > $@'

# $(call install,EXTRAS): into the one environment, adding to what is there. The stamp is looked at again once the
# lock is held, because a make beside this one may have done the work.
define install
	@$(LOCKED) sh -c ' \
	    test $@ -nt pyproject.toml && test $@ -nt $(ROOT) && exit 0; \
	    echo "installing latentfactors[$(1)] into $(VENV), once"; \
	    $(BIN)/python -m pip --disable-pip-version-check --quiet install --editable ".[$(1)]" && touch $@'
endef

$(DEMO): pyproject.toml $(ROOT)
	$(call install,pricing$(comma)report)

$(DEV): pyproject.toml $(ROOT)
	$(call install,dev)

comma := ,
$(SLOW): pyproject.toml $(ROOT)
	$(call install,dev$(comma)distributed)

$(STUDIES): pyproject.toml $(ROOT)
	$(call install,dev$(comma)all)
