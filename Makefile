# Needs git, make and Python 3.11 or newer; everything is installed into .venv. `make help` lists the targets.
# Another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
BACKENDS ?= jax torch tensorflow
# Arguments for pytest, for example: make test TESTS="tests/layers -x"
TESTS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs wheel bench format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r target what; do \
		printf '  make %-8s %s\n' "$$target" "$$what"; done

demo: .venv/demo.stamp ## train a residual network on the digits pictures; prints where the report is
	KERAS_BACKEND=jax $(BIN)/keras-residual train digits --out "runs/demo-$$(date +%Y%m%d-%H%M%S)"

# Two processes at a time, each with one thread: a backend's own threads only wait for one another on two cores. On JAX,
# which compiles for most of the time, the test files are dealt out to three. What a process says is printed at its end.
JOBS := $(foreach backend,$(BACKENDS),$(if $(filter jax,$(backend)),jax-1 jax-2 jax-3,$(backend)))

test: .venv/test.stamp ## run every test on JAX, PyTorch and TensorFlow, two processes at a time
	@mkdir -p .venv/logs
	@$(MAKE) --no-print-directory -j 2 -k $(addprefix tests-on-,$(JOBS))

tests-on-%:
	@echo "== tests on $*: started"; start=$$(date +%s); status=0; share='$*'; \
	OMP_NUM_THREADS=1 KERAS_BACKEND=$(firstword $(subst -, ,$*)) KERAS_RESIDUAL_TEST_FILES=$${share#$(firstword $(subst -, ,$*))} \
		$(BIN)/python -m pytest --durations=25 --durations-min=3 $(TESTS) >.venv/logs/$*.txt 2>&1 || status=$$?; \
	if [ $$status -eq 5 ]; then status=0; fi; \
	echo "== tests on $*: $$(($$(date +%s) - start)) s, status $$status"; cat .venv/logs/$*.txt; exit $$status

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
	@set -e; for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean: ## delete what was built; keeps runs/ and .venv
	rm -rf build dist site .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage

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
