import numpy as np
import pytest

from keras_residual.data.pictures import DEFAULT_SIZE, Header, Picture, choose_shape, decode, read_headers
from keras_residual.data.pixels import conform

pytestmark = pytest.mark.any_backend


def read(path, shape=None):
    picture = [Picture(str(path), path)]
    shape = shape or choose_shape(read_headers(picture, owner="T"), (None, None, None))
    return decode(picture, shape, owner="T")[0]


@pytest.mark.parametrize(
    ("headers", "asked", "shape"),
    [
        ([Header(28, 28, True)] * 2, (None, None, None), (28, 28, 1)),
        ([Header(32, 48, True), Header(32, 48, False)], (None, None, None), (32, 48, 3)),
        ([Header(96, 96, False)], (None, None, None), (96, 96, 3)),
        ([Header(97, 97, False)], (None, None, None), (DEFAULT_SIZE, DEFAULT_SIZE, 3)),
        ([Header(28, 28, True), Header(29, 28, True)], (None, None, None), (DEFAULT_SIZE, DEFAULT_SIZE, 1)),
        ([Header(28, 28, True)], (40, 40, None), (40, 40, 1)),
        ([Header(28, 28, True)], (8, 9, 3), (8, 9, 3)),
    ],
)
def test_the_shape_is_what_was_asked_else_what_all_share(headers, asked, shape):
    assert choose_shape(headers, asked) == shape


def test_the_exif_orientation_is_honoured(tmp_path, write_picture):
    from PIL import Image

    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter: the upper half is white
    shown = read(write_picture(tmp_path / "turned.png", pixels=pixels, exif=exif))
    assert shown.shape == (16, 8, 3)
    np.testing.assert_array_equal(shown[:8], 255)
    np.testing.assert_array_equal(shown[8:], 0)


def test_resizing_is_antialiased(tmp_path, write_picture):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = read(write_picture(tmp_path / "board.png", pixels=board), (8, 8, 1))
    # Every other pixel of a chessboard would be all black or all white.
    assert 120 <= small.min() <= small.max() <= 135


def test_proportions_stay_and_the_overhang_is_cut_evenly(tmp_path, write_picture):
    wide = np.zeros((32, 96), np.uint8)
    wide[:, 32:64] = 200
    np.testing.assert_array_equal(read(write_picture(tmp_path / "wide.png", pixels=wide), (32, 32, 1)), 200)


def test_large_jpegs_keep_their_content(tmp_path, write_picture):
    pixels = np.zeros((1024, 1024, 3), np.uint8)
    pixels[:512] = (250, 0, 0)
    small = read(write_picture(tmp_path / "large.jpg", pixels=pixels, quality=95), (16, 16, 3)).astype(int)
    assert np.abs(small[:7] - (250, 0, 0)).max() <= 4
    assert np.abs(small[9:]).max() <= 4


def test_detail_of_large_jpegs_survives(tmp_path, write_picture):
    board = ((np.indices((1024, 1024)) // 4).sum(0) % 2 * 255).astype(np.uint8)
    half = read(write_picture(tmp_path / "board.jpg", pixels=board, quality=95), (512, 512, 1))
    assert half.std() > 80


def test_transparency_is_laid_over_white(tmp_path, write_picture):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    shown = read(write_picture(tmp_path / "clear.png", pixels=pixels))
    assert shown[0, 0].tolist() == [10, 20, 30]
    assert shown[1, 1].tolist() == [255, 255, 255]


def test_sixteen_bits_become_eight_over_the_whole_range(tmp_path, write_picture):
    deep = np.array([[0, 256, 32768, 65535]], np.uint16)
    assert read(write_picture(tmp_path / "deep.png", pixels=deep))[..., 0].tolist() == [[0, 1, 128, 255]]


def test_values_of_no_known_range_are_refused(tmp_path, write_picture):
    path = write_picture(tmp_path / "float.tiff", pixels=np.ones((4, 4), np.float32))
    message = (
        f"T: 1 file is not a picture that can be read: {path} "
        "(its values have no known range (mode F); save it with 8 or 16 bits). Remove or replace it."
    )
    with pytest.raises(ValueError, match="known range") as caught:
        read(path)
    assert str(caught.value) == message


def test_order_stays_though_threads_decode(tmp_path, write_picture):
    files = [write_picture(tmp_path / f"{number}.png", number) for number in range(200)]
    x = decode([Picture(str(path), path) for path in files], (8, 8, 1), owner="T")
    np.testing.assert_array_equal(x[:, 0, 0, 0], np.arange(200))


def test_conform_leaves_what_fits_and_changes_channels_and_size():
    x = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3)).astype(np.uint8)
    assert conform(x, (None, None, None)) is x
    grey = conform(x, (None, None, 1))
    np.testing.assert_allclose(grey[..., 0], x @ np.array([0.299, 0.587, 0.114]), atol=1)
    assert conform(x, (12, 9, 3)).shape == (3, 12, 9, 3)
