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
LAYERS = [
    name
    for name in kr.__all__
    if inspect.isclass(getattr(kr, name)) and issubclass(getattr(kr, name), keras.layers.Layer)
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
@pytest.mark.parametrize("name", LAYERS)
def test_public_layer_has_an_example(name: str) -> None:
    assert ">>>" in (getattr(kr, name).__doc__ or "")
