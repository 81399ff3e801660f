"""Preprocessing against Pillow, which the reference transforms resize with, and in every place where a layer can be."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import PIL
import pytest
from PIL import Image, ImageOps

from backend_helpers import gradients
from contract import assert_close, assert_layer_contract, to_numpy
from keras_residual.models.facts import pretrained_weights
from keras_residual.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, preprocessing
from keras_residual.models.resampling import resampling_matrix, split_weights

PILLOW = int(PIL.__version__.split(".")[0])
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def picture(height: int, width: int, batch: tuple[int, ...] = ()) -> np.ndarray:
    """Noise on a slope, with pixels of 0 and 255 next to each other: a filter with negative weights overshoots."""
    rng = np.random.default_rng(height * 10_000 + width)
    slope = np.linspace(0, 255, width)[:, None] * np.ones((*batch, height, 1, 3))
    noisy = np.clip(slope + rng.normal(scale=60, size=slope.shape), 0, 255)
    noisy[rng.random(slope.shape) < 0.1] = 255
    return noisy.round().astype("uint8")


def reference(
    pixels: np.ndarray,
    size: tuple[int, int],
    crop_pct: float,
    interpolation: str,
    mode: str = "center",
    mean: tuple[float, ...] = (0, 0, 0),
) -> np.ndarray:
    """What Pillow makes of a picture by the rules of the reference transforms, as uint8."""
    image = Image.fromarray(pixels)
    width, height = image.size
    target = [math.floor(edge / crop_pct) for edge in size]
    if mode == "squash":
        new_height, new_width = target
    elif mode == "center" and target[0] == target[1]:
        new_height = target[0] if height <= width else int(target[0] * height / width)
        new_width = target[0] if width <= height else int(target[0] * width / height)
    else:
        ratios = height / target[0], width / target[1]
        ratio = max(ratios) if mode == "border" else min(ratios)
        new_height, new_width = round(height / ratio), round(width / ratio)
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    if PILLOW < 13 and new_height < height and height - new_height > 2 * (width - new_width):
        image = image.resize((width, new_height), method)  # the edge that later versions begin with
    image = image.resize((new_width, new_height), method)
    over = [max(size[0] - new_height, 0), max(size[1] - new_width, 0)]
    if any(over):
        border = (over[1] // 2, over[0] // 2, (over[1] + 1) // 2, (over[0] + 1) // 2)
        image = ImageOps.expand(image, border, tuple(round(255 * value) for value in mean))
    left, top = (round((image.size[i] - size[1 - i]) / 2.0) for i in (0, 1))
    return np.asarray(image.crop((left, top, left + size[1], top + size[0])))


def assert_equals_pillow(y: np.ndarray, expected: np.ndarray) -> None:
    """Raises unless the pixels, 0..1, are Pillow's, 0..255: not one of them may differ."""
    np.testing.assert_allclose(y * 255, expected.astype("float32"), atol=1e-4)


SIZES = [(75, 100), (100, 67), (97, 211), (211, 97), (40, 31), (64, 64), (56, 56), (301, 299), (7, 5), (3, 90)]


@pytest.mark.any_backend
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.95, 1.0])
def test_every_pixel_is_that_of_pillow(interpolation, crop_pct):
    layer = Preprocessing(56, crop_pct=crop_pct, interpolation=interpolation, **PLAIN)
    for size in SIZES:
        pixels = picture(*size)
        assert_equals_pillow(layer.prepare(pixels), reference(pixels, (56, 56), crop_pct, interpolation))


@pytest.mark.any_backend
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(48, 48), (33, 50), (50, 33)])
def test_crop_modes(mode, size):
    # "border" fills up with the mean, so that is not 0 here; it is taken back after the layer.
    std = (1, 1, 1)
    layer = Preprocessing(size, crop_pct=0.9, interpolation="bicubic", mean=IMAGENET_MEAN, std=std, crop_mode=mode)
    for height, width in [(75, 100), (100, 67), (40, 31), (20, 90), (200, 60)]:
        pixels = picture(height, width)
        y = layer.prepare(pixels) + np.array(IMAGENET_MEAN, "float32")
        assert_equals_pillow(y, reference(pixels, size, 0.9, "bicubic", mode, IMAGENET_MEAN))


@pytest.mark.parametrize(
    ("interpolation", "mode", "size"),
    [("bilinear", "center", (75, 100)), ("bicubic", "squash", (211, 97)), ("bicubic", "border", (40, 31))],
)
def test_the_layer_makes_the_same_pixels(interpolation, mode, size):
    pixels = picture(*size)
    layer = Preprocessing(56, interpolation=interpolation, crop_mode=mode, **PLAIN)
    assert_equals_pillow(to_numpy(layer(pixels)), reference(pixels, (56, 56), 0.875, interpolation, mode))


