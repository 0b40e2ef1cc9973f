# Everything a developer or CI runs. `make help` lists the targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
ADAPTERS := .venv-adapters
# Tests side by side; a worker that has none left takes over some of another one's.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
# Tests start many processes that import the same modules: compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
DISTRIBUTIONS := protocol operator images/client images/aggregator cli
DOCKER ?= docker
TAG ?= $(shell cat VERSION)
DOCKER_BUILD = $(DOCKER) build $(DOCKER_BUILD_FLAGS) $(if $(PYTHON_BASE),--build-arg BASE=$(PYTHON_BASE)) --build-arg VERSION=$(TAG)
# Where the files lie that are made from the code.
GENERATED := docs crds charts/fedjob/files dist
PROJECTS := VERSION pyproject.toml $(DISTRIBUTIONS:%=%/pyproject.toml)
# The first interpreter in the supported range; PYTHON=… overrides it.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
  if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then echo $$p; break; fi; done)

##@ Use it
.PHONY: help demo lab images image-cuda run
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## Set everything up and run a federated job: 5 clients, 20 rounds, real data
	@$(BIN)/fedjob run examples/01-minimal.yaml $(ARGS)

lab: $(VENV)/.run ## Start three clients (8001-8003) and an aggregator (9000) to talk to with curl
	@$(BIN)/fedjob lab $(ARGS)

images: ## Build the images of the operator, the client and the aggregator (needs docker)
	@for program in operator images/client images/aggregator; do \
	  $(DOCKER_BUILD) --file $$program/Dockerfile $$(test $$program != images/client || echo --target client) \
	    --tag fedjob/$${program#images/}:$(TAG) . || exit 1; done

image-cuda: ## Build the client's image for NVIDIA GPUs: fedjob/client-cuda (needs docker)
	$(DOCKER_BUILD) --file images/client/Dockerfile --target client-cuda --tag fedjob/client-cuda:$(TAG) .

run: $(VENV)/.dev ## Run the operator here, against the cluster of your kubeconfig
	$(BIN)/fedjob-operator --reach api-proxy --namespace fedjob-system --host 127.0.0.1 $(ARGS)

##@ Work on it
.PHONY: init fmt lint types test test-unit test-integration test-simulator test-gpu test-slow test-faults soak test-api test-adapters test-chart e2e e2e-faults generate verify dist requirements bench clean
init: $(VENV)/.dev ## Set up .venv with the programs, the tests' and the linters' packages

fmt: $(VENV)/.dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .

lint: $(VENV)/.dev ## Lint: style, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

types: $(VENV)/.dev ## Check the types
	$(BIN)/mypy

test: $(VENV)/.dev ## Set everything up and run the unit and integration tests
	$(PYTEST) -m "not slow" tests/unit tests/integration $(ARGS)
	@$(MAKE) --no-print-directory test-simulator ARGS=

test-unit: $(VENV)/.dev ## Run the unit tests (seconds, no network)
	$(PYTEST) -m "not slow" tests/unit $(ARGS)

test-integration: $(VENV)/.dev ## Run the integration tests (real processes on loopback)
	$(PYTEST) -m "not slow" tests/integration $(ARGS)

test-simulator: $(VENV)/.dev ## Run the tests of the GPU kernels in Numba's simulator, which it chooses when it is imported
	NUMBA_ENABLE_CUDASIM=1 $(PYTEST) tests/gpu $(ARGS)

test-gpu: $(VENV)/.dev ## Run them on the GPU of this machine; one line says why not where there is none
	@if $(BIN)/python -m fedjob_client.cuda.driver; then $(MAKE) --no-print-directory $(VENV)/.cuda; fi
	$(BIN)/python -m pytest tests/gpu $(ARGS)

test-slow: $(VENV)/.dev ## Run the tests that take half a minute or more
	$(BIN)/python -m pytest -m slow tests/unit tests/integration $(ARGS)

test-faults: $(VENV)/.dev ## Kill everything at every step and compare with undisturbed runs (ARGS=--subset: at some)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --ignore tests/faults/api tests/faults $(ARGS)
	$(BIN)/python -m pytest tests/faults/api $(ARGS)

soak: $(VENV)/.dev ## Kill and stop processes of ten jobs for half an hour (ARGS="--minutes 5")
	$(BIN)/python -m tests.faults.soak $(ARGS)

test-api: $(VENV)/.dev ## Run the tests on a real API server (etcd and kube-apiserver in KUBEBUILDER_ASSETS)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/api $(ARGS)

test-adapters: $(ADAPTERS)/.dev ## Run the tests beside PyTorch and Flower, in an environment of their own (5 GB)
	$(ADAPTERS)/bin/python -m pytest tests/adapters $(ARGS)

test-chart: $(VENV)/.dev ## Run the tests of the chart (needs helm; with KUBEBUILDER_ASSETS also on an API server)
	$(BIN)/python -m pytest tests/chart $(ARGS)

e2e: $(VENV)/.dev ## Run the end-to-end tests on a kind cluster (needs docker, kind, kubectl, helm)
	$(BIN)/python -m pytest tests/e2e --ignore tests/e2e/faults $(ARGS)

e2e-faults: $(VENV)/.dev ## Kill programs and stop nodes of a kind cluster with two workers (same needs; half an hour)
	$(BIN)/python -m pytest tests/e2e/faults $(ARGS)

generate: $(VENV)/.dev ## Write the files that are made from the code
	$(BIN)/python docs/generate.py

verify: generate ## Fail if a generated file is not up to date
	@git diff --exit-code -- $(GENERATED) || { echo "generated files differ: commit the result of 'make generate'"; exit 1; }
	@test -z "$$(git ls-files --others --exclude-standard $(GENERATED))" || { echo "generated files are not committed"; exit 1; }

dist: ## Render the chart to dist/install.yaml (needs helm)
	@{ echo '# Made from the chart by `make dist`: change the chart, not this file.'; \
	  helm template fedjob charts/fedjob --namespace fedjob-system --kube-version 1.35.0 --no-hooks \
	    --set createNamespace=true; } > dist/install.yaml.new || { rm dist/install.yaml.new; exit 1; }
	@mv dist/install.yaml.new dist/install.yaml

requirements: ## Compile requirements/*.txt again (needs uv; ARGS=--upgrade moves versions)
	requirements/compile $(ARGS)

bench: $(VENV)/.dev ## Measure rounds, uploads, memory, standbys and regression side by side (docs/performance.md)
	$(BIN)/python bench/bench.py $(ARGS)

clean: ## Remove .venv and everything that was made
	rm -rf $(VENV) $(ADAPTERS) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up: a stamp per requirements file, so that a second call takes no time.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "fedjob needs Python 3.11, 3.12 or 3.13 and found none on PATH; install one or call make with PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python requirements/run.txt $(PROJECTS)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e ./%)
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/dev.txt
	@touch $@

$(ADAPTERS)/.dev: requirements/adapters.txt $(PROJECTS)
	$(PYTHON) -m venv $(ADAPTERS)
	@# A few of its 12,000 modules are ever imported: those are compiled then.
	$(ADAPTERS)/bin/python -m pip install --disable-pip-version-check --quiet --no-compile --require-hashes -r requirements/adapters.txt
	$(ADAPTERS)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e ./%)
	@touch $@

$(VENV)/.cuda: $(VENV)/.dev requirements/image-client-cuda.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/image-client-cuda.txt
	@touch $@
