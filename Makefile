# Two commands for a newcomer: `make demo` and `make test`. Both create .venv first if it is missing.
# Needs python3.11 or python3.12 (with venv) and make, nothing else.

PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3,$(shell $(p) -c \
	"import sys, venv; print('$(p)') if (3, 11) <= sys.version_info[:2] <= (3, 12) else None" 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
# The tests start some fifty programs; without compiled modules each spends up to 20 seconds on compiling.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test pytest quick lint format clean

install: $(STAMP)

# uv installs the same pinned tree about three times faster than pip.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "medvl needs Python 3.11 or 3.12: install one, or run make PYTHON=/path/to/python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable ".[train,router,tables,scans,dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/medvl demo

# Side by side: mypy keeps one core busy for half a minute.
test: $(STAMP)
	$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# What starts no other process and loads no LLaMA-Factory: while developing.
quick: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not (subprocess or training or browser or slow)"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
