import io
import os
import re
import struct
import threading
import time
import zlib

import numpy as np
import pytest

from keras_residual.data import pictures as pictures_module
from keras_residual.data.lazy import Skipped
from keras_residual.data.pictures import DEFAULT_SIZE, Header, Picture, choose_shape, conform, decode, read_headers

pytestmark = pytest.mark.any_backend


def read(path, shape=None):
    picture = [Picture(str(path), path)]
    headers = [header for header in read_headers(picture, Skipped(0, "T")) if header]
    shape = shape or (choose_shape(headers, (None, None, None))[0] if headers else (8, 8, 3))
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
    chosen, why = choose_shape(headers, asked)
    assert chosen == shape
    assert why.startswith(f"Pictures are read at {shape[0]}×{shape[1]}{' in grey' if shape[2] == 1 else ''}: ")


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
    stored = {"packed": x.nbytes, "owner": "T"}
    assert conform(x, (None, None, None), **stored) is x
    grey = conform(x, (None, None, 1), **stored)
    np.testing.assert_allclose(grey[..., 0], x @ np.array([0.299, 0.587, 0.114]), atol=1)
    assert conform(x, (12, 9, 3), **stored).shape == (3, 12, 9, 3)


def test_nothing_else_is_started_for_a_picture(tmp_path, monkeypatch):
    # Pillow has Ghostscript run what is in an EPS, whatever the file is called.
    ghostscript, started = tmp_path / "gs", tmp_path / "started"
    ghostscript.write_text(f"#!/bin/sh\ntouch {started}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "0.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    for content in (path, path.read_bytes()):
        with pytest.raises(ValueError, match=r"\(not a picture in JPEG, PNG, WebP, BMP, GIF or TIFF\)"):
            decode([Picture("0.png", content)], (8, 8, 3), owner="T")
    assert not started.exists()


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000"])
def test_other_formats_are_not_opened(kind, tmp_path, write_picture):
    path = write_picture(tmp_path / "p.png", 7, size=(16, 16), mode="RGB", format=kind)
    with pytest.raises(ValueError, match="not a picture in JPEG, PNG, WebP, BMP, GIF or TIFF"):
        read(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_formats_that_are_opened_whatever_the_file_is_called(kind, tmp_path, write_picture):
    path = write_picture(tmp_path / "p.dat", (200, 100, 50), mode="RGB", format=kind)
    assert np.abs(read(path, (8, 8, 3)).astype(int) - (200, 100, 50)).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_counts(kind, tmp_path):
    from PIL import Image

    frames = [Image.new("RGB", (8, 8), (value, value, value)) for value in (200, 20, 90)]
    frames[0].save(tmp_path / "p", kind, save_all=True, append_images=frames[1:])
    assert np.abs(read(tmp_path / "p", (8, 8, 1)).astype(int) - 200).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_colours_for_print_become_those_of_a_screen(kind, tmp_path, write_picture):
    path = write_picture(tmp_path / "p", (0, 255, 255, 0), mode="CMYK", format=kind)  # no cyan: red
    assert np.abs(read(path, (8, 8, 3)).astype(int) - (255, 0, 0)).max() <= 4


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, colour, rows, depth=16):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(("colour", "samples"), [(0, [0x8123]), (2, [0x8123, 0x4001, 0xFFFF]), (4, [0x8123, 0xFFFF])])
def test_sixteen_bits_of_any_colour_become_the_upper_eight(colour, samples):
    rows = b"\0" + struct.pack(f">{len(samples)}H", *samples)
    (pixel,) = decode([Picture("p", png(1, 1, colour, rows))], (1, 1, 3), owner="T")
    expected = [0x81, 0x40, 0xFF] if colour == 2 else [0x81] * 3
    assert pixel[0, 0].tolist() == expected


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_in_either_order_of_bytes(order, tmp_path):
    values = np.array([[0, 256, 32768, 65535]], f"{order}u2")
    mark, entry = (b"II*\0", "<HHII") if order == "<" else (b"MM\0*", ">HHII")
    short = lambda value: value if order == "<" else value << 16  # noqa: E731 - left in a field of four bytes
    tags = [(256, 3, short(4)), (257, 3, short(1)), (258, 3, short(16)), (259, 3, short(1)), (262, 3, short(1)),
            (273, 4, 200), (277, 3, short(1)), (278, 3, short(1)), (279, 4, 8)]  # fmt: skip
    directory = struct.pack(entry[:2], len(tags)) + b"".join(
        struct.pack(entry, tag, kind, 1, value) for tag, kind, value in tags
    )
    content = mark + struct.pack(order + "I", 8) + directory + bytes(4)
    (tmp_path / "p.tif").write_bytes(content.ljust(200, b"\0") + values.tobytes())
    assert read(tmp_path / "p.tif")[..., 0].tolist() == [[0, 1, 128, 255]]


def test_a_palette_with_a_transparent_colour(tmp_path):
    from PIL import Image

    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    for kind in ("PNG", "GIF"):
        image.save(tmp_path / "p", kind, transparency=1)
        assert read(tmp_path / "p", (1, 2, 3)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0http://n", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 9]
)
def test_a_picture_is_none_the_worse_for_damaged_exif_data(kind, exif, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 4), (90, 90, 90)).save(tmp_path / "p", kind, exif=exif)
    shown = read(tmp_path / "p")
    assert shown.shape == (4, 8, 3)
    assert np.abs(shown.astype(int) - 90).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_honoured(orientation, tmp_path):
    from PIL import Image, ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "p.png"))
    np.testing.assert_array_equal(read(tmp_path / "p.png"), np.asarray(expected))


def test_more_pixels_than_memory_may_hold_are_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(pictures_module, "to_pixels", None)
    message = (
        "T: 1 file is not a picture that can be read: p (more pixels than the 50 million that are allowed; save it "
        "smaller). Remove or replace it."
    )
    for side in (7_100, 20_000):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            decode([Picture("p", png(side, side, 0, b"", depth=8))], (8, 8, 1), owner="T")


def test_a_large_jpeg_that_is_decoded_smaller_is_allowed(tmp_path):
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (8_000, 8_000), 90).save(file, "JPEG")
    assert decode([Picture("p", file.getvalue())], (8, 8, 1), owner="T").tolist() == [[[[90]] * 8] * 8]


def test_what_is_decoded_at_a_time_has_the_memory_that_there_is():
    memory, used, most = pictures_module._Memory(10), [0], [0]
    lock = threading.Lock()

    def decoding(size):
        with memory.taken(size):
            with lock:
                used[0] += size
                most[0] = max(most[0], used[0])
            time.sleep(0.001)
            with lock:
                used[0] -= size

    sizes = np.random.default_rng(0).integers(1, 11, 60).tolist()
    threads = [threading.Thread(target=decoding, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert 5 < most[0] <= 10
    assert memory._left == 10
