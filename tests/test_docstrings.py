"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re

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


def _tuple(match: re.Match[str]) -> str:
    return repr(ast.literal_eval(f"({match[1]},)" if match[1] else "()"))


class ShapesAlike(doctest.OutputChecker):
    """Takes `torch.Size([2, 4])` and `TensorShape([2, 4])` for the `(2, 4)` that JAX and NumPy print."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        got = re.sub(r"(?:torch\.Size|TensorShape)\(\[([^]]*)\]\)", _tuple, got)
        return super().check_output(want, got, optionflags)


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    keras.utils.set_random_seed(0)
    report: list[str] = []
    runner = doctest.DocTestRunner(ShapesAlike(), optionflags=OPTIONS, verbose=False)
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
