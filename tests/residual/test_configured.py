"""What a configuration says, and what it leaves out."""

from __future__ import annotations

import json
import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_residual import GRUMerge, ProjectionShortcut, Residual
from keras_residual.layers import SqueezeExcite

pytestmark = pytest.mark.any_backend


def test_ids_stand_for_layers_that_occur_again_and_for_no_address() -> None:
    dense = layers.Dense(4)
    layer = Residual([dense, layers.ReLU(), dense, layers.Dense(4)], name="r")
    config = layer.get_config()
    ids = [branch.get("shared_object_id") for branch in config["branch"]]
    assert ids == ["r/0", None, "r/0", None]
    copy = Residual.from_config(config)
    assert copy.branch[0] is copy.branch[2] is not copy.branch[3]
    assert copy.get_config() == config


def test_two_copies_of_a_layer_share_nothing() -> None:
    dense = layers.Dense(4)
    config = Residual([dense, dense]).get_config()
    one, other = Residual.from_config(config), Residual.from_config(config)
    assert one.branch[0] is one.branch[1] is not other.branch[0]


def test_only_what_was_changed_is_written() -> None:
    layer = Residual(layers.Dense(3), norm="layer_norm", norm_position="peri", merge="gru", drop_path_rate=0.1)
    before = layer.get_config()
    layer.build((None, 4))
    assert layer.get_config() == before
    layer.out_norm.trainable = False
    layer.drop_path.rate = 0.5
    layer.merge_layer.update_skip.trainable = False
    layer.shortcut_layer.projection.enable_lora(2)
    changed = layer.get_config()["changed_parts"]
    assert changed == {
        "drop_path": {"rate": 0.5},
        "out_norm": {"trainable": False},
        "merge_layer": {"changed_parts": {"update_skip": {"trainable": False}}},
        "shortcut_layer": {"changed_parts": {"projection": {"lora_rank": 2, "lora_alpha": 2}}},
    }


def test_what_is_changed_before_a_layer_is_built_is_written_too() -> None:
    layer = Residual(layers.Dense(4), drop_path_rate=0.1)
    layer.drop_path.rate = 0.5
    copy = Residual.from_config(layer.get_config())
    copy.build((None, 4))
    assert copy.drop_path.rate == 0.5
    assert copy.get_config()["changed_parts"] == {"drop_path": {"rate": 0.5}}


def test_parts_follow_the_layer_unless_told_otherwise() -> None:
    layer = Residual(layers.Dense(3), norm="layer_norm")
    layer.build((None, 4))
    layer.trainable = False
    assert "changed_parts" not in layer.get_config()
    layer.dtype_policy = "mixed_bfloat16"
    assert layer.get_config()["changed_parts"]["pre_norm"].keys() == {"dtype"}
    copy = Residual.from_config(layer.get_config())
    copy.build((None, 4))
    assert (copy.dtype_policy.name, copy.pre_norm.dtype_policy.name) == ("mixed_bfloat16", "float32")


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda **kwargs: Residual(layers.Dense(3), norm="batch_norm", merge="gru", **kwargs), (2, 4)),
        (GRUMerge, [(2, 4), (2, 4)]),
        (lambda **kwargs: ProjectionShortcut(3, norm="batch_norm", **kwargs), (2, 4)),
        (SqueezeExcite, (2, 4, 4, 4)),
    ],
)
def test_a_layer_that_is_made_frozen_has_nothing_to_train(make: Any, shape: Any) -> None:
    layer = make(trainable=False)
    layer.build(shape)
    assert not [weight.path for weight in layer.weights if weight.trainable]
    layer.trainable = True
    assert [weight.path for weight in layer.weights if weight.trainable]


def test_numbers_and_sequences_of_numpy_are_written_as_plain_ones() -> None:
    layer = ProjectionShortcut(int(np.int64(3)), (2, 1), norm="batch_norm")
    config = Residual(layers.Conv2D(3, 3), shortcut=layer, branch_scale=np.float32(0.5)).get_config()
    assert json.loads(json.dumps(config)) == config
    assert (config["shortcut"]["config"]["strides"], config["branch_scale"]) == ([2, 1], 0.5)


def test_a_configuration_may_be_short() -> None:
    dense = keras.saving.serialize_keras_object(layers.Dense(4))
    layer = Residual.from_config({"branch": [dense]})
    assert layer.merge == "add"


def test_the_older_format_takes_names_for_functions_of_keras() -> None:
    config = {**Residual(layers.Dense(4)).get_config(), "merge": layers.add}
    assert Residual.from_config(config).merge == "add"


def test_what_cannot_be_saved_works_until_it_is_saved() -> None:
    class Opaque(layers.LayerNormalization):
        def get_config(self) -> dict[str, Any]:
            raise NotImplementedError("no configuration")

    norm = Opaque()
    norm.build((None, 4))
    layer = Residual(layers.Dense(4), norm=norm)
    layer.build((None, 4))
    with pytest.raises(NotImplementedError, match=r"^no configuration$"):
        layer.get_config()


def test_layers_of_one_name_have_weights_of_different_paths() -> None:
    layer = Residual([layers.Dense(4, name="d"), layers.Dense(4, name="d"), layers.Dense(4, name="d")], name="r")
    layer.build((None, 4))
    assert [weight.path for weight in layer.weights if weight.name == "kernel"] == [
        "r/d/kernel",
        "r/d_1/d/kernel",
        "r/d_2/d/kernel",
    ]


def test_building_a_connection_is_no_call_in_the_graph_of_a_model() -> None:
    dense, norm = layers.Dense(4), layers.BatchNormalization()
    Residual([dense, norm]).build((None, 4))
    assert not dense._inbound_nodes
    assert not norm._inbound_nodes


# --- Classes that others derive --------------------------------------------------------------------------------------


class Sharp(GRUMerge):
    def __init__(self, sharpness: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sharpness = sharpness


class Named:
    def __init__(self, *args: Any, label: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label = label


class Labelled(Named, Sharp):
    pass


class Renaming(GRUMerge):
    def __init__(self, sharpness: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = sharpness

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sharpness": self.power}


def test_arguments_of_derived_classes_are_in_the_configuration() -> None:
    config = Labelled(label="a", sharpness=2.0, axis=1, dtype="mixed_bfloat16", name="merge").get_config()
    assert (config["label"], config["sharpness"], config["axis"], config["name"]) == ("a", 2.0, 1, "merge")
    copy = Labelled.from_config(config)
    assert (copy.label, copy.sharpness, copy.axis, copy.dtype_policy.name) == ("a", 2.0, 1, "mixed_bfloat16")


def test_a_derived_class_may_write_its_arguments_itself() -> None:
    config = Renaming(sharpness=2.0).get_config()
    assert config["sharpness"] == 2.0
    assert Renaming.from_config(config).power == 2.0


def test_an_argument_that_no_attribute_holds() -> None:
    class Forgetful(GRUMerge):
        def __init__(self, sharpness: float = 1.0, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    message = (
        "Forgetful: the argument `sharpness` of the constructor must be an attribute of the same name, or it cannot be "
        "saved. Set `self.sharpness`, or override `get_config`."
    )
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}$"):
        Forgetful().get_config()
