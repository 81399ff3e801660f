"""Names with tags, defaults, weights from places, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_residual as kr
from contract import to_numpy
from keras_residual.weights.save import state_dict, write_safetensors


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder in the layout of timm's repositories, with a network of four classes."""
    keras.utils.set_random_seed(5)
    model = kr.create_model("test_resnet", input_shape=(32, 32, 3), num_classes=4)
    kr.save_weights(model, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet", "num_classes": 4}))
    return tmp_path


@pytest.mark.any_backend
def test_weights_come_from_a_folder(repository: Path) -> None:
    made = [
        kr.create_model("test_resnet", input_shape=(32, 32, 3), num_classes=4, weights=repository) for _ in range(2)
    ]
    for name, value in state_dict(made[0]).items():
        np.testing.assert_array_equal(value, state_dict(made[1])[name])


@pytest.mark.any_backend
def test_other_classes_than_the_weights_have_get_a_new_head(repository: Path) -> None:
    known = kr.create_model("test_resnet", input_shape=(32, 32, 3), num_classes=4, weights=repository)
    model = kr.create_model("test_resnet", input_shape=(32, 32, 3), num_classes=9, weights=repository)
    assert model.output_shape == (None, 9)
    ours, theirs = state_dict(model), state_dict(known)
    np.testing.assert_array_equal(ours["layer4.0.conv2.weight"], theirs["layer4.0.conv2.weight"])


@pytest.mark.any_backend
def test_a_tag_asks_for_its_weights_and_says_what_it_wants(repository: Path, monkeypatch: Any) -> None:
    asked = []

    def download(repo_id: str, **_: Any) -> Path:
        asked.append(repo_id)
        return repository

    monkeypatch.setattr("keras_residual.weights.hub.download", download)
    model = kr.create_model("test_resnet.r160_in1k", num_classes=9)
    assert asked == ["timm/test_resnet.r160_in1k"]
    assert model.input_shape == (None, 160, 160, 3)
    kr.create_model("test_resnet.r160_in1k", weights=None)
    kr.create_model("test_resnet", input_shape=(32, 32, 3))
    assert len(asked) == 1


@pytest.mark.any_backend
def test_a_checkpoint_of_other_classes_is_refused_where_the_number_was_not_chosen(
    repository: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("keras_residual.weights.hub.download", lambda *_, **__: repository)
    with pytest.raises(kr.CheckpointError, match=r"of another shape: fc\.weight"):
        kr.create_model("test_resnet.r160_in1k")


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet5O", "Did you mean 'resnet50'"),
        ("resnet50.a1_in2k", r"Did you mean 'resnet50\.a1_in1k'"),
        ("resnetv2_50x1_bits", "Did you mean 'resnetv2_50x1_bit'"),
        ("ResNet50V2", "The nearest is 'resnetv2_50'"),
    ],
)
def test_a_name_with_a_mistake_is_refused_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        kr.create_model(name)


@pytest.mark.any_backend
def test_names_of_other_libraries_are_known(monkeypatch: Any) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "keras_residual.models.registry.load_weights", lambda model, place, **_: asked.append(str(place))
    )
    model = kr.create_model("ResNet18_Weights.IMAGENET1K_V1", input_shape=(32, 32, 3))
    assert (model.name, asked) == ("resnet18", ["hf://timm/resnet18.tv_in1k"])


@pytest.mark.any_backend
def test_networks_for_no_known_pictures_want_their_shape() -> None:
    with pytest.raises(ValueError, match="`input_shape` must be given for 'cifar_resnet20'"):
        kr.create_model("cifar_resnet20", num_classes=10)
    with pytest.raises(ValueError, match="`num_classes` must be given for 'cifar_resnet20'"):
        kr.create_model("cifar_resnet20", input_shape=(32, 32, 3))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"output_stride": 4}, "`output_stride` must be 8, 16 or 32"),
        ({"drop_block_rate": 1.5}, "`drop_block_rate`"),
        ({"weights": 3}, "`weights` must be 'auto', 'pretrained', None or a place"),
        ({"input_shape": (32, 32)}, r"`input_shape` must be \(height, width, channels\)"),
    ],
)
def test_choices_that_break_their_rules_are_named(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        kr.create_model("resnet18", **arguments)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["series_resnet", "tabular_resnet"])
def test_networks_on_no_pictures_have_no_maps(name: str) -> None:
    shape = (20, 2) if name == "series_resnet" else (7,)
    with pytest.raises(ValueError, match="`features_only` must be False for"):
        kr.create_model(name, input_shape=shape, num_classes=2, features_only=True)


@pytest.mark.any_backend
def test_volumes_are_networks_too() -> None:
    model = kr.create_model("resnet3d_10", input_shape=(16, 32, 32, 1), num_classes=2)
    assert to_numpy(model(np.zeros((1, 16, 32, 32, 1), "float32"))).shape == (1, 2)


def test_drop_block_acts_in_training_only() -> None:
    model = kr.create_model("resnet10t", input_shape=(64, 64, 3), num_classes=3, drop_block_rate=0.3)
    block = next(layer for layer in model.layers if layer.name.startswith("stage4"))
    assert any(isinstance(layer, kr.layers.DropBlock2D) for layer in block.branch)
    x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    np.testing.assert_array_equal(to_numpy(model(x, training=False)), to_numpy(model(x, training=False)))


@pytest.mark.any_backend
def test_pictures_with_channels_first(tmp_path: Path) -> None:
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no such convolutions on the CPU")
    last = kr.create_model("test_resnet", input_shape=(32, 32, 3), num_classes=4)
    tensors = state_dict(last)
    write_safetensors(tmp_path / "w.safetensors", tensors)
    keras.config.set_image_data_format("channels_first")
    first = kr.create_model("test_resnet", input_shape=(3, 32, 32), num_classes=4, weights=tmp_path / "w.safetensors")
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    answers = to_numpy(first(x.transpose(0, 3, 1, 2), training=False))
    np.testing.assert_allclose(answers, to_numpy(last(x, training=False)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("execution", ["scan", "unrolled"])
@pytest.mark.parametrize("name", ["resnet18", "resnet26d", "resnetv2_50d_gn", "resnest14d", "cifar_resnet20"])
def test_every_layer_is_built(name: str, execution: str) -> None:
    # Keras calls a model with a layer that is not once more, operation by operation, at each predict_on_batch.
    model = kr.create_model(name, input_shape=(32, 32, 3), num_classes=3, execution=execution)
    assert [layer.name for layer in model._flatten_layers() if not layer.built] == []
