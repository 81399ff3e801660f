"""What holds for every test: the backend is the one asked for, seeds are set, hypothesis repeats itself."""

from __future__ import annotations

import gc
import os
import zlib
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Programs of former runs would hide what compiles, and the folder is that of whoever runs the tests.
os.environ.setdefault("KERAS_RESIDUAL_COMPILATION_CACHE", "0")

# A backend that was asked for and does not import must fail the run, not shorten it: so this import is not guarded.
import keras
import numpy as np
import pytest
from hypothesis import settings

from backend_helpers import drop_compiled_programs, quick_compilation

# JAX's programs are millions of objects that stay: looking through them at each turn takes a tenth of the time.
gc.set_threshold(50_000, 20, 50)

TESTS = Path(__file__).parent
FIRST_BACKEND = "torch"  # the one that runs the tests which do not depend on the backend: it compiles nothing

# JAX compiles for each new shape, which takes most of the time of a property test.
EXAMPLES = 8 if keras.backend.backend() == "jax" else 20
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=EXAMPLES)
settings.load_profile("ci")


# What is run: "quick", which a person waits for; "all"; or "rest:COMMIT", a share of what "quick" leaves out. Which
# tests these are follows from their names and that of the commit alone: it is the same every day.
RUN, _, COMMIT = os.environ.get("KERAS_RESIDUAL_TESTS", "quick").partition(":")
REST = 24  # one test of so many

# In a quick run, cases of each test: PyTorch compiles nothing, and needs a fifth of the others' time. Each of those
# runs the tests of what depends on it most, and they share the others.
CASES = 3 if keras.backend.backend() == FIRST_BACKEND else 1
SHARING = ("jax", "tensorflow")
IN_ALL = ("backend", "properties", "stacks")


def pytest_report_header() -> str:
    return f"keras {keras.__version__} on {keras.backend.backend()}, tests: {RUN}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = [item for item in items if _belongs_here(config, item)]
    if RUN != "all":
        quick = _quick(kept)
        kept = [item for item in kept if (_in_share(item) and item not in quick if RUN == "rest" else item in quick)]
    chosen = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = kept


def _belongs_here(config: pytest.Config, item: pytest.Item) -> bool:
    """Leaves out the huge tests unless they are asked for, and on other backends those that depend on none."""
    if item.get_closest_marker("huge") and "huge" not in config.option.markexpr:
        return False
    return keras.backend.backend() == FIRST_BACKEND or not item.get_closest_marker("any_backend")


def _quick(items: list[pytest.Item]) -> set[pytest.Item]:
    """Returns of each test some cases, all where it is marked so, and none where it is slow."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen: set[pytest.Item] = set()
    for found in cases.values():
        every = found[0].get_closest_marker("every")
        if every and (not every.args or keras.backend.backend() in every.args):
            chosen.update(found)
        elif keras.backend.backend() not in SHARING or _is_for_this(found[0]):
            quick = [item for item in found if not item.get_closest_marker("slow")]
            chosen.update(sorted(quick, key=lambda item: _draw(item.nodeid))[:CASES])
    return chosen


def _is_for_this(item: pytest.Item) -> bool:
    name = item.nodeid.partition("[")[0]
    folder = item.path.relative_to(TESTS).parts[0]
    return folder in IN_ALL or SHARING[_draw(name) % 2] == keras.backend.backend()


def _in_share(item: pytest.Item) -> bool:
    return _draw(f"{COMMIT} {item.nodeid}") % REST == 0


def _draw(text: str) -> int:
    return zlib.crc32(text.encode())


# Here XLA optimises as it does for users, since the tests are about rounding, or time and memory. Elsewhere a program
# runs once or twice, and is compiled in two thirds of the time without.
OPTIMISED = ("backend", "integration", "parity", "properties", "stacks")  # not the folders in these


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation(request: pytest.FixtureRequest):
    folder = request.path.relative_to(TESTS).parts[:-1]
    if RUN == "all" or folder in [(name,) for name in OPTIMISED]:
        yield
        return
    with quick_compilation():
        yield


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    """Keeps what a long run has compiled within what the system has room for."""
    yield
    drop_compiled_programs()


@pytest.fixture(autouse=True)
def _same_start(request: pytest.FixtureRequest):
    """Sets every seed, and undoes what a test changes of Keras's global settings."""
    policy = keras.config.dtype_policy()
    data_format, floatx = keras.config.image_data_format(), keras.config.floatx()
    keras.utils.set_random_seed(0)
    # A generator of a module goes on where importing left it, whichever tests have drawn from it before.
    for generator in vars(request.module).values():
        if isinstance(generator, np.random.Generator):
            state = _GENERATORS.setdefault(id(generator), generator.bit_generator.state)
            generator.bit_generator.state = state
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(data_format)
    keras.config.set_floatx(floatx)


_GENERATORS: dict[int, Any] = {}
