"""RandAugment's changes and strengths are timm's, TrivialAugment's torchvision's."""

import random

import numpy as np
import pytest
from PIL import Image

from keras_residual.data import policies
from parity.timm_peer import timm as timm

pytestmark = pytest.mark.any_backend


def picture(seed=0):
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (7, 7, 3)).astype(np.uint8))
    return np.asarray(small.resize((48, 48), Image.Resampling.BICUBIC))


OURS_OF_TIMM = {
    "AutoContrast": "autocontrast", "Equalize": "equalize", "Invert": "invert", "Rotate": "rotate",
    "PosterizeIncreasing": "posterize", "SolarizeIncreasing": "solarize", "SolarizeAdd": "solarize_add",
    "ColorIncreasing": "color", "ContrastIncreasing": "contrast", "BrightnessIncreasing": "brightness",
    "SharpnessIncreasing": "sharpness", "ShearX": "shear_x", "ShearY": "shear_y", "TranslateXRel": "translate_x",
    "TranslateYRel": "translate_y",
}  # fmt: skip
OURS_OF_TORCHVISION = {
    "Identity": "identity", "ShearX": "shear_x", "ShearY": "shear_y", "TranslateX": "translate_x",
    "TranslateY": "translate_y", "Rotate": "rotate", "Brightness": "brightness", "Color": "color",
    "Contrast": "contrast", "Sharpness": "sharpness", "Posterize": "posterize", "Solarize": "solarize",
    "AutoContrast": "autocontrast", "Equalize": "equalize",
}  # fmt: skip


def alike(found, expected):
    """Whether two pictures are the same but for the border of what was moved."""
    apart = np.abs(found.astype(int) - np.asarray(expected).astype(int)).max(axis=-1)
    return (apart <= 1).mean() > 0.9


def test_the_changes_are_those_of_the_sources():
    from timm.data.auto_augment import _RAND_INCREASING_TRANSFORMS
    from torchvision.transforms.v2 import TrivialAugmentWide

    assert list(policies.RANDAUGMENT) == [OURS_OF_TIMM[name] for name in _RAND_INCREASING_TRANSFORMS]
    assert list(policies.TRIVIALAUGMENT) == [
        OURS_OF_TORCHVISION[name] for name in TrivialAugmentWide._AUGMENTATION_SPACE
    ]


@pytest.mark.every
@pytest.mark.parametrize("name", OURS_OF_TIMM)
def test_a_change_of_randaugment_is_that_of_timm_at_every_strength(name):
    from timm.data.auto_augment import AugmentOp

    x = picture()
    for magnitude in (0, 3.3, 7, 9.9):  # at 10 timm asks Pillow for 0 bits, which it refuses
        op = AugmentOp(name, prob=1.0, magnitude=magnitude, hparams={"interpolation": Image.Resampling.BILINEAR})
        random.seed(0)
        theirs = {op(Image.fromarray(x)).tobytes() for _ in range(12)}  # both signs
        change = policies.RANDAUGMENT[OURS_OF_TIMM[name]]
        ours = [change(x, magnitude / 10, sign) for sign in (1, -1)]
        for expected in theirs:
            found = np.frombuffer(expected, np.uint8).reshape(x.shape)
            assert any(alike(each, found) for each in ours), magnitude


@pytest.mark.every
@pytest.mark.parametrize("name", OURS_OF_TORCHVISION)
def test_a_change_of_trivialaugment_is_that_of_torchvision_at_every_strength(name):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import TrivialAugmentWide

    theirs = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    strengths, signed = theirs._AUGMENTATION_SPACE[name]
    found = strengths(31, 48, 48)
    x = picture()
    for place in (0, 1, 7, 16, 30):
        for sign in (1, -1) if signed else (1,):
            magnitude = 0.0 if found is None else sign * float(found[place])
            expected = theirs._apply_image_or_video_transform(
                Image.fromarray(x), name, magnitude, interpolation=theirs.interpolation, fill=theirs._fill
            )
            ours = policies.TRIVIALAUGMENT[OURS_OF_TORCHVISION[name]](x, place / 30, sign)
            assert alike(ours, expected), (place, sign)


def calls(monkeypatch, table):
    """Has every change of a table note its level and sign, and returns the notes."""
    made = []
    noted = {
        name: lambda p, level, sign, name=name: made.append((name, level, sign)) or p
        for name in getattr(policies, table)
    }
    monkeypatch.setattr(policies, table, noted)
    return made


def test_randaugment_draws_as_timm_does(monkeypatch):
    made = calls(monkeypatch, "RANDAUGMENT")
    draws = np.random.default_rng(0).random((4000, 8))
    x = picture()
    for row in draws:
        policies.randaugment(x, row, 7.0, 0.5)
    assert abs(len(made) / 8000 - 0.5) < 0.02
    names, levels, signs = zip(*made, strict=True)
    counts = np.unique(names, return_counts=True)[1]
    assert len(counts) == 15
    assert np.abs(counts - len(made) / 15).max() < 70
    assert abs(np.mean(levels) - 0.7) < 0.005
    assert abs(np.std(levels) - 0.05) < 0.005
    assert abs(np.mean(signs)) < 0.05
    made.clear()
    for row in draws[:300]:
        policies.randaugment(picture(), row, 10.0, 3.0)
        policies.randaugment(picture(), row, 0.0, 0.0)
    assert {0.0} < set(found := [level for _, level, _ in made])
    assert max(found) == 1.0


def test_a_draw_of_nothing_is_a_level_too():
    assert policies.randaugment(picture(), np.zeros(8), 5.0, 0.5).shape == (48, 48, 3)


def test_trivialaugment_draws_one_change_of_one_of_31_strengths(monkeypatch):
    made, x = calls(monkeypatch, "TRIVIALAUGMENT"), picture()
    for row in np.random.default_rng(0).random((6000, 3)):
        policies.trivialaugment(x, row)
    names, levels, signs = zip(*made, strict=True)
    assert len(made) == 6000
    assert np.abs(np.unique(names, return_counts=True)[1] - 6000 / 14).max() < 80
    assert sorted(set(levels)) == pytest.approx(np.linspace(0, 1, 31))
    assert abs(np.mean(signs)) < 0.05
