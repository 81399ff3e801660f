"""Each change of a picture is Pillow's; sizes change without aliasing; no picture is changed in place."""

import inspect

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from keras_residual.data import picture_ops

pytestmark = pytest.mark.any_backend


def picture(seed=0, height=37, width=52, channels=3, smooth=True):
    """Returns smooth noise, as photographs are, or pixels each of its own."""
    rng = np.random.default_rng(seed)
    if not smooth:
        return rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8))
    full = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(full[..., :channels])


def pillow(array):
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def array(image, like):
    return np.asarray(image).reshape(like.shape)


def turned(image, matrix, fill):
    fills = fill if image.mode == "L" else (fill,) * 3
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fills)


def rotated(image, degrees, fill):
    fills = fill if image.mode == "L" else (fill,) * 3
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fills)


FACTORS = (0.0, 0.1, 0.55, 1.0, 1.3, 1.9, 1.99)
SAME = {
    "brightness": (FACTORS, lambda image, value: ImageEnhance.Brightness(image).enhance(value)),
    "contrast": (FACTORS, lambda image, value: ImageEnhance.Contrast(image).enhance(value)),
    "color": (FACTORS, lambda image, value: ImageEnhance.Color(image).enhance(value)),
    "sharpness": (FACTORS, lambda image, value: ImageEnhance.Sharpness(image).enhance(value)),
    "posterize": (range(1, 9), lambda image, value: ImageOps.posterize(image, value)),
    "solarize": ((0, 1, 100, 128.5, 255, 256), lambda image, value: ImageOps.solarize(image, value)),
    "solarize_add": (
        (0, 60, 110),
        lambda image, value: image.point([min(255, i + value) if i < 128 else i for i in range(256)] * len(image.mode)),
    ),
    "invert": ((), ImageOps.invert),
    "equalize": ((), ImageOps.equalize),
    "autocontrast": ((), ImageOps.autocontrast),
}
MOVED = {
    "rotate": ((-30, 12.5, 90, 135), rotated),
    "shear_x": ((-0.99, 0.3), lambda image, value, fill: turned(image, (1, value, 0, 0, 1, 0), fill)),
    "shear_y": ((-0.99, 0.3), lambda image, value, fill: turned(image, (1, 0, 0, value, 1, 0), fill)),
    "translate_x": ((-7.3, 4), lambda image, value, fill: turned(image, (1, 0, value, 0, 1, 0), fill)),
    "translate_y": ((-7.3, 4), lambda image, value, fill: turned(image, (1, 0, 0, 0, 1, value), fill)),
}


@pytest.mark.every
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SAME)
def test_levels_are_those_of_pillow_within_one(name, channels):
    values, expected = SAME[name]
    for seed, smooth in enumerate((True, False, True)):
        x = picture(seed, channels=channels, smooth=smooth)
        if seed == 2:
            x = x // 4 + 90  # few levels, none of them at an end
        before = x.copy()
        for value in [(value,) for value in values] or [()]:
            found = getattr(picture_ops, name)(x, *value)
            assert (found.shape, found.dtype) == (x.shape, np.uint8)
            apart = np.abs(found.astype(int) - array(expected(pillow(x), *value), x))
            # The luma of OpenCV is rounded otherwise.
            assert apart.max() <= (1 if name in ("brightness", "contrast", "color", "sharpness") else 0), value
            assert (apart > 0).mean() < 0.2
        np.testing.assert_array_equal(x, before)


@pytest.mark.every
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", MOVED)
def test_what_is_moved_is_where_pillow_moves_it(name, channels):
    values, expected = MOVED[name]
    x = picture(channels=channels)
    for value in values:
        for fill in (0, 128):
            found = getattr(picture_ops, name)(x, value, fill)
            assert (found.shape, found.dtype) == (x.shape, np.uint8)
            # At its outermost pixels OpenCV blends with the fill: left out is what is near a pixel that is filled.
            inside = array(expected(pillow(np.full_like(x, 255)), value, 0), x)[..., 0] == 255
            inner = inside.copy()
            for axis in (0, 1):
                for step in (-1, 1):
                    inner &= np.roll(inside, step, axis)
            apart = np.abs(found.astype(int) - array(expected(pillow(x), value, fill), x)).max(axis=-1)
            inner[[0, -1]] = inner[:, [0, -1]] = False
            assert inner.mean() > 0.15
            assert apart[inner].max() <= 1, value
            outer = ~inside
            for axis in (0, 1):
                for step in (-1, 1):
                    outer &= ~np.roll(inside, step, axis)
            assert (found[outer] == fill).all()


