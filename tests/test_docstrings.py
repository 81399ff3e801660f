"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest

import keras_residual as kr

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [
    module.name
    for module in pkgutil.walk_packages(kr.__path__, "keras_residual.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    keras.utils.set_random_seed(0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        test.globs |= {"kr": kr, "keras": keras, "np": np}
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.mark.any_backend
def test_every_public_layer_has_an_example() -> None:
    values = [getattr(kr, name) for name in kr.__all__]
    layers = [value for value in values if inspect.isclass(value) and issubclass(value, keras.layers.Layer)]
    # A class is an interface or a leaf, and an interface has nothing to show by itself.
    leaves = [leaf for leaf in layers if not any(other is not leaf and issubclass(other, leaf) for other in layers)]
    assert len(leaves) > 20
    assert [leaf.__name__ for leaf in leaves if ">>>" not in (leaf.__doc__ or "")] == []
