"""The rule by which groups are found, and what is left alone and why."""

from __future__ import annotations

import re
from typing import Any

import keras
import pytest
from keras import layers

from keras_residual.surgery.plan import Group, ResidualPlan
from keras_residual.surgery.suggest import suggest_groups
from surgery.plain_nets import conv_net, dense_net, nested_net, sequence_net, two_towers

pytestmark = pytest.mark.any_backend


def found(plan: Any) -> dict[str, tuple[str, ...]]:
    return {group.name: group.layers for group in plan}


def chain(shape: tuple[int | None, ...], *body: keras.Layer) -> keras.Model:
    """A stem, the layers, a head that counts."""
    stem = [layers.Conv2D(4, 1, name="stem") if len(shape) == 3 else layers.Dense(4, name="stem")]
    end = [layers.Flatten(name="flat")] if len(shape) == 3 else []
    return keras.Sequential([keras.Input(shape), *stem, *body, *end, layers.Dense(1, name="head")])


def test_a_group_ends_behind_its_norm_and_before_the_activation() -> None:
    plan = suggest_groups(conv_net())
    assert found(plan) == {
        "conv1_residual": ("conv1", "norm1", "relu1", "conv2", "norm2"),
        "conv3_residual": ("conv3", "norm3", "relu3", "conv4", "norm4"),
        "conv5_residual": ("conv5", "norm5"),
        "fc1_residual": ("fc1",),
    }
    assert [group.shortcut for group in plan] == ["identity", "projection", "identity", "projection"]
    assert [group.activation for group in plan] == [None, None, None, "relu"]
    assert plan.left_alone == (("conv0", "the first layer"), ("head", "the last layer"))


def test_a_norm_behind_the_activation_belongs_to_the_group() -> None:
    body = [
        layers.Dense(4, activation="relu", name="d1"),
        layers.BatchNormalization(name="n1"),
        layers.Dropout(0.1, name="o1"),
    ]
    (group,) = suggest_groups(chain((4,), *body))
    assert group.layers == ("d1", "n1")
    assert group.activation is None


def test_without_norm_and_activation_dropout_belongs_to_the_group() -> None:
    (group,) = suggest_groups(chain((4,), layers.Dense(4, name="d1"), layers.Dropout(0.1, name="o1")))
    assert group.layers == ("d1", "o1")


@pytest.mark.parametrize(
    ("widths", "every", "groups"),
    [
        ((4, 4, 4, 4), 2, [(0, 1), (2, 3)]),
        ((4, 4, 4, 4, 4), 2, [(0, 1), (2, 3), (4,)]),
        ((4, 4, 4, 4, 4), 3, [(0, 1, 2), (3, 4)]),
        ((4, 4), 1, [(0,), (1,)]),
        ((4, 4, 4, 8, 8), 2, [(0, 1), (2,), (3, 4)]),  # the change begins a group
        ((16, 4, 16, 4), 2, [(0, 1), (2, 3)]),  # there and back: one group, by the identity
        ((4, 4, 16), 3, [(0, 1), (2,)]),
    ],
)
def test_windows(widths: tuple[int, ...], every: int, groups: list[tuple[int, ...]]) -> None:
    body = [layers.Dense(width, name=f"d{i}") for i, width in enumerate(widths)]
    plan = suggest_groups(chain((4,), *body), every=every)
    assert [tuple(int(name[1:]) for name in group.layers) for group in plan] == groups


def test_a_change_of_unknown_size_counts_as_one() -> None:
    x = inputs = keras.Input((None, None, 4))
    for i, strides in enumerate((1, 1, 2, 1, 1)):
        x = layers.Conv2D(4, 3, strides=strides, padding="same", name=f"c{i}")(x)
    plan = suggest_groups(keras.Model(inputs, x))
    assert [group.layers for group in plan] == [("c1",), ("c2", "c3")]


def test_nothing_leads_across_pooling_or_flatten() -> None:
    body = [
        layers.Conv2D(4, 3, padding="same", name="c1"),
        layers.MaxPooling2D(name="pool"),
        layers.Conv2D(4, 3, padding="same", name="c2"),
        layers.Conv2D(4, 3, padding="same", name="c3"),
        layers.Conv2D(4, 3, padding="same", name="c4"),
    ]
    plan = suggest_groups(chain((8, 8, 1), *body))
    assert [group.layers for group in plan] == [("c1",), ("c2", "c3"), ("c4",)]


def test_a_size_that_no_stride_leads_to_is_left_alone() -> None:
    plan = suggest_groups(chain((8, 8, 1), layers.Conv2D(4, 3, name="valid"), layers.Conv2D(4, 1, name="one")))
    assert found(plan) == {"one_residual": ("one",)}
    assert (
        dict(plan.left_alone)["valid"] == "no stride or whole factor takes a size of 8 to 6; padding='same' keeps sizes"
    )


