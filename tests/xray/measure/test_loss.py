"""The loss that is followed is what Keras computes of the same model and batch."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_residual import Residual, drop_blocks
from keras_residual.xray import XrayCallback, xray

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4)).astype("float32")
LABELS = RNG.integers(0, 3, size=16)
WIDE, NARROW = RNG.normal(size=(16, 3)).astype("float32"), RNG.normal(size=16).astype("float32")


def two() -> keras.Model:
    inputs = keras.Input((4,))
    x = layers.Dense(4, activation="tanh")(inputs)
    x = layers.Add()([inputs, x])
    return keras.Model(inputs, [layers.Dense(3, name="wide")(x), layers.Dense(1, name="narrow")(x)])


def by_keras(model: keras.Model, x: Any, y: Any) -> float:
    return float(model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)["loss"])


def check(model: keras.Model, x: Any, y: Any, **asked: Any) -> None:
    report = xray(model, x, y, training=False, verbose=False, **asked)
    expected = by_keras(model, x, y)
    assert report.model["loss"] == pytest.approx(expected, rel=1e-4)
    if asked:
        assert report.model["lesion_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "compiled",
    [
        {"loss": "mse"},
        {"loss": ["mse", "mae"], "loss_weights": [0.5, 10.0]},
        {"loss": {"wide": "mse", "narrow": "mae"}, "loss_weights": {"wide": 10.0, "narrow": 0.25}},
        {"loss": ["mse", None]},
    ],
    ids=["one_name", "weights", "weights_by_name", "one_without"],
)
def test_of_two_outputs(compiled: dict[str, Any]) -> None:
    model = two()
    model.compile("sgd", **compiled)
    check(model, X, [WIDE, NARROW], quantities=["lesion"])


def test_of_targets_by_name() -> None:
    model = two()
    model.compile("sgd", "mse")
    check(model, X, {"narrow": NARROW, "wide": WIDE})


def test_the_weight_of_one_output() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.compile("sgd", "mse", loss_weights=[3.0])
    check(model, X, WIDE)
    given = xray(model, X, WIDE, "mse", training=False).model["loss"]
    assert 3 * given == pytest.approx(by_keras(model, X, WIDE), rel=1e-4), "that of `compile` is not asked"


@pytest.mark.parametrize("loss", ["mse", lambda y, outputs: ops.square(y - outputs)], ids=["name", "function"])
def test_a_column_of_outputs_and_a_row_of_targets(loss: Any) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", loss)
    check(model, X, NARROW)
    by_hand = np.square(np.asarray(model.predict(X, verbose=0))[:, 0] - NARROW).mean()
    assert xray(model, X, NARROW, training=False).model["loss"] == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "crossentropy"])
def test_what_is_masked_is_left_out(loss: str) -> None:
    tokens = RNG.integers(1, 5, size=(16, 6))
    tokens[:, 3:] = 0
    model = keras.Sequential([layers.Embedding(5, 4, mask_zero=True), layers.Dense(3, activation="softmax")])
    model.compile("sgd", loss)
    labels = np.where(tokens > 0, 1, 2)
    check(model, tokens, labels)
    probabilities = np.asarray(model.predict(tokens, verbose=0))
    assert xray(model, tokens, labels).model["loss"] == pytest.approx(-np.log(probabilities[:, :3, 1]).mean(), rel=1e-4)


def test_other_weights_of_the_same_loss_are_another_loss() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    watch = XrayCallback(X, WIDE, every="epoch")
    losses = []
    for weight in (1.0, 4.0):
        model.compile(keras.optimizers.SGD(0.0), "mse", loss_weights=[weight])
        losses.append(xray(model, X, WIDE).model["loss"])
        model.fit(X, WIDE, epochs=1, verbose=0, callbacks=[watch])
    assert losses[1] == pytest.approx(4 * losses[0], rel=1e-5)
    assert watch.reports[-1].model["loss"] == pytest.approx(losses[1], rel=1e-5)


def test_what_is_no_loss_is_refused_before_anything_runs() -> None:
    model = two()
    with pytest.raises(ValueError, match="mean_square"):
        xray(model, X, [WIDE, NARROW], {"wide": "mean_square", "narrow": None})


def test_weights_of_samples_count_as_in_training() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.compile("sgd", "mse")
    weights = np.linspace(0, 2, 16).astype("float32")
    expected = model.evaluate(X, WIDE, sample_weight=weights, batch_size=16, verbose=0)
    found = xray(model, X, WIDE, sample_weight=weights, quantities=["lesion"], training=False, verbose=False)
    assert found.model["loss"] == pytest.approx(expected, rel=1e-4)
    assert found.model["lesion_loss"] == pytest.approx(expected, rel=1e-4)
    assert found.model["loss"] != pytest.approx(xray(model, X, WIDE, training=False).model["loss"], rel=1e-2)
    again = xray(model, X, WIDE, sample_weight=weights[::-1].copy(), training=False).model["loss"]
    assert again == pytest.approx(
        model.evaluate(X, WIDE, sample_weight=weights[::-1], batch_size=16, verbose=0), rel=1e-4
    )
    with pytest.raises(ValueError, match="`y` must be the targets of the loss that `sample_weight` weighs"):
        xray(model, X, sample_weight=weights)


def test_weights_of_samples_of_two_outputs() -> None:
    model = two()
    model.compile("sgd", ["mse", "mae"])
    weights, y = [np.linspace(0, 2, 16).astype("float32"), np.ones(16, "float32")], [WIDE, NARROW]
    expected = model.evaluate(X, y, sample_weight=weights, batch_size=16, verbose=0, return_dict=True)["loss"]
    assert xray(model, X, y, sample_weight=weights, training=False).model["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("sparse", [True, False])
def test_classes_are_counted_along_the_axis_of_the_loss(axis: int, sparse: bool) -> None:
    made = keras.losses.SparseCategoricalCrossentropy if sparse else keras.losses.CategoricalCrossentropy
    loss, labels = made(from_logits=True, axis=axis), RNG.integers(0, 5, size=(16, 4))
    shape = (5, 4) if axis == 1 else (4, 5)
    x = RNG.normal(size=(16, *shape)).astype("float32")
    model = keras.Sequential([keras.Input(shape), layers.Dense(shape[-1])])
    y = labels if sparse else np.moveaxis(np.eye(5, dtype="float32")[labels], -1, axis)
    report = xray(model, x, y, loss, training=False)
    assert report.model["loss"] == pytest.approx(float(loss(y, model.predict(x, verbose=0))), rel=1e-4)
    assert report.model["labels"][0]["classes"] == 5
    assert not [entry for entry in report.advice if entry.rule == "labels_out_of_range"]


SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HOT = np.eye(3, dtype="float32")[LABELS]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("loss", "changed", "line"),
    [
        ("mse", {"y": WIDE[:5]}, "`y` must be arrays of 16 rows, one for each of `x`, but received (5, 3)"),
        ("mse", {"y": WIDE[:1]}, "`y` must be arrays of 16 rows"),
        ("mse", {"sample_weight": np.ones(5)}, "`sample_weight` must be arrays of 16 rows"),
        ("mse", {"sample_weight": np.ones(1)}, "`sample_weight` must be arrays of 16 rows"),
        ("mse", {"sample_weight": np.ones((16, 3))}, "`sample_weight` must be weights of shape (16,), for targets of"),
        ("mse", {"sample_weight": {"a": np.ones(16)}}, "`sample_weight` must be one array, but received ['a']"),
        ("mse", {"sample_weight": ["a"] * 16}, "`sample_weight` must be "),
        (
            "mse",
            {"y": NARROW},
            "`y` must be targets of shape (16, 3), for outputs of shape (16, 3), but received (16,)",
        ),
        (
            "mse",
            {"y": WIDE[:, :2]},
            "`y` must be targets of shape (16, 3), for outputs of shape (16, 3), but",
        ),
        ("mse", {"y": [WIDE, WIDE]}, "`y` must be one array, but received '2 of them'"),
        (
            "mse",
            {"y": np.array(["a"] * 16)},
            "`y` must be an array or a tensor of numbers, but received '",
        ),
        (
            "mse",
            {"y": np.array([None] * 16)},
            "`y` must be an array or a tensor of numbers, but received '",
        ),
        (
            "mse",
            {"x": np.array([[None] * 4] * 16)},
            "`x` must be an array or a tensor of numbers, but rec",
        ),
        ("mse", {"x": {}}, "`x` must be a batch of at least one array, but received {} (dict)."),
        ("mse", {"x": None}, "`x` must be an array or a tensor with a batch axis"),
        (
            SPARSE,
            {"y": HOT},
            "`y` must be targets of shape (16,), for outputs of shape (16, 3), but received (16, 3)",
        ),
        (
            "categorical_crossentropy",
            {"y": LABELS},
            "`y` must be targets of shape (16, 3), for outputs of shape (16, 3), bu",
        ),
    ],
)
def test_what_does_not_fit_the_batch_or_the_loss_is_named(loss: Any, changed: dict[str, Any], line: str) -> None:
    model = keras.Sequential([keras.Input((4,)), Residual(layers.Dense(4)), layers.Dense(3)])
    with pytest.raises((ValueError, TypeError), match=f"^xray: {re.escape(line)}"):
        xray(model, **{"x": X, "y": WIDE, "loss": loss, **changed})
    if changed.get("x", X) is not None:
        with pytest.raises((ValueError, TypeError), match=f"^drop_blocks: {re.escape(line)}"):
            drop_blocks(model, **{"x": X, "y": WIDE, "loss": loss, **changed})


@pytest.mark.any_backend
@pytest.mark.parametrize("quantities", [3, None, [3], [None]])
def test_quantities_are_names(quantities: Any) -> None:
    with pytest.raises(TypeError, match=r"^xray: `quantities` must be a list of quantity names, such as"):
        xray(two(), X, quantities=quantities)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("loss", "y", "weights"),
    [
        (SPARSE, LABELS[:, None], np.linspace(0, 1, 16)[:, None]),
        (SPARSE, LABELS.astype("float32"), None),
        ("mse", WIDE[:, :1], np.linspace(0, 1, 16)),
        (keras.losses.Huber(), [WIDE], None),
        ("mse", WIDE, {"head": np.linspace(0, 1, 16)}),
    ],
)
def test_what_training_takes_is_taken(loss: Any, y: Any, weights: Any) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, name="head")(inputs))
    found = xray(model, X, y, loss, sample_weight=weights, training=False).model["loss"]
    model.compile("sgd", loss)
    y, weights = (keras.tree.flatten(part)[0] if part is not None else None for part in (y, weights))
    expected = model.evaluate(X, y, sample_weight=weights, batch_size=16, verbose=0)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.any_backend
def test_weights_by_the_names_of_outputs() -> None:
    model, weights = two(), {"narrow": np.linspace(0, 1, 16), "wide": np.ones(16)}
    model.compile("sgd", ["mse", "mae"])
    by_name = xray(model, X, [WIDE, NARROW], sample_weight=weights, training=False).model["loss"]
    listed = [weights["wide"], weights["narrow"]]
    assert by_name == xray(model, X, [WIDE, NARROW], sample_weight=listed, training=False).model["loss"]
    with pytest.raises(
        ValueError, match="`y` must be 2 arrays, one for each output, by its name: wide, narrow, but rec"
    ):
        xray(model, X, WIDE)
