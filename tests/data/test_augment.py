"""Each change is the paper's, at its rate, within bounds, and a function of seed, epoch and index alone."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.data import Augmentation
from keras_residual.data import augment as augment_module
from keras_residual.data.augment import crop_box, cutout_box, erased_box, shifted

pytestmark = pytest.mark.any_backend

EVERYTHING = {
    "crop": 0.3, "shift": 2, "border": "reflect", "flip": True, "policy": "randaugment", "jitter": (0.4, 0.4, 0.4, 0.1),
    "cutout": 3, "erase": 0.5,
}  # fmt: skip


def pictures(count=6, height=7, width=5, channels=3, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (count, height, width, channels)).astype(np.uint8)


def changed(batch, *, seed=0, epoch=0, indices=None, targets=None, **settings):
    indices = np.arange(len(batch)) if indices is None else indices
    targets = np.zeros(len(batch), int) if targets is None else targets
    return Augmentation(**settings)(batch, targets, seed, epoch, indices)


def moved(picture, down, right):
    """The slow twin: moves a picture pixel by pixel."""
    result = np.zeros_like(picture)
    height, width, _ = picture.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                result[row, column] = picture[row + down, column + right]
    return result


# --- What it depends on ----------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(0, 500), st.integers(1, 29))
def test_a_picture_is_changed_alike_in_any_company(seed, epoch, cut):
    batch, indices = pictures(30), np.random.default_rng(seed).permutation(10**6)[:30]
    whole, _ = changed(batch, seed=seed, epoch=epoch, indices=indices, **EVERYTHING)
    assert (whole.shape, whole.dtype) == (batch.shape, batch.dtype)
    for part in (slice(cut), slice(cut, None)):
        apart, _ = changed(batch[part], seed=seed, epoch=epoch, indices=indices[part], **EVERYTHING)
        np.testing.assert_array_equal(apart, whole[part])


def test_seed_epoch_and_index_each_change_a_picture():
    batch = pictures(8, 16, 16)
    first, _ = changed(batch, shift=4)
    for other in ({"seed": 1}, {"epoch": 1}, {"indices": np.arange(8) + 8}):
        again, _ = changed(batch, shift=4, **other)
        assert not np.array_equal(again, first)


def test_one_change_does_not_depend_on_which_others_there_are():
    batch = pictures(50, 8, 8)
    flipped, _ = changed(batch, flip=True)
    both, _ = changed(batch, flip=True, erase=1.0)
    kept = both != 0
    np.testing.assert_array_equal(both[kept], flipped[kept])


def test_the_batch_that_came_in_stays_as_it_was():
    batch = pictures()
    copy = batch.copy()
    changed(batch, **EVERYTHING, mixup=0.5, cutmix=0.5, classes=2)
    np.testing.assert_array_equal(batch, copy)


def test_nothing_asked_changes_nothing():
    batch, targets = pictures(), np.arange(6)
    found, same = changed(batch, targets=targets)
    np.testing.assert_array_equal(found, batch)
    np.testing.assert_array_equal(same, targets)


# --- Shift and flip --------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_a_shifted_picture_is_the_picture_moved_by_at_most_the_pixels(seed, pixels):
    batch = pictures()
    found, _ = changed(batch, seed=seed, shift=pixels)
    steps = range(-pixels, pixels + 1)
    for before, after in zip(batch, found, strict=True):
        assert any(np.array_equal(after, moved(before, down, right)) for down in steps for right in steps)


def test_every_shift_comes_up_equally_often():
    batch = np.tile(pictures(1), (1800, 1, 1, 1))
    _, counts = np.unique([p.tobytes() for p in changed(batch, shift=1)[0]], return_counts=True)
    assert len(counts) == 9
    assert np.abs(counts - 200).max() < 60


def test_a_border_is_mirrored_without_its_edge():
    picture = np.arange(1, 6, dtype=np.uint8).reshape(1, 5, 1).repeat(5, axis=0)
    found = shifted(picture, 2, 0, 2, "reflect")
    assert found[0, :, 0].tolist() == [3, 2, 1, 2, 3]
    assert shifted(picture, 2, 0, 2)[0, :, 0].tolist() == [0, 0, 1, 2, 3]


def test_half_of_the_pictures_are_flipped():
    batch = pictures(4000)
    found, _ = changed(batch, flip=True)
    mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(found, batch, strict=True)])
    same = np.array([np.array_equal(a, b) for a, b in zip(found, batch, strict=True)])
    assert (mirrored ^ same).all()
    assert abs(mirrored.mean() - 0.5) < 0.03


def test_alternating_flips_show_each_side_in_every_other_epoch():
    batch = pictures(200)
    epochs = [changed(batch, epoch=epoch, flip="alternating")[0] for epoch in range(4)]
    for one, other in itertools.pairwise(epochs):
        np.testing.assert_array_equal(one, other[:, :, ::-1])
    assert 60 < np.sum([np.array_equal(a, b) for a, b in zip(epochs[0], batch, strict=True)]) < 140


# --- Boxes -----------------------------------------------------------------------------------------------------------

SHAPES = [(32, 32, 3), (20, 45, 1), (9, 4, 3)]


def boxes(box, shape, draws, *arguments, count=4000):
    """Returns top, left, height and width of many boxes, as four arrays."""
    rows = np.random.default_rng(0).random((count, draws))
    return np.array([box(shape, row, *arguments) for row in rows]).T


@pytest.mark.every
@pytest.mark.parametrize("shape", SHAPES)
def test_crops_lie_within_and_have_the_areas_and_ratios_of_the_paper(shape):
    top, left, height, width = boxes(crop_box, shape, 22, 0.08)
    high, wide, _ = shape
    assert min(top.min(), left.min()) >= 0
    assert ((top + height) <= high).all()
    assert ((left + width) <= wide).all()
    assert min(height.min(), width.min()) >= 1
    if high == wide:
        area, ratio = height * width / (high * wide), width / height
        # A side is rounded to whole pixels, by up to half of one.
        assert 0.06 < area.min() < 0.1
        assert area.max() > 0.95
        assert ratio.min() >= 0.7
        assert ratio.max() <= 1.45
        # Uniform in [0.08, 1], less those that would not fit.
        assert 0.48 < area.mean() < 0.56
        assert abs(np.log(ratio).mean()) < 0.02


def test_where_no_box_fits_the_crop_is_the_largest_in_the_middle():
    assert crop_box((10, 100, 1), np.full(22, 0.999), 0.9) == (0, 43, 10, 13)


@pytest.mark.every
@pytest.mark.parametrize("shape", SHAPES)
def test_erased_boxes_lie_within_and_have_the_areas_and_ratios_of_the_paper(shape):
    top, left, height, width = boxes(erased_box, shape, 22)
    high, wide, _ = shape
    assert min(top.min(), left.min()) >= 0
    assert ((top + height) <= high).all()
    assert ((left + width) <= wide).all()
    if high == wide:
        area = (height * width / (high * wide))[height > 0]
        assert 0.01 < area.min() < 0.03
        assert 0.3 < area.max() < 0.36
        assert abs(np.median(np.log((width / height)[height > 0]))) < 0.1


def test_pictures_are_erased_at_the_rate():
    batch = pictures(4000, 8, 8)
    found, _ = changed(batch, erase=0.25)
    assert abs(np.mean((found == 0).any(axis=(1, 2, 3))) - 0.25) < 0.03
    np.testing.assert_array_equal(found[found > 0], batch[found > 0])


def test_the_centre_of_a_cutout_is_any_pixel():
    top, left, height, width = boxes(cutout_box, (8, 6, 3), 2, 4)
    assert (height.tolist(), width.tolist()) == ([4] * 4000, [4] * 4000)
    assert np.unique(top).tolist() == list(range(-2, 6))
    assert np.unique(left).tolist() == list(range(-2, 4))
    found, _ = changed(pictures(400, 8, 6), cutout=4)
    black = (found == 0).all(axis=-1).sum(axis=(1, 2))
    assert (black.min(), black.max()) == (4, 16)  # a corner's quarter, or all


# --- Sizes -----------------------------------------------------------------------------------------------------------


def test_pictures_of_any_size_have_the_side_of_the_epoch():
    augment = Augmentation(sizes=((0, 8), (3, 12)), crop=0.3, flip=True)
    for epoch, side in ((0, 8), (2, 8), (3, 12), (90, 12)):
        found = [augment.picture(each, seed=0, epoch=epoch, index=0) for each in (pictures(1, 40, 9)[0], *pictures(2))]
        assert {each.shape for each in found} == {(side, side, 3)}


def test_without_a_crop_the_middle_is_kept_in_its_proportions():
    wide = np.zeros((10, 30, 1), np.uint8)
    wide[:, 10:20] = 200
    (found,) = {
        each.tobytes()
        for each in (Augmentation(sizes=((0, 5),)).picture(wide, seed=s, epoch=0, index=0) for s in range(3))
    }
    assert found == bytes([200]) * 25


# --- Colours ---------------------------------------------------------------------------------------------------------


def jitters(monkeypatch, amounts, times):
    """Returns for each picture which changes were made, in their order, and by how much."""
    made = []
    noted = tuple(lambda picture, value, place=place: made[-1].append((place, value)) or picture for place in range(4))
    monkeypatch.setattr(augment_module, "_JITTERS", noted)
    for epoch in range(times):
        made.append([])
        changed(pictures(1), epoch=epoch, jitter=amounts)
    return made


@pytest.mark.every
@pytest.mark.parametrize("place", range(4))
def test_jitter_is_within_its_bounds_and_reaches_them(monkeypatch, place):
    middle = 1 if place < 3 else 0
    made = jitters(monkeypatch, [0.0] * place + [0.4], 800)
    assert {each[0][0] for each in made} == {place}
    found = [each[0][1] for each in made]
    assert middle - 0.4 <= min(found) < middle - 0.38
    assert middle + 0.38 < max(found) <= middle + 0.4
    assert abs(np.mean(found) - middle) < 0.03


def test_no_factor_of_jitter_is_below_zero(monkeypatch):
    found = [each[0][1] for each in jitters(monkeypatch, (3.0,), 800)]
    assert 0 <= min(found) < 0.1
    assert 3.9 < max(found) <= 4


def test_jitter_comes_in_every_order(monkeypatch):
    orders = {tuple(place for place, _ in each) for each in jitters(monkeypatch, (0.1, 0.1, 0.1), 300)}
    assert orders == set(itertools.permutations(range(3)))


# --- Two pictures in one ---------------------------------------------------------------------------------------------


def test_mixup_mixes_pictures_and_targets_by_one_share():
    batch, targets = pictures(8), np.arange(8) % 4
    shares = []
    for epoch in range(300):
        found, soft = changed(batch, targets=targets, epoch=epoch, mixup=0.2, classes=4)
        share = float(soft[0, 0])
        shares.append(share)
        expected = share * batch.astype(float) + (1 - share) * np.roll(batch, 1, axis=0)
        assert np.abs(found - expected).max() < 0.51
        np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(soft[1], [1 - share, share, 0, 0], atol=1e-6)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 * (2a + 1)).
    assert abs(np.mean(shares) - 0.5) < 0.08
    assert abs(np.var(shares) - 1 / 5.6) < 0.03


def test_cutmix_gives_targets_the_share_of_the_area():
    batch, targets = pictures(8, 12, 10), np.arange(8)
    shares = []
    for epoch in range(300):
        found, soft = changed(batch, targets=targets, epoch=epoch, cutmix=1.0, classes=8)
        other = np.roll(batch, 1, axis=0)
        inside = (found != batch).any(axis=(0, 3))
        for picture, box in ((found[:, inside], other[:, inside]), (found[:, ~inside], batch[:, ~inside])):
            np.testing.assert_array_equal(picture, box)
        shares.append(float(soft[0, 0]))
        assert shares[-1] == pytest.approx(1 - inside.mean(), abs=1e-6)
    assert 0.5 < np.mean(shares) < 0.75  # 1/2 but for what of a box lies outside


def test_a_batch_has_one_of_the_two_with_equal_probability():
    batch = pictures(4, 12, 12)
    cut = 0
    for epoch in range(300):
        found, _ = changed(batch, epoch=epoch, mixup=1.0, cutmix=1.0, classes=2)
        other = np.roll(batch, 1, axis=0)
        cut += bool(((found == batch) | (found == other)).all())
    assert 115 < cut < 185


# --- Refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shift": -1}, "`shift` must be 0 or more, but received -1 (int)."),
        ({"cutout": -1}, "`cutout` must be 0 or more, but received -1 (int)."),
        ({"mixup": -0.1}, "`mixup` must be 0 or more, but received -0.1 (float)."),
        ({"cutmix": float("nan")}, "`cutmix` must be 0 or more, but received nan (float)."),
        ({"crop": -0.1}, "`crop` must be in [0, 1], but received -0.1 (float)."),
        ({"erase": 1.5}, "`erase` must be in [0, 1], but received 1.5 (float)."),
        ({"policy": "rand"}, "`policy` must be 'none', 'randaugment' or 'trivialaugment', but received 'rand' (str)."),
        ({"magnitude": 11}, "`magnitude` must be in [0, 10], but received 11 (int)."),
        ({"operations": 0}, "`operations` must be 1 or more, but received 0 (int)."),
        (
            {"jitter": (0, 0, 0, 0.6)},
            "`jitter` must be up to four numbers of 0 or more, the fourth at most 0.5, but received (0, 0, 0, 0.6) "
            "(tuple).",
        ),
        (
            {"sizes": ((1, 8),)},
            "`sizes` must be (epoch, side) by rising epochs from 0 on, but received ((1, 8),) (tuple).",
        ),
        ({"mixup": 0.2}, "`classes` must be 2 or more where `mixup` or `cutmix` is set, but received 0 (int)."),
    ],
)
def test_a_setting_out_of_its_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape('Augmentation: ' + message)}$"):
        Augmentation(**settings)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3), "float32"), np.zeros((4, 4), "uint8"), np.zeros((4, 4, 4), "uint8")]
)
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(
        ValueError, match=r"^Augmentation: `picture` must be uint8 of shape \(height, width, 1 or 3\), but"
    ):
        Augmentation(flip=True).picture(wrong, seed=0, epoch=0, index=0)


@pytest.mark.parametrize("pixels", [5, 10**6])
def test_nothing_of_a_picture_may_be_shifted_out_of_sight(pixels):
    message = (
        f"Augmentation: `shift` must be less than 5, the smaller side of the pictures, but received {pixels} (int)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        changed(pictures(), shift=pixels)
    assert changed(pictures(), shift=4)[0].shape == pictures().shape