def test_branches_of_residual_nets_are_left_alone() -> None:
    x = inputs = keras.Input((4,))
    x = layers.Dense(4, name="stem")(x)
    h = layers.Dense(4, name="b2")(layers.Dense(4, name="b1")(x))
    x = layers.Add()([x, h])
    x = layers.Dense(4, name="c1")(x)
    x = layers.Dense(4, name="c2")(x)
    plan = suggest_groups(keras.Model(inputs, layers.Dense(1, name="head")(x)))
    assert found(plan) == {"c1_residual": ("c1", "c2")}
    assert dict(plan.left_alone)["b1"] == dict(plan.left_alone)["b2"] == "another path leads around it"


def test_stems_and_heads_of_a_graph_and_of_models_inside_it() -> None:
    plan = suggest_groups(two_towers())
    assert found(plan) == {"a1_residual": ("a1", "drop", "a2"), "b1_residual": ("b1", "b2"), "c1_residual": ("c1",)}
    left = dict(plan.left_alone)
    assert [name for name, why in left.items() if why == "the first layer"] == ["a0", "b0"]
    assert sorted(name for name, why in left.items() if why == "the last layer") == ["down", "up"]
    plan = suggest_groups(nested_net())
    assert [group.layers for group in plan] == [
        ("encoder/e0", "encoder/e1"),
        ("encoder/e2",),
        ("decoder/d0", "decoder/d1"),
    ]


def test_an_embedding_is_the_stem_and_a_mask_is_no_path() -> None:
    plan = suggest_groups(sequence_net())
    assert [group.layers for group in plan] == [("dense0", "dense1"), ("dense2", "dense3")]
    assert dict(plan.left_alone) == {
        "embedding": "no rule for Embedding",
        "lstm": "no rule for LSTM",
        "head": "the last layer",
    }


def test_a_shared_layer_is_left_alone() -> None:
    x = inputs = keras.Input((4,))
    x = layers.Dense(4, name="stem")(x)
    twice = layers.Dense(4, name="twice")
    x = layers.Dense(4, name="between")(twice(x))
    plan = suggest_groups(keras.Model(inputs, layers.Dense(1, name="head")(twice(x))))
    assert found(plan) == {"between_residual": ("between",)}
    assert dict(plan.left_alone)["twice"] == "called more than once"


def test_a_name_that_is_taken_gets_a_number() -> None:
    plan = suggest_groups(chain((4,), layers.Dense(4, name="d"), layers.Dense(4, name="d_residual")), every=1)
    assert [group.name for group in plan] == ["d_residual_2", "d_residual_residual"]


def test_a_deep_chain_is_walked_without_recursion() -> None:
    plan = suggest_groups(dense_net(blocks=150, width=2))
    assert len(plan) == 150
    assert plan[149].layers == ("dense299", "dense300")


def test_a_plan_as_text_and_as_data() -> None:
    plan = suggest_groups(conv_net())
    assert str(plan).splitlines()[:3] == [
        "4 shortcuts:",
        "  conv1_residual: conv1, norm1, relu1, conv2, norm2; identity, ?×?×4",
        "  conv3_residual: conv3, norm3, relu3, conv4, norm4; projection, ?×?×4 → ?×?×8",
    ]
    assert plan.to_dict()["groups"][3] == {
        "name": "fc1_residual",
        "layers": ("fc1",),
        "shortcut": "projection",
        "input_shape": (None, 8),
        "output_shape": (None, 5),
        "activation": "relu",
    }


def test_a_plan_in_a_notebook_holds_the_same_and_no_html_of_others() -> None:
    group = Group("<b>", ("a", "x\x1b[2J"), "projection", (None, 4), (None, 8), "relu")
    shown = ResidualPlan((group,), (("<i>", "called & more"),))._repr_html_()
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>|<caption[^>]*>([^<]*)</caption>", shown)
    assert [first or second for first, second in cells] == [
        *("1 shortcut", "Residual", "layers", "shortcut", "shape"),
        *("&lt;b&gt;", r"a, x\x1b[2J → relu", "projection", "4 → 8"),
        *("Left alone", "&lt;i&gt;", "called &amp; more"),
    ]
    assert "\x1b" not in str(ResidualPlan((group,)))


def test_every_is_a_whole_number() -> None:
    with pytest.raises(
        ValueError, match=r"^suggest_groups: `every` must be a whole number of at least 1, but received 0"
    ):
        suggest_groups(dense_net(), every=0)
