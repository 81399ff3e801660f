"""What is measured on request, on small nets."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from contract import to_numpy
from keras_residual import Residual, ResidualStack
from keras_residual.xray import xray
from keras_residual.xray.measure.on_request import check_quantities
from keras_residual.xray.quantities import by_request

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = RNG.integers(0, 2, size=32)


def branch() -> list[keras.Layer]:
    return [layers.Dense(8, activation="tanh"), layers.Dense(6)]


def mixed() -> keras.Model:
    """Returns a net with a connection of each kind."""
    inputs = keras.Input((6,))
    x = Residual(branch(), name="residual")(inputs)
    x = layers.Add(name="sum")([x, keras.Sequential(branch())(x)])
    x = ResidualStack(Residual(branch()), 3, name="stack")(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


def cross_entropy(probabilities: Any) -> float:
    return float(-np.log(to_numpy(probabilities)[np.arange(32), Y]).mean())


@pytest.fixture(scope="module")
def seen() -> Any:
    keras.utils.set_random_seed(0)
    model = mixed()
    return model, xray(model, X, Y, "sparse_categorical_crossentropy", quantities=list(by_request()))


def test_each_block_has_a_jacobian(seen: Any) -> None:
    _, report = seen
    for block in report.blocks:
        assert 0.2 < block["chi"] < 10
        assert block["singular_value"] > 0.9 * block["chi"] ** 0.5
        assert 0 < block["branch_gain"] < 3
    assert 0 < report.model["effective_depth"] < 5
    assert len(report.model["path_lengths"]) == 6
    assert sum(report.model["path_lengths"]) == pytest.approx(1)


def test_a_lesion_is_the_loss_without_the_block(seen: Any) -> None:
    model, report = seen
    stack = model.get_layer("stack")
    head = model.layers[-1]
    start = ops.convert_to_tensor(X)
    x = model.get_layer("residual")(start)
    summed = x + model.layers[2](x)
    whole = cross_entropy(model(X))
    assert report.model["lesion_loss"] == pytest.approx(whole, rel=1e-4)
    expected = {
        "residual": cross_entropy(head(stack(start + model.layers[2](start)))),
        "sum": cross_entropy(head(stack(x))),
        "stack.1": cross_entropy(head(stack(summed, block_mask=np.array([1, 0, 1])))),
    }
    found = {block["name"]: block["lesion"] for block in report.blocks}
    for name, loss in expected.items():
        assert found[name] == pytest.approx(loss - whole, abs=1e-4), name


def test_what_the_depths_say(seen: Any) -> None:
    _, report = seen
    cka = np.array(report.model["cka"])
    assert cka.shape == (5, 5)
    np.testing.assert_allclose(np.diag(cka), 1, rtol=1e-6)
    assert (cka > 0.1).all()
    assert (cka <= 1 + 1e-9).all()
    assert all(0 <= block["early_exit"] <= 1 for block in report.blocks)
    assert report.model["gradient_autocorrelation"]["1"] > 0.9


def test_it_is_refused_by_name() -> None:
    model = keras.Sequential([keras.Input((6,)), Residual(branch())])
    with pytest.raises(ValueError, match=r"unknown name for `quantities`: 'lesions'. Did you mean 'lesion'"):
        xray(model, X, quantities=["lesions"])
    with pytest.raises(ValueError, match="labels, whole numbers"):
        xray(model, X, quantities=["early_exit"])


@pytest.mark.any_backend
def test_labels_are_classes() -> None:
    check_quantities(["early_exit"], np.array([0, 9999]))
    check_quantities(["early_exit"], np.array([[0], [1]]))
    for numbers in ([0, 10_000], [-1, 3]):
        refusal = rf"`y` must be labels from 0 to 9999, for 'early_exit'.*\({numbers[0]}, {numbers[1]}\)"
        with pytest.raises(ValueError, match=refusal):
            check_quantities(["early_exit"], np.array(numbers))
    with pytest.raises(ValueError, match=r"whole numbers of shape \(batch,\).*int64 of shape \(2, 3\)"):
        check_quantities(["early_exit"], np.zeros((2, 3), "int64"))


def test_a_block_without_a_function_of_its_own_has_no_chi() -> None:
    inputs = keras.Input((6,))
    other = layers.Dense(6)(inputs)
    x = layers.Dense(6)(inputs)
    x = layers.Add()([x, layers.Dense(6)(layers.Multiply()([x, other]))])
    report = xray(keras.Model(inputs, x), X, quantities=["chi", "path_lengths"])
    assert [block["chi"] for block in report.blocks] == [None]
    assert report.model["path_lengths"] is None
