# Needs git, make and Python 3.11 or newer; everything is installed into .venv. `make help` lists the targets.
# Another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
BACKENDS ?= torch jax tensorflow
# Arguments for pytest, for example: make test TESTS="tests/layers -x"
TESTS ?=

BIN := .venv/bin
# cifar_reference.py trains for hours: it is run by hand.
BENCHMARKS := $(filter-out benchmarks/cifar_reference.py,$(wildcard benchmarks/[!_]*.py))
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-rest test-versions lint docs wheel bench format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r target what; do \
		printf '  make %-13s %s\n' "$$target" "$$what"; done

demo: .venv/demo.stamp ## train a residual network on the digits pictures; prints where the report is
	KERAS_BACKEND=jax $(BIN)/keras-residual train digits --out "runs/demo-$$(date +%Y%m%d-%H%M%S)"

test: .venv/test.stamp ## run some cases of each test on PyTorch, JAX and TensorFlow
	$(BIN)/python tools/run_tests.py --backends $(BACKENDS) -- $(TESTS)

test-all: .venv/test.stamp ## run every case of each test on the three backends; takes an hour
	$(BIN)/python tools/run_tests.py --run all --backends $(BACKENDS) -- $(TESTS)

test-rest: .venv/test.stamp ## run of what `make test` leaves out a share that follows from the commit
	$(BIN)/python tools/run_tests.py --run rest:$$(git rev-parse HEAD) --backends $(BACKENDS) -- $(TESTS)

test-versions: .venv/versions.stamp ## test the oldest and the newest releases that are allowed; installs 16 GB
	$(BIN)/python tools/test_versions.py

lint: .venv/test.stamp .venv/tools.stamp ## check format, style, types and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/tools.stamp ## put the source in the house format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: .venv/tools.stamp ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet # the notice is about a later release of mkdocs

wheel: .venv/tools.stamp ## build sdist and wheel into dist/ and try them in empty environments
	$(BIN)/python tests/packaging/check_wheel.py --out dist

bench: .venv/test.stamp ## run the benchmarks that need no accelerator; results in benchmarks/results/
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python "$$script"; done

clean: ## delete what was built; keeps runs/ and .venv
	rm -rf .venv-versions build dist site .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage

# One environment. A stamp a purpose, newer than pyproject.toml where that purpose's packages are installed.
.venv/pip.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "keras-residual needs Python 3.11 or newer, and '$(PYTHON)' is" \
		"$$($(PYTHON) --version 2>/dev/null || echo not there). Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@# Dependency groups came with pip 25.1.
	@$(BIN)/python -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))' \
		|| $(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

.venv/demo.stamp: .venv/pip.stamp pyproject.toml
	@echo "Installing the library with JAX"
	@$(PIP) install --quiet --editable '.[jax,train]'
	@touch $@

.venv/test.stamp: .venv/pip.stamp pyproject.toml
	@echo "Installing the three backends and the test tools; some minutes on a slow network"
	@$(PIP) install --quiet --editable '.[train,plot,tensorboard,openvino,litert]' --group backends --group test
	@touch $@

.venv/tools.stamp: .venv/pip.stamp pyproject.toml
	@echo "Installing the tools for lint, documentation and packaging"
	@$(PIP) install --quiet --group lint --group docs --group package
	@touch $@

.venv/versions.stamp: .venv/pip.stamp pyproject.toml
	@$(PIP) install --quiet --group versions
	@touch $@
