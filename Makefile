# make quickstart   set up, then train and compare three small models on a CPU
# make test         set up, then run the tests
# make test-fast    the same without the slow ones: about a minute
# make check        set up, then lint, types and import rules
# make docs         set up, then build the site, into site/

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
LOG := $(VENV)/setup.log
# Of pytest: in two processes.
TWO := -n 2 --dist worksteal

.PHONY: setup quickstart test test-fast check docs clean

quickstart: setup
	$(VENV)/bin/python tools/quickstart.py

test: setup
	$(VENV)/bin/python -m pytest --ignore tests/d2 $(TWO)

test-fast: setup
	$(VENV)/bin/python -m pytest --ignore tests/d2 $(TWO) -m 'not slow'

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(VENV)/.docs
	$(VENV)/bin/python -m sphinx -W --keep-going -q -b html docs site

$(VENV)/.docs: $(READY)
	@$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[docs]' > $(LOG) 2>&1 || \
	  { cat $(LOG); echo "Set-up failed; the log above is $(LOG)"; exit 1; }
	@touch $@

setup: $(READY)

# Quiet unless it fails; then the whole log is shown.
$(READY): constraints.txt pyproject.toml setup.py
	@echo "Setting up $(VENV) (once; a few minutes) ..."
	@$(PYTHON) -m venv --clear $(VENV) && \
	{ $(VENV)/bin/python -m pip install -c constraints.txt -e '.[dev]' > $(LOG) 2>&1 || \
	  { cat $(LOG); echo "Set-up failed; the log above is $(LOG)"; exit 1; }; }
	@touch $(READY)

clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
