# `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2
# One thread per job: more would compete for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
PEERS  := $(VENV)/peers

.PHONY: help install demo test test-all test-isa test-faults check check-pins format bench bench-gpu clean
help:           ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

install: $(STAMP)  ## Make .venv and install volseg with all its extras

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "volseg needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[view,cluster,convert,formats,wkw,export,tensorboard,dev]'
	touch $(STAMP)

demo: install   ## Train, predict, evaluate and plot on generated EM
	$(BIN)/volseg demo --overwrite volseg-demo

test: install   ## All tests but the long ones, on JOBS cores
	$(PYTEST) -m "not slow"

test-all: install test-isa  ## All tests, and those of numbers under each instruction set
	$(PYTEST)

test-isa: install  ## Laws, inference and training under each instruction set of this processor
	OMP_NUM_THREADS=1 $(BIN)/python tests/instruction_sets.py -n $(JOBS) --dist worksteal -m "not slow" -q

test-faults: install  ## All campaigns of random faults, or as SEED, ROUNDS and ONLY say; counts in a table
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --seed $(or $(SEED),0) $(addprefix --rounds ,$(ROUNDS)) $(addprefix --only ,$(ONLY))

check: install  ## Lint, types, imports, Docker and GitHub files, CITATION.cff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile docker/Dockerfile.cuda
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml docker/compose.cuda.yaml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml \
	  .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff

# atomicwrites, which neuroglancer needs, is pure Python and comes as source only. Needs the network.
check-pins: install  ## Resolve constraints.txt for each supported Python, on Linux and macOS
	set -e; for python in 3.11.5 3.12 3.13 3.14; do for platform in x86_64-manylinux_2_28 aarch64-apple-darwin; do \
	  echo "Python $$python, $$platform"; \
	  MACOSX_DEPLOYMENT_TARGET=14.0 $(BIN)/uv pip compile --quiet --all-extras --constraints constraints.txt \
	    --only-binary :all: --no-binary atomicwrites --python-version $$python --python-platform $$platform \
	    pyproject.toml > /dev/null; done; done

format: install ## Format the code and sort its imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Packages to compare with, installed beside those of volseg; the benchmarks skip what cannot be installed.
$(PEERS)/.installed: $(STAMP) benchmarks/peers.txt
	mkdir -p $(PEERS)
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --upgrade --target $(PEERS) -r benchmarks/peers.txt \
	  && touch $@ || echo "not all of benchmarks/peers.txt could be installed; benchmarks skip the rest"

bench: install $(PEERS)/.installed  ## Measure: figures to benchmarks/results, tables to docs. RAW=sections.tif uses your own data
	$(BIN)/python -m benchmarks.scheduler
	$(BIN)/python -m benchmarks.networks
	$(BIN)/python -m benchmarks.limit
	$(BIN)/python -m benchmarks.cropping
	$(BIN)/python -m benchmarks.memory $(RAW)
	PYTHONPATH=$(PEERS) $(BIN)/python -m benchmarks.engines
	PYTHONPATH=$(PEERS) $(BIN)/python -m benchmarks.peers $(RAW)

bench-gpu:      ## Measure on a CUDA device, with the packages of PYTHON
	$(PYTHON) -m benchmarks.gpu

clean:          ## Remove the environment, the demo and the caches
	rm -rf $(VENV) volseg-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