def test_a_picture_of_imagenet_s_size():
    pixels = picture(375, 500)
    layer = Preprocessing(224, crop_pct=0.95, interpolation="bicubic", **PLAIN)
    expected = reference(pixels, (224, 224), 0.95, "bicubic")
    assert_equals_pillow(to_numpy(layer(pixels)), expected)
    assert_equals_pillow(layer.prepare(pixels), expected)


@pytest.mark.any_backend
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_prepare_has_the_layer_s_form(data_format):
    layer = Preprocessing((24, 20), data_format=data_format)
    for shape in [(40, 53, 3), (2, 40, 53, 3)]:
        pixels = picture(40, 53, shape[:-3])
        y = layer.prepare(pixels)
        assert (y.shape, y.dtype) == (layer.compute_output_shape(shape), np.float32)
        assert_close(layer(pixels), y, 1e-6)


@pytest.mark.any_backend
def test_it_is_exact_where_products_keep_eleven_bits():
    # What TensorFloat-32 leaves of the factors of a product: ten bits behind the first.
    def truncated(x: np.ndarray) -> np.ndarray:
        return (x.astype("float32").view("uint32") & 0xFFFFE000).view("float32")

    pixels = picture(375, 500)
    for part in (*split_weights(resampling_matrix(500, 313, 224, "bicubic")), pixels):
        np.testing.assert_array_equal(truncated(part), part)


def test_standardises_after_the_division():
    pixels = picture(75, 100)
    y = Preprocessing(56)(pixels)
    expected = (reference(pixels, (56, 56), 0.875, "bilinear") / 255 - IMAGENET_MEAN) / IMAGENET_STD
    assert_close(y, expected.astype("float32"), 1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float16"])
def test_batches_and_single_pictures_of_any_dtype_agree(dtype):
    batch = picture(40, 53, (3,))
    layer = Preprocessing(24)
    whole = to_numpy(layer(batch.astype(dtype)))
    assert whole.shape == (3, 24, 24, 3)
    for row in range(3):
        assert_close(layer(batch[row]), whole[row], 1e-6)


def test_channels_first_is_the_output_s_form_alone():
    batch = picture(40, 53, (2,))
    expected = to_numpy(Preprocessing((24, 20), data_format="channels_last")(batch))
    keras.config.set_image_data_format("channels_first")
    layer = Preprocessing((24, 20))
    assert layer.compute_output_shape((None, 40, 53, 3)) == (None, 3, 24, 20)
    assert_close(layer(batch), expected.transpose(0, 3, 1, 2), 1e-6)
    assert_close(layer(batch[0]), expected[0].transpose(2, 0, 1), 1e-6)


def test_grey_pictures_have_one_mean():
    layer = Preprocessing(12, mean=[0.5], std=[0.25])
    assert_close(layer(np.full((20, 20, 1), 255, "uint8")), np.full((12, 12, 1), 2.0, "float32"), 1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float16"])
def test_half_precision_rounds_the_result_alone(policy):
    pixels = picture(75, 100).astype("float32") * 0.98  # no whole numbers
    exact = to_numpy(Preprocessing(56, interpolation="bicubic")(pixels))
    y = Preprocessing(56, interpolation="bicubic", dtype=policy)(pixels)
    assert_close(y, to_numpy(keras.ops.cast(exact, y.dtype)).astype(to_numpy(y).dtype), 0)


def test_contract():
    assert_layer_contract(
        lambda: Preprocessing((6, 5), crop_pct=0.9, interpolation="bicubic", crop_mode="border"),
        (2, 9, 7, 3),
        output_shape=(2, 6, 5, 3),
        masks=False,
    )


def test_the_first_layer_of_a_model_that_is_saved(tmp_path):
    inputs = keras.Input((40, 53, 3), dtype="uint8")
    model = keras.Model(inputs, preprocessing("resnet18.a3_in1k", input_size=32)(inputs))
    batch = picture(40, 53, (3,))
    expected = to_numpy(model(batch))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded.predict(batch, verbose=0), expected, 1e-6)
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


def test_the_gradient_is_that_of_the_weighted_mean():
    # From 4 pixels to 2 with weights 3/7, 3/7, 1/7, 0 and the mirror of these, along both axes.
    layer = Preprocessing(2, crop_pct=1.0, mean=[0.0], std=[0.1])
    (gradient,), _ = gradients(lambda x: layer(x), [np.full((1, 4, 4, 1), 100.0, "float32")])
    weights = np.random.default_rng(99).uniform(0.5, 1.5, size=(1, 2, 2, 1))[0, :, :, 0]
    matrix = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    assert_close(gradient[0, :, :, 0], (matrix.T @ weights @ matrix / 25.5).astype("float32"), 1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data calls layers of the TensorFlow backend")
def test_inside_of_tf_data():
    import tensorflow as tf

    batch = picture(40, 53, (4,))
    layer = Preprocessing(24)
    expected = to_numpy(layer(batch))
    single = tf.data.Dataset.from_tensor_slices(batch).map(layer).batch(4)
    whole = tf.data.Dataset.from_tensor_slices(batch).batch(4).map(layer)
    for dataset in (single, whole):
        assert_close(np.concatenate(list(dataset.as_numpy_iterator())), expected, 1e-6)
    unknown = tf.data.Dataset.from_generator(
        lambda: iter(batch), output_signature=tf.TensorSpec((None, None, 3), tf.uint8)
    )
    with pytest.raises(ValueError, match=re.escape("`inputs` must be pictures of known height and width")):
        unknown.map(Preprocessing(24))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "arguments", "size", "crop_pct"),
    [
        ("resnet50.a1_in1k", {}, (224, 224), 0.95),
        ("resnet50.a1_in1k", {"test": True}, (288, 288), 1.0),
        ("resnet50", {"test": True}, (288, 288), 1.0),
        ("ResNet50_Weights.IMAGENET1K_V2", {"test": True}, (224, 224), 0.965),
        ("resnet50.tv_in1k", {"test": True}, (224, 224), 0.875),
        ("resnet50.tv_in1k", {"input_size": (64, 96)}, (64, 96), 0.875),
        ("resnet50.a1_in1k", {"input_size": 320, "test": True}, (320, 320), 1.0),
    ],
)
def test_the_weights_say_how_pictures_are_prepared(name, arguments, size, crop_pct):
    layer, weights = preprocessing(name, **arguments), pretrained_weights(name)
    assert (layer.size, layer.crop_pct) == (size, crop_pct)
    assert (layer.mean, layer.std) == (weights.mean, weights.std)
    assert (layer.interpolation, layer.crop_mode) == (weights.interpolation, weights.crop_mode)


