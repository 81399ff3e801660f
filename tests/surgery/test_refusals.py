"""What cannot be residualized is refused with the reason, in full."""

from __future__ import annotations

import re
from typing import Any

import keras
import pytest
from keras import layers

import keras_residual as kr
from keras_residual.surgery.residualize import residualize
from surgery.plain_nets import dense_net, nested_net, two_towers

pytestmark = pytest.mark.any_backend

RULE = "residualize: `model` must be a built Sequential or Functional model"


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.dense(x)


class OwnStep(keras.Model):
    def train_step(self, *args: Any) -> Any:
        return super().train_step(*args)


def own_step() -> keras.Model:
    inputs = keras.Input((3,))
    return OwnStep(inputs, layers.Dense(3)(inputs), name="own")


@pytest.mark.parametrize(
    ("make", "begins", "ends"),
    [
        (lambda: 3, RULE + ", but received 3 (int).", ""),
        (
            lambda: layers.Dense(3, name="dense"),
            RULE + ", but received <Dense name=dense, built=False> (Dense).",
            "",
        ),
        (
            Subclassed,
            RULE + ", not of a subclass, but received <Subclassed",
            "Its call is Python code, not a graph. Put kr.Residual into the code of the model.",
        ),
        (
            own_step,
            RULE + ", not of a subclass, but received <OwnStep name=own, built=True> (OwnStep). ",
            "Methods of its own would be lost. For the graph alone pass keras.Model(model.inputs, model.outputs).",
        ),
        (
            lambda: keras.Sequential([layers.Dense(3)], name="unbuilt"),
            RULE + ", but received <Sequential name=unbuilt, built=False> (Sequential). ",
            "Begin it with keras.Input(shape), or call model.build(shape).",
        ),
    ],
)
def test_models(make: Any, begins: str, ends: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        residualize(make())
    assert str(error.value).startswith(begins)
    assert str(error.value).endswith(ends)


def test_a_model_without_a_place() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="a"), layers.Dense(3, name="b")], name="small")
    reason = (
        "residualize: 'small' has no place for a shortcut. a: the first layer; b: the last layer. Name the layers "
        "yourself with `groups=` where you see one."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        residualize(model)


def drop_one(model: keras.Model) -> Any:
    return kr.drop_blocks(model, blocks=1)


BY_HAND = {
    residualize: "put kr.Residual into the code of the model",
    kr.fold_batch_norm: "leave the norms where they are, since the runtimes that kr.export writes for fold by "
    "themselves",
    drop_one: "leave the blocks out in the code of the model",
}
FIRST = {
    residualize: "Put the shortcuts in first, train,",
    kr.fold_batch_norm: "Fold the norms first,",
    drop_one: "Drop the blocks first, train,",
}
OWNERS = {residualize: "residualize", kr.fold_batch_norm: "fold_batch_norm", drop_one: "drop_blocks"}


@pytest.mark.parametrize("function", OWNERS)
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantised_layer(function: Any, mode: str) -> None:
    model = dense_net()
    model.get_layer("stem").quantize(mode)
    reason = (
        f"{OWNERS[function]}: 'stem' is quantised to {mode}, and only float layers can be copied. {FIRST[function]} "
        "and quantise then."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        function(model)


@pytest.mark.parametrize("function", OWNERS)
def test_a_quantised_layer_in_a_block(function: Any) -> None:
    dense = layers.Dense(4, name="dense")
    model = keras.Sequential([keras.Input((4,)), kr.Residual([dense, layers.BatchNormalization()], name="block")])
    dense.quantize("int8")
    with pytest.raises(ValueError, match=f"^{OWNERS[function]}: 'block' is quantised, in 'dense', to int8, and only"):
        function(model)


@pytest.mark.parametrize("function", OWNERS)
def test_what_its_call_does_is_python(function: Any) -> None:
    with pytest.raises(ValueError, match=f"not a graph. {BY_HAND[function].capitalize()[:5]}.*") as error:
        function(Subclassed())
    assert str(error.value).lower().endswith(f" {BY_HAND[function].lower()}.")


@pytest.mark.parametrize("function", OWNERS)
def test_weights_in_two_places(function: Any) -> None:
    inner = layers.Dense(3, name="dense")
    inputs = keras.Input((3,))
    nested = keras.Model(inputs, inner(inputs), name="nested")
    outer = keras.Input((3,))
    model = keras.Model(outer, inner(nested(outer)))
    reason = (
        f"{OWNERS[function]}: 'dense' and 'nested/dense' share the weight 'dense/kernel'. Copies of them would have "
        f"one each. Use the layer in one place, or {BY_HAND[function]}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        function(model)


@keras.saving.register_keras_serializable(package="tests")
class NoConfig(layers.Layer):
    def __init__(self, table: object, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = table

    def call(self, x: Any) -> Any:
        return x

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


def test_a_layer_that_cannot_be_copied() -> None:
    body = [layers.Dense(3), layers.Dense(3), layers.Dense(3)]
    model = keras.Sequential([keras.Input((3,)), *body, NoConfig(object(), name="mine")])
    begins = "residualize: 'mine' (NoConfig) cannot be copied by its get_config and from_config: "
    with pytest.raises(ValueError, match=f"^{re.escape(begins)}"):
        residualize(model)


def branching() -> keras.Model:
    x = inputs = keras.Input((4,))
    first = layers.Dense(4, name="first")(x)
    second = layers.Dense(4, name="second")(first)
    third = layers.Dense(4, name="third")(layers.Add(name="sum")([first, second]))
    twice = layers.Dense(4, name="twice")
    x = twice(twice(third))
    x = layers.Dropout(0.5, name="always")(x, training=True)
    x = keras.ops.relu(x)
    x = layers.LSTM(4, stateful=True, return_sequences=True, name="loop")(keras.ops.reshape(x, (1, 1, 4)))
    return keras.Model(inputs, x)


def pooled() -> keras.Model:
    rows = [layers.ReLU(name="relu"), layers.GlobalAveragePooling2D(name="pool")]
    return keras.Sequential([keras.Input((8, 8, 1)), *rows])


@pytest.mark.parametrize(
    ("make", "groups", "reason"),
    [
        (branching, [["first", "second"]], "what 'first' makes also goes to 'sum'."),
        (branching, [["first", "third"]], "'third' does not take what 'first' makes."),
        (branching, [["sum"]], "'sum' takes 2 tensors and makes 1, and a branch has one way through."),
        (branching, [["twice"]], "'twice' is called 2 times, and a branch has one place."),
        (branching, [["always"]], "'always' is called with arguments beside its input."),
        (branching, [["loop"]], "'loop' keeps state from batch to batch."),
        (branching, [["thrd"]], "there is no layer 'thrd'. Did you mean 'third'?"),
        (dense_net, [["dense1", "dense1"]], "'dense1' is in it twice."),
        (nested_net, [["encoder/e0", "decoder/d0"]], "its layers are in different models."),
        (nested_net, [["coder/e0"]], "it contains no Functional or Sequential model 'coder'."),
        (pooled, [["relu", "pool"]], "no shortcut leads from 4 axes to 2."),
        (two_towers, [["a1"], ["a2"], ["c1", "up"]], "what 'c1' makes also goes to 'down'."),
    ],
)
def test_groups(make: Any, groups: Any, reason: str) -> None:
    begins = f"residualize: group {len(groups)} ({', '.join(groups[-1])}) cannot have a shortcut: {reason}"
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        residualize(make(), groups=groups)
    assert str(error.value).startswith(begins)


def test_an_operation() -> None:
    model = branching()
    (name,) = [operation.name for operation in model.operations if type(operation).__name__ == "Relu"]
    reason = (
        f"residualize: group 1 ({name}) cannot have a shortcut: {name!r} is an operation (Relu), and a "
        "branch consists of layers."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        residualize(model, groups=[[name]])


def test_a_layer_in_two_groups() -> None:
    reason = "residualize: group 2 (dense2, dense3) cannot have a shortcut: 'dense2' is in group 1 too."
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        residualize(dense_net(), groups=[["dense1", "dense2"], ["dense2", "dense3"]])


@pytest.mark.parametrize("groups", ["dense1", ["dense1"], [[]], [[3]], 3])
def test_groups_of_the_wrong_type(groups: Any) -> None:
    rule = "residualize: `groups` must be groups of suggest_groups, or sequences of names of layers in a row, but "
    with pytest.raises(TypeError, match=f"^{re.escape(rule)}"):
        residualize(dense_net(), groups=groups)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"start": "same"}, ValueError, "residualize: unknown name for `start`: 'same'."),
        ({"scale": "rezero"}, ValueError, "residualize: unknown name for `scale`: 'rezero'."),
        (
            {"every": 2.0},
            TypeError,
            "residualize: `every` must be a whole number of at least 1, but received 2.0 (float).",
        ),
        ({"verbose": 1}, TypeError, "residualize: `verbose` must be True or False, but received 1 (int)."),
        (
            {"every": 2, "groups": [["dense1"]]},
            ValueError,
            "residualize: `every` must be left out where groups are given, but received 2 (int).",
        ),
    ],
)
def test_arguments(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        residualize(dense_net(), **arguments)
