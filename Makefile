# Everything a person or CI runs. `make help` lists it.
#
# Installing happens on first need, into .venv, with the versions of constraints.txt; a stamp per set of
# extras makes every further call instant.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
WHEEL_ENV := build/wheel-env
BENCHMARKS ?= $(filter-out tables,$(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[a-z]*.py)))
DEV := $(VENV)/.installed-dev+demo+tables+sequences+openvino+ncnn+remote
PACKAGE := $(wildcard *.py */*.py */*/*.py conf/*.yaml conf/*/*.yaml reports/*.j2)
comma := ,

# CI and SLOW=1 add the slow tests; the soak tests run only by name (pytest -m soak).
ifneq ($(strip $(filter-out false 0,$(CI)) $(filter-out 0,$(SLOW))),)
TESTS := -m "not soak and not runtime" --durations=15
else
TESTS := -m "not slow and not soak and not runtime"
endif

# As many processes as cores, at most four: each loads torch. ARGS=-n0 runs in one, as a debugger needs.
PROCESSES := -n logical --maxprocesses=4

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install search test test-runtimes lint format types imports wheel bench tables clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12
	@echo
	@echo 'PYTHON=python3.12 picks the interpreter of a new .venv; ARGS="..." is handed to the command.'
	@echo 'Without a GPU, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu makes torch a small download.'

install: $(DEV)  ## Install everything for development into .venv

search: $(VENV)/.installed-demo+tables  ## Search with experiment=default; ARGS="experiment=quick device=..." instead
	$(BIN)/gnomon search $(or $(ARGS),experiment=default)

test: $(DEV)  ## Run the tests; SLOW=1 or CI=true adds the slow ones; ARGS="tests/search -k ..." picks
	$(BIN)/python -m pytest $(PROCESSES) $(TESTS) $(ARGS)

test-runtimes: $(VENV)/.installed-dev+demo+tables+sequences+all-runtimes  ## Test every runtime that installs here: minutes, gigabytes
	$(BIN)/python -m pytest -m "runtime and not soak" $(ARGS)

lint: $(DEV)  ## Check style: ruff check, ruff format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV)  ## Mend style where ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(WHEEL_ENV)/.built  ## Check types: mypy --strict on the built wheel
	cd $(WHEEL_ENV) && bin/python -m mypy --config-file $(CURDIR)/pyproject.toml \
	    --cache-dir $(CURDIR)/.mypy_cache -p gnomon

imports: $(WHEEL_ENV)/.built  ## Check which room imports which: import-linter on the built wheel
	cd $(WHEEL_ENV) && bin/python -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' \
	    --config $(CURDIR)/pyproject.toml --no-cache --no-logo

wheel: $(DEV)  ## Build dist/gnomon_nas-*.whl from a clean copy of the sources
	$(BIN)/python tests/packaging/build_wheel.py dist

bench: $(DEV)  ## Run the benchmarks and write benchmarks/results/; BENCHMARKS="inner_loop" picks, ARGS=--quick only tries
	for name in $(BENCHMARKS); do \
	    $(BIN)/python -m benchmarks.$$name $(if $(filter --quick,$(ARGS)),,--json) $(ARGS) || exit 1; done

tables: $(DEV)  ## Write the tables of README and docs from benchmarks/results/
	$(BIN)/python -m benchmarks.tables $(ARGS)

clean:  ## Remove what can be made again (not .venv, not runs/)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	    f"Gnomon needs Python 3.11 or newer, and $(PYTHON) is {v[0]}.{v[1]}.\nGive another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# .installed-dev+demo stands for the extras dev and demo.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(subst +,$(comma),$*)]'
	@touch $@

$(WHEEL_ENV)/.built: $(PACKAGE) pyproject.toml $(DEV)
	.ci/wheel-env $(WHEEL_ENV)
	@touch $@
