"""What holds for every test: the backend is the one asked for, seeds are set, hypothesis repeats itself."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Programs of former runs would hide what compiles, and the folder is that of whoever runs the tests.
os.environ.setdefault("KERAS_RESIDUAL_COMPILATION_CACHE", "0")

# A backend that was asked for and does not import must fail the run, not shorten it: so this import is not guarded.
import keras
import pytest
from hypothesis import settings

from backend_helpers import drop_compiled_programs, quick_compilation

TESTS = Path(__file__).parent
FIRST_BACKEND = "torch"  # the one that runs the tests which do not depend on the backend: it compiles nothing

# JAX compiles for each new shape, which takes most of the time of a property test.
EXAMPLES = 8 if keras.backend.backend() == "jax" else 20
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=EXAMPLES)
settings.load_profile("ci")


# Each run has a share of the tests that are marked as rotated, another one each day; "all" runs them all.
SHARES = 12
ROTATION = os.environ.get("KERAS_RESIDUAL_TEST_ROTATION", str(datetime.date.today().toordinal() % SHARES))


def pytest_report_header() -> str:
    share = "all" if ROTATION == "all" else f"share {ROTATION} of {SHARES}"
    return f"keras {keras.__version__} on {keras.backend.backend()}, rotated tests: {share}"


# "-2": of the test files the second of each three, for processes that share the work.
FILES, SHARERS = os.environ.get("KERAS_RESIDUAL_TEST_FILES", "").lstrip("-"), 3


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _share_files(config, items)
    _take_turns(config, items)
    if keras.backend.backend() == FIRST_BACKEND:
        return
    elsewhere = [item for item in items if item.get_closest_marker("any_backend")]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if not item.get_closest_marker("any_backend")]


def _share_files(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the files that other processes run."""
    if not FILES:
        return
    paths = sorted({str(item.path) for item in items})
    mine = set(paths[int(FILES) - 1 :: SHARERS])
    config.hook.pytest_deselected(items=[item for item in items if str(item.path) not in mine])
    items[:] = [item for item in items if str(item.path) in mine]


def _take_turns(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the huge tests unless they are asked for, and the rotated ones whose turn it is not.

    Those of one function come to all shares in turn.
    """
    huge = [item for item in items if item.get_closest_marker("huge")]
    if "huge" not in config.option.markexpr:
        config.hook.pytest_deselected(items=huge)
        items[:] = [item for item in items if item not in huge]
    if ROTATION == "all":
        return
    seen: dict[str, int] = {}
    kept, left_out = [], []
    for item in items:
        compiles = item.get_closest_marker("compiles") and keras.backend.backend() != FIRST_BACKEND
        if item.get_closest_marker("rotated") or compiles:
            function = item.nodeid.partition("[")[0]
            # Each function starts at a share of its own, so that no share gets the first case of all.
            start = sum(function.encode())
            turn = (start + seen.setdefault(function, 0)) % SHARES
            seen[function] += 1
            if turn != int(ROTATION):
                left_out.append(item)
                continue
        kept.append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


# Here XLA optimises as it does for users, since the tests are about rounding, or time and memory. Elsewhere a program
# runs once or twice, and is compiled in two thirds of the time without.
OPTIMISED = ("backend", "integration", "parity", "properties", "stacks")  # not the folders in these


@pytest.fixture(autouse=True, scope="module")
def _quick_compilation(request: pytest.FixtureRequest):
    folder = request.path.relative_to(TESTS).parts[:-1]
    if ROTATION == "all" or folder in [(name,) for name in OPTIMISED]:
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
def _same_start():
    """Sets every seed, and undoes what a test changes of Keras's global settings."""
    policy = keras.config.dtype_policy()
    data_format, floatx = keras.config.image_data_format(), keras.config.floatx()
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(data_format)
    keras.config.set_floatx(floatx)
