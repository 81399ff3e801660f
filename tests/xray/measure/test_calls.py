"""What is known of a model's ending, and what the rules on nets that cannot learn make of it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_residual import Residual, ResidualStack
from keras_residual.xray import xray
from keras_residual.xray.measure.loss import loss_takes
from keras_residual.xray.rules.setup import no_step, softmax_missing, softmax_twice
from keras_residual.xray.rules.units import dead_layer

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


@pytest.mark.any_backend
def test_what_a_loss_takes() -> None:
    losses = keras.losses
    assert loss_takes("sparse_categorical_crossentropy") == ("sparse_categorical_crossentropy", "probabilities")
    assert loss_takes(losses.BinaryCrossentropy(from_logits=True)) == ("binary_crossentropy", "logits")
    assert loss_takes(losses.CategoricalCrossentropy()) == ("categorical_crossentropy", "probabilities")
    for other in (None, "mse", {"a": "mse"}, "crossentropy", lambda y, outputs: outputs, losses.Huber()):
        assert loss_takes(other) == (None, None)


def test_the_ending_of_a_model() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(2, name="head")])
    model.add(layers.Softmax(name="end"))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    ending = xray(model, X, np.arange(16) % 2).model["ending"]
    outputs = keras.ops.convert_to_numpy(model(X))
    assert ending["output_lowest"] == pytest.approx(outputs.min(), rel=1e-5)
    assert ending["output_highest"] == pytest.approx(outputs.max(), rel=1e-5)
    assert ending["output_off_one"] < 1e-5
    assert (ending["classes"], ending["last_layer"], ending["loss_takes"]) == (2, "end", "probabilities")
    assert ending["head_is_zero"] is False
    head = model.get_layer("head")
    head.set_weights([np.zeros((3, 2)), np.ones(2)])
    assert xray(model, X).model["ending"]["head_is_zero"] is True
    head.trainable = False
    assert xray(model, X).model["ending"]["head_is_zero"] is False, "it stays zero"


@keras.saving.register_keras_serializable(package="test_ending")
class HeadFirst(keras.Model):
    """Names its layers in another order than it calls them."""

    def __init__(self, head: keras.Layer, end: keras.Layer, body: keras.Layer) -> None:
        super().__init__()
        self.end, self.head, self.body = end, head, body

    def call(self, x: Any) -> Any:
        return self.end(self.head(x + self.body(x)))


@pytest.mark.filterwarnings("ignore:.*received `from_logits=True`")
@pytest.mark.parametrize("inside", [False, True], ids=["model", "layer"])
def test_the_last_layer_is_the_last_that_is_called(inside: bool) -> None:
    end = layers.Activation("softmax", name="end")
    net = HeadFirst(layers.Dense(2, name="head"), end, layers.Dense(4, "sigmoid", name="body"))
    net(X)
    net.body.kernel.assign(np.zeros((4, 4)))
    model = keras.Sequential([keras.Input((4,)), net]) if inside else net
    loss, y = keras.losses.SparseCategoricalCrossentropy(from_logits=True), np.arange(16) % 2
    for _ in range(2):
        report = xray(model, X, y, loss)
        found = report.model["ending"]
        assert (found["last_layer"], found["last_activation"], found["head_is_zero"]) == ("end", "softmax", False)
        assert [one.block for one in report.advice if one.rule == "softmax_twice"] == ["end"]
    net.head.set_weights([np.zeros((4, 2)), np.ones(2)])
    assert xray(model, X, y, loss).model["ending"]["head_is_zero"] is True


def test_a_layer_whose_parts_are_not_called_is_itself_the_last() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, "relu", name="first")])
    last = xray(model, X).model["ending"]
    assert (last["last_layer"], last["last_activation"]) == ("first", "relu")
    model.add(layers.Dense(3, activation=layers.ReLU(name="inner"), name="outer"))
    last = xray(model, X).model["ending"]
    assert (last["last_layer"], last["last_activation"]) == ("inner", "relu")
    model.add(layers.Reshape((3, 1)))
    model.add(layers.LSTM(2, name="memory"))
    assert xray(model, X).model["ending"]["last_layer"] in ("memory", "lstm_cell")


def ending(**different: Any) -> dict[str, Any]:
    known = {"loss_takes": "logits", "cross_entropy": "categorical_crossentropy", "last_activation": None}
    known |= {"classes": 3, "output_lowest": 0.1, "output_highest": 0.9, "output_off_one": 1e-6, "last_layer": "end"}
    return {"ending": {**known, **different}}


def names(rule: Any, model: dict[str, Any], blocks: Any = ()) -> list[str]:
    return [entry.block for entry in rule(list(blocks), model)]


@pytest.mark.any_backend
def test_one_softmax_and_no_more() -> None:
    assert names(softmax_twice, ending()) == ["end"]
    assert names(softmax_twice, ending(loss_takes="probabilities")) == []
    assert names(softmax_twice, ending(output_lowest=-0.1)) == []
    assert names(softmax_twice, ending(output_off_one=0.3)) == []
    binary = {"cross_entropy": "binary_crossentropy", "classes": 1}
    assert names(softmax_twice, ending(**binary, last_activation="sigmoid")) == ["end"]
    assert names(softmax_twice, ending(**binary)) == [], "logits may happen to lie between 0 and 1"
    assert names(softmax_missing, ending(loss_takes="probabilities", output_highest=3.0)) == ["end"]
    assert names(softmax_missing, ending(loss_takes="probabilities")) == []
    assert names(softmax_missing, ending(output_highest=3.0)) == []
    for rule in (softmax_twice, softmax_missing):
        assert names(rule, ending(loss_takes=None)) == names(rule, {}) == []


@pytest.mark.any_backend
def test_a_constant_rate_of_zero_and_no_schedule() -> None:
    blocks = [{"name": "fixed", "weight_gradient_norm": None}, {"name": "moved", "weight_gradient_norm": 1.0}]
    assert names(no_step, {"learning_rate": 0.0, "learning_rate_scheduled": False}, blocks) == ["moved"]
    assert names(no_step, {"learning_rate": 0.0, "learning_rate_scheduled": True}, blocks) == []
    assert names(no_step, {"learning_rate": 1e-9, "learning_rate_scheduled": False}, blocks) == []
    assert names(no_step, {"learning_rate": None}, blocks) == []


@pytest.mark.any_backend
def test_a_layer_is_dead_where_nothing_passes() -> None:
    blocks = [{"name": str(share), "kind": "layer", "dead_units": share} for share in (None, 0.9, 1.0, 1.0)]
    assert names(dead_layer, {"batch": 64}, blocks) == ["1.0"]
    assert names(dead_layer, {"batch": 8}, blocks) == [], "they may be rare"
    assert names(dead_layer, {"batch": 64}, [{**block, "kind": "residual"} for block in blocks]) == []


@pytest.mark.parametrize("trained", [True, False])
def test_what_enters_a_reversible_stack_within_a_branch_is_known(trained: bool) -> None:
    block = Residual(layers.Dense(4, activation="tanh", name="dense"))
    stack = ResidualStack(block, 3, topology="reversible", execution="unrolled")
    model = keras.Sequential([keras.Input((4,)), Residual(stack), layers.Dense(2, name="head")])
    model.trainable = trained
    model.compile("sgd", "mse")
    report = xray(model, X, np.zeros((16, 2), "float32"))
    (entry,) = report.model["entries"]
    assert (entry["layer"], entry["rms"]) == ("dense", pytest.approx(np.sqrt(np.mean(X**2)), rel=1e-5))
    assert report.model["ending"]["last_layer"] == "head"
