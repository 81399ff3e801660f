"""Weights from a checkpoint: all of them or none, and what may differ."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

import keras_residual as kr
from contract import to_numpy
from keras_residual.weights.load import set_weights
from keras_residual.weights.names import NAME_MAPS, name_map, slots
from keras_residual.weights.save import state_dict

SHARED = Path(os.environ.get("KERAS_RESIDUAL_TEST_DATA", Path(__file__).parents[3] / "shared"))


def small(**arguments: Any) -> keras.Model:
    config = kr.ResNetConfig(block="basic", depths=(1, 3, 1, 1), widths=(8, 8, 16, 16), stem_filters=8)
    return kr.ResNet(config, **{"input_shape": (32, 32, 3), "num_classes": 5, **arguments})


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {slot.path: slot.read().copy() for slot in slots(model)}


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    keras.utils.set_random_seed(7)
    rng = np.random.default_rng(3)
    found = state_dict(small())
    return {name: rng.uniform(0.5, 1.5, value.shape).astype("float32") for name, value in found.items() if value.ndim}


@pytest.mark.any_backend
@pytest.mark.parametrize("execution", ["scan", "unrolled"])
def test_every_weight_is_set_however_stacks_are_executed(execution: str, tensors: dict[str, np.ndarray]) -> None:
    model = small(execution=execution)
    done = set_weights(model, tensors, source="here")
    assert (done.names, done.loaded, done.new, done.adapted) == ("timm", len(tensors), (), ())
    for name, value in state_dict(model).items():
        if value.ndim:
            np.testing.assert_array_equal(value, tensors[name], err_msg=name)
    assert "layer2.2.conv1.weight" in tensors


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("layer2.1.bn1.bias"), "1 missing: layer2.1.bn1.bias (for stage2_block2/norm1/beta)"),
        (lambda t: t.update(extra=np.zeros(2)), "1 left over: extra"),
        (
            lambda t: t.update({"fc.weight": np.zeros((9, 16), "float32"), "fc.bias": np.zeros(9, "float32")}),
            "2 of another shape: fc.weight (9, 16) (for head/kernel (16, 5)), fc.bias (9,) (for head/bias (5,))",
        ),
        (
            lambda t: t.update({"layer1.0.conv1.weight": np.zeros((8, 8, 5, 5), "float32")}),
            "1 of another shape: layer1.0.conv1.weight (8, 8, 5, 5) (for stage1_block1/conv1/kernel (3, 3, 8, 8))",
        ),
    ],
)
def test_what_does_not_fit_is_told_and_changes_nothing(change: Any, told: str, tensors: dict[str, np.ndarray]) -> None:
    model = small()
    before = values(model)
    change(tensors)
    with pytest.raises(kr.CheckpointError, match=re.escape(told)) as error:
        set_weights(model, tensors, source="weights.pth")
    assert "'weights.pth'" in str(error.value)
    assert "The model keeps its weights." in str(error.value)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


def in_float64(t: dict[str, np.ndarray]) -> None:
    t["fc.bias"] = np.full(5, 1e39)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t["fc.bias"].__setitem__(1, np.nan), "fc.bias has values that are not finite"),
        (lambda t: t["conv1.weight"].__setitem__((0, 0, 0, 0), -np.inf), "conv1.weight has values that are not finite"),
        (lambda t: t["bn1.running_var"].__setitem__(2, -1e-3), "bn1.running_var has a negative variance"),
        (lambda t: t.update({"fc.bias": np.ones(5, "int8")}), "fc.bias has whole numbers (int8)"),
        (lambda t: t.update({"fc.bias": np.ones(5, bool)}), "fc.bias has whole numbers (bool)"),
        (in_float64, "fc.bias has values that are too large for float32"),
    ],
)
def test_what_no_training_leaves_is_warned_of_or_refused(
    change: Any, told: str, tensors: dict[str, np.ndarray]
) -> None:
    model = small()
    before = values(model)
    change(tensors)
    start = f"Checkpoint 'w.pth': 1 of its weights are doubtful: {told}. "
    refused = re.escape(f"{start}`strict=False` accepts them. The model keeps its weights.")
    with pytest.raises(kr.CheckpointError, match=f"^{refused}$"):
        set_weights(model, tensors, source="w.pth", strict=True)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)
    warned = re.escape(f"{start}`strict=True` refuses such a checkpoint.")
    with pytest.warns(UserWarning, match=f"^{warned}$"):
        done = set_weights(model, tensors, source="w.pth")
    assert done.doubtful == (told,)
    assert done.loaded == len(tensors)


def test_values_beyond_float16_are_warned_of(tensors: dict[str, np.ndarray]) -> None:
    keras.config.set_dtype_policy("float16")
    model = small()
    tensors["fc.bias"][3] = -70_000
    with pytest.warns(UserWarning, match=r"doubtful: fc\.bias has values that are too large for float16\."):
        set_weights(model, tensors, source="here")


@pytest.mark.any_backend
def test_a_file_of_such_weights(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Of a file the values have become float32 before they are looked at."""
    np.savez(tmp_path / "w.npz", **{**tensors, "fc.bias": np.full(5, 1e300), "bn1.bias": np.full(8, np.nan, "float16")})
    told = (
        "2 of its weights are doubtful: bn1.bias has values that are not finite, fc.bias has values that are not finite"
    )
    with pytest.raises(kr.CheckpointError, match=re.escape(told)):
        kr.load_weights(small(), tmp_path / "w.npz", strict=True)
    with pytest.warns(UserWarning, match=re.escape(told)) as caught:
        kr.load_weights(small(), tmp_path / "w.npz")
    assert [Path(warning.filename).name for warning in caught] == ["test_load.py"]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("prefix", "container"),
    [
        ("module.", None),
        ("_orig_mod.", "model"),
        ("model.", "state_dict"),
        ("net.", None),
        ("backbone.", "state_dict"),
        ("network.", "model"),
        ("module._orig_mod.model.backbone.", "state_dict"),
    ],
)
def test_checkpoints_of_training_programs_load(
    tensors: dict[str, np.ndarray], tmp_path: Path, prefix: str, container: str | None
) -> None:
    weights = {prefix + name: torch.from_numpy(value) for name, value in tensors.items()}
    weights |= {f"{prefix}bn1.num_batches_tracked": torch.tensor(3), "criterion.weight": torch.ones(5)}
    torch.save(weights if container is None else {container: weights, "epoch": 3}, tmp_path / "w.ckpt")
    assert kr.load_weights(small(), tmp_path / "w.ckpt").loaded == len(tensors)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "shape"),
    [("conv1.weight", ()), ("conv1.weight", (7,)), ("conv1.weight", (1,) * 12), ("fc.weight", (0,)), ("fc.bias", ())],
)
def test_shapes_that_make_no_sense_are_told(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> None:
    tensors[name] = np.zeros(shape, "float32")
    with pytest.raises(kr.CheckpointError, match=re.escape(f"1 of another shape: {name} {shape} (for")):
        set_weights(small(), tensors, source="here")


@pytest.mark.any_backend
def test_foreign_names_are_told_without_what_a_terminal_obeys(tensors: dict[str, np.ndarray]) -> None:
    tensors |= {f"\x1b]0;{'x' * 100_000}{n}\x07": np.zeros(1) for n in range(20)}
    with pytest.raises(kr.CheckpointError) as caught:
        set_weights(small(), tensors, source="here\x1b[31m")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 4000
    assert "and 12 more" in str(caught.value)


@pytest.mark.any_backend
def test_a_name_that_two_weights_claim_is_refused(tensors: dict[str, np.ndarray], monkeypatch: Any) -> None:
    from keras_residual.weights import names as name_maps

    doubled = ((r"{block}/conv(1|2)", "layer{s}.{b}.conv1"), *NAME_MAPS["timm"])
    monkeypatch.setattr(name_maps, "NAME_MAPS", {"timm": doubled})
    with pytest.raises(kr.CheckpointError, match=r"used twice: layer1\.0\.conv1\.weight"):
        set_weights(small(), tensors, source="here", names="timm")


@pytest.mark.any_backend
def test_another_number_of_classes_keeps_the_backbone(tensors: dict[str, np.ndarray]) -> None:
    model = small(num_classes=3)
    head = values(model)["head/kernel"]
    done = set_weights(model, tensors, source="here", new_head=True)
    assert done.new == ("head/kernel", "head/bias")
    np.testing.assert_array_equal(values(model)["head/kernel"], head)
    np.testing.assert_array_equal(values(model)["stem_conv/kernel"], tensors["conv1.weight"].transpose(2, 3, 1, 0))


@pytest.mark.any_backend
@pytest.mark.parametrize("arguments", [{"include_top": False}, {"features_only": True}])
def test_a_model_without_a_head_takes_the_rest(arguments: dict[str, bool], tensors: dict[str, np.ndarray]) -> None:
    done = set_weights(small(**arguments), tensors, source="here")
    assert done.loaded == len(tensors) - 2


@pytest.mark.any_backend
def test_grey_pictures_give_what_equal_channels_give(tensors: dict[str, np.ndarray]) -> None:
    colour, grey = small(), small(input_shape=(32, 32, 1))
    set_weights(colour, tensors, source="here")
    assert set_weights(grey, tensors, source="here").adapted == ("stem_conv/kernel",)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")
    expected = to_numpy(colour(np.repeat(x, 3, axis=-1), training=False))
    np.testing.assert_allclose(to_numpy(grey(x, training=False)), expected, rtol=1e-4)


@pytest.mark.any_backend
def test_an_unknown_map_of_names_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'timm'"):
        kr.load_weights(small(), "weights.pth", names="tim")


@pytest.mark.any_backend
@pytest.mark.parametrize("location", ["", None, 3, b"weights.pth"])
def test_what_is_no_place(location: Any) -> None:
    rule = r"load_weights: `location` must be a file, a folder or a repository, such as .*, but received"
    with pytest.raises((ValueError, TypeError), match=rule):
        kr.load_weights(small(), location)


@pytest.mark.any_backend
def test_a_wrong_architecture_is_refused(tmp_path: Path) -> None:
    kr.save_weights(small(), tmp_path / "small.safetensors")
    model = kr.ResNetV2(kr.ResNetV2Config(depths=(1, 1), filters=(16, 16)), input_shape=(32, 32, 3), num_classes=5)
    with pytest.raises(kr.CheckpointError, match=r"does not fit 'resnet_v2': .* missing: .* left over: "):
        kr.load_weights(model, tmp_path / "small.safetensors")


@pytest.mark.any_backend
def test_saved_weights_are_not_overwritten(tmp_path: Path) -> None:
    kr.save_weights(small(), tmp_path / "w.safetensors")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        kr.save_weights(small(), tmp_path / "w.safetensors")


@pytest.mark.any_backend
def test_a_model_with_weights_that_have_no_name_is_not_saved(tmp_path: Path) -> None:
    inputs = keras.Input((32, 32, 3))
    stranger = keras.Model(inputs, keras.layers.Conv2D(3, 3, name="mine")(inputs))
    with pytest.raises(ValueError, match="It has none for mine/kernel, mine/bias"):
        kr.save_weights(stranger, tmp_path / "w.safetensors")


@pytest.mark.any_backend
@pytest.mark.parametrize("names", NAME_MAPS)
def test_a_map_names_nothing_but_weights(names: str) -> None:
    assert name_map(names)("seed_generator_state") is None
    assert name_map(names)("stage1_block1/conv1/elsewhere") is None


@pytest.mark.slow
def test_the_real_checkpoint_answers_8103_of_10000_pictures() -> None:
    checkpoint, test = SHARED / "weights/resnet20-12fca82f.th", SHARED / "data/cifar10-jpeg/test.parquet"
    if not (checkpoint.exists() and test.exists()):
        pytest.skip(f"needs {checkpoint} and {test}; KERAS_RESIDUAL_TEST_DATA names the folder that holds them")
    parquet = pytest.importorskip("pyarrow.parquet")
    picture = pytest.importorskip("PIL.Image")
    table = parquet.read_table(test).to_pydict()
    label = next(name for name in table if "label" in name)
    column = next(name for name in table if name != label)
    x = np.stack([np.asarray(picture.open(io.BytesIO(row["bytes"]))) for row in table[column]]).astype("float32") / 255
    x = (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10, weights=checkpoint)
    answers = np.argmax(model.predict(x, batch_size=500, verbose=0), -1)
    assert int(np.sum(answers == np.array(table[label]))) == 8103
