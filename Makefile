# Everything starts here: `make demo` and `make test` need nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2
# Each job computes on one thread, so that jobs do not wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
PEERS  := $(VENV)/peers

.PHONY: help install demo test test-all test-isa check format bench bench-gpu clean
help:           ## Show what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

install: $(STAMP)  ## Make .venv and install volseg with all its extras

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "volseg needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[view,cluster,convert,export,tensorboard,dev]'
	touch $(STAMP)

demo: install   ## The whole journey on generated EM: learn, predict, score, draw
	$(BIN)/volseg demo --overwrite volseg-demo

test: install   ## All tests but the long ones, on JOBS cores
	$(PYTEST) -m "not slow"

test-all: install test-isa  ## All tests, and those of numbers under each instruction set
	$(PYTEST)

test-isa: install  ## Laws, inference and training under each instruction set that this processor has
	OMP_NUM_THREADS=1 $(BIN)/python tests/instruction_sets.py -n $(JOBS) --dist worksteal -m "not slow" -q

check: install  ## Lint, types, the house's walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

format: install ## Put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What volseg is compared with lies beside its own packages, never among them; what cannot be had is left out.
$(PEERS)/.installed: $(STAMP) benchmarks/peers.txt
	mkdir -p $(PEERS)
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --upgrade --target $(PEERS) -r benchmarks/peers.txt \
	  && touch $@ || echo "not all of benchmarks/peers.txt could be installed; what is missing is left out"

bench: install $(PEERS)/.installed  ## Measure; figures go to benchmarks/results, tables to docs. RAW=sections.tif compares on your own
	$(BIN)/python -m benchmarks.scheduler
	$(BIN)/python -m benchmarks.networks
	$(BIN)/python -m benchmarks.limit
	$(BIN)/python -m benchmarks.cropping
	$(BIN)/python -m benchmarks.memory $(RAW)
	PYTHONPATH=$(PEERS) $(BIN)/python -m benchmarks.engines
	PYTHONPATH=$(PEERS) $(BIN)/python -m benchmarks.peers $(RAW)

bench-gpu:      ## Measure on a CUDA device, with the packages of PYTHON
	$(PYTHON) -m benchmarks.gpu

clean:          ## Remove what was made here
	rm -rf $(VENV) volseg-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