def test_a_hue_is_turned_as_by_torchvision():
    from torchvision.transforms.functional import adjust_hue

    import parity.timm_peer  # noqa: F401 - without which torchvision may not be imported

    x = picture()
    for turn in (-0.5, -0.1, 0.0, 0.2, 0.5):
        apart = np.abs(picture_ops.hue(x, turn).astype(int) - np.asarray(adjust_hue(Image.fromarray(x), turn)))
        assert np.mean(apart) < 1.5, turn
    grey = picture(channels=1)
    np.testing.assert_array_equal(picture_ops.hue(grey, 0.3), grey)


def test_no_bits_are_black():
    assert not picture_ops.posterize(picture(), 0).any()


@pytest.mark.every
@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("name", [*SAME, *MOVED])
def test_the_smallest_pictures_keep_their_shape(name, side):
    values, _ = (SAME | MOVED)[name]
    x = picture(height=side, width=side, channels=1, smooth=False)
    assert getattr(picture_ops, name)(x, *list(values)[:1]).shape == x.shape


def means(x, size, axis):
    """The slow twin: the mean over each new pixel's share of the old ones."""
    length = x.shape[axis]
    edges = np.linspace(0, length, size + 1)
    weights = np.array(
        [[max(0, min(high, i + 1) - max(low, i)) for i in range(length)] for low, high in zip(edges, edges[1:])]  # noqa: B905, RUF007
    )
    return np.moveaxis(np.tensordot(weights / weights.sum(1, keepdims=True), x.astype(float), (1, axis)), 0, axis)


@pytest.mark.every
@pytest.mark.parametrize(("height", "width"), [(16, 13), (37, 20), (9, 52), (36, 51)])
def test_what_shrinks_is_the_mean_of_what_it_covers(height, width):
    x = picture(smooth=False)
    expected = means(means(x, height, 0), width, 1)
    assert np.abs(picture_ops.resized(x, height, width) - expected).max() <= 1


@pytest.mark.every
@pytest.mark.parametrize(("height", "width"), [(60, 80), (37, 100), (111, 52)])
def test_what_grows_is_bilinear(height, width):
    x = picture(channels=1)
    torch = pytest.importorskip("torch")
    maps = torch.tensor(x.astype("float32")).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
    assert np.abs(picture_ops.resized(x, height, width)[..., 0] - expected[0, 0].numpy()).max() <= 1


def test_each_axis_shrinks_or_grows_by_its_own_rule():
    x = picture()
    mixed = picture_ops.resized(x, 12, 104)
    expected = picture_ops.resized(picture_ops.resized(x, 12, 52), 12, 104)
    np.testing.assert_array_equal(mixed, expected)
    # Stripes of a pixel each become grey and no stripes of another width.
    stripes = np.tile(np.array([0, 255], np.uint8), 50).reshape(1, 100, 1).repeat(40, axis=0)
    assert np.ptp(picture_ops.resized(stripes, 50, 10)) <= 1


@pytest.mark.parametrize("shape", [(40, 20, 3), (20, 90, 1), (30, 30, 3)])
def test_a_fitted_picture_covers_the_size_and_keeps_its_middle(shape):
    x = picture(height=shape[0], width=shape[1], channels=shape[2])
    found = picture_ops.fitted(x, 10, 10)
    expected = ImageOps.fit(pillow(x), (10, 10), Image.Resampling.BOX)
    assert np.abs(found.astype(int) - array(expected, found)).max() <= 1


def test_every_change_is_compared():
    changes = {name for name, value in vars(picture_ops).items() if inspect.isfunction(value) and name[0] != "_"}
    assert changes - set(SAME) - set(MOVED) == {"resized", "fitted", "affine", "hue"}