FORM = "(height, width, channels) with or without a batch before it"


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((9, 3), f"of shape {FORM}, but received (9, 3) (tuple)."),
        (
            (None, 9, 9, 1),
            "pictures of 3 channels, the last axis, but received (None, 9, 9, 1) (tuple). Grey pictures become "
            "coloured ones by `keras.ops.repeat(x, 3, axis=-1)`.",
        ),
        (
            (None, None, 9, 3),
            "pictures of known height and width, but received (None, None, 9, 3) (tuple). Call the layer's `prepare` "
            "with each picture as an array, before the model, or bring the pictures to one size first.",
        ),
    ],
)
def test_pictures_it_cannot_prepare(shape, message):
    layer = Preprocessing(8, name="p")
    message = f"Preprocessing 'p': `inputs` must be {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        layer(keras.KerasTensor(shape))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 0}, ValueError, "`size` must be a whole number of at least 1, but received 0 (int)."),
        ({"size": 8.0}, TypeError, "`size` must be a whole number of at least 1, but received 8.0 (float)."),
        ({"size": (8,)}, ValueError, "`size` must be a whole number, or height and width, but received (8,) (tuple)."),
        ({"crop_pct": 1.1}, ValueError, "`crop_pct` must be a share in (0, 1], but received 1.1 (float)."),
        ({"crop_pct": 0}, ValueError, "`crop_pct` must be a share in (0, 1], but received 0 (int)."),
        (
            {"interpolation": "lanczos"},
            ValueError,
            "unknown name for `interpolation`: 'lanczos'. Known: bilinear, bicubic.",
        ),
        (
            {"crop_mode": "centre"},
            ValueError,
            "unknown name for `crop_mode`: 'centre'. Did you mean 'center'? Known: center, squash, border.",
        ),
        ({"mean": 0.5}, TypeError, "`mean` must be one number a channel, but received 0.5 (float)."),
        ({"mean": ()}, ValueError, "`mean` must be one number a channel, but received () (tuple)."),
        ({"std": (1, 1, 0)}, ValueError, "`std` must be a number above 0, but received 0.0 (float)."),
        (
            {"std": (1, 1)},
            ValueError,
            "`std` must be one number a channel, 3 as `mean` has, but received (1, 1) (tuple).",
        ),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    message = f"Preprocessing 'p': {message}"
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        Preprocessing(**{"size": 8, "name": "p", **arguments})
