"""Pictures from tar files, by names in a table, and from objects of the user: the same set as from folders."""

import io
import json
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

from keras_residual.data import load_dataset
from keras_residual.data.lazy import LazyExamples

pytestmark = pytest.mark.any_backend

COUNT = 24


def refused(message, source, **arguments):
    with pytest.raises(ValueError, match=f"^{re.escape(f'Data {str(source)!r}: {message}')}$"):
        load_dataset(str(source), **arguments)


def examples():
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8), "ab"[row % 2]) for row in range(COUNT)]


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_tar(path, rows, suffix="cls", label=lambda text: text.encode()):
    with tarfile.open(path, "w") as archive:
        for row, (pixels, text) in enumerate(rows):
            for name, content in ((f"{row:04}.png", encoded(pixels)), (f"{row:04}.{suffix}", label(text))):
                member = tarfile.TarInfo(f"some/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def check(data, expected):
    """All examples are there once, with their labels."""
    x, y = np.concatenate([data.x_train[:], data.x_test[:]]), np.concatenate([data.y_train, data.y_test])
    found = sorted((pixels.tobytes(), data.classes[label]) for pixels, label in zip(x, y, strict=True))
    assert found == sorted((pixels.tobytes(), label) for pixels, label in expected)


@pytest.mark.parametrize("memory", [0, 2**29])
@pytest.mark.parametrize(
    ("suffix", "label", "target"),
    [
        ("cls", str.encode, None),
        ("txt", lambda text: f"{text}\n".encode(), None),
        ("json", lambda text: json.dumps({"label": text}).encode(), None),
        ("json", lambda text: json.dumps({"kind": text, "label": "x"}).encode(), "kind"),
    ],
)
def test_pictures_of_a_tar(tmp_path, memory, suffix, label, target):
    write_tar(tmp_path / "p.tar", examples(), suffix, label)
    data = load_dataset(str(tmp_path / "p.tar"), memory=memory, target=target)
    assert isinstance(data.x_train, LazyExamples) == (memory == 0)
    check(data, examples())


def test_parts_of_a_folder_of_tars(tmp_path):
    rows = examples()
    for name, part in (
        ("train-000", rows[:8]),
        ("train-001", rows[8:14]),
        ("val-000", rows[14:18]),
        ("test-0", rows[18:]),
    ):
        write_tar(tmp_path / f"{name}.tar", part)
    data = load_dataset(str(tmp_path))
    assert (len(data.x_train), len(data.choose), len(data.x_test)) == (18, 4, 6)
    check(data, rows)


def test_tars_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ValueError, match=r"a\.tar cannot be read as tar \(.*\)\. Replace it; unpack one that is compr"):
        load_dataset(str(tmp_path / "a.tar"))
    write_tar(tmp_path / "b.tar", examples(), "label")
    with pytest.raises(ValueError, match=r"24 pictures of .*b\.tar have no label, such as 'some/0000\.png'\. Beside"):
        load_dataset(str(tmp_path / "b.tar"))
    write_tar(tmp_path / "c.tar", examples(), "json")
    refused(
        "the label in 'some/0000.json' cannot be read. Write text, or JSON with the key that --target names, by "
        "default `label`.",
        tmp_path / "c.tar",
    )


@pytest.mark.parametrize(
    ("folder", "name"), [("", "{}.png"), ("images", "{}.png"), ("images", "{}"), ("", "images/{}.png")]
)
def test_labels_from_a_csv_of_file_names(tmp_path, folder, name):
    rows = examples()
    place = tmp_path / ("images" if name.startswith("images") else folder)
    place.mkdir(exist_ok=True)
    lines = ["file,kind"]
    for row, (pixels, label) in enumerate(rows):
        Image.fromarray(pixels).save(place / f"p{row}.png")
        lines.append(f"{name.format(f'p{row}')},{label}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    (place / "p0.png").unlink()
    data = load_dataset(str(tmp_path / "labels.csv"), target="kind")
    check(data, rows[1:])
    told = []
    data.skipped.tell(told.append)
    assert told == [f"Skipped: {place / 'p0.png'} (No such file or directory)"]
    check(load_dataset(str(tmp_path / "labels.csv"), memory=0), rows[1:])


# --- Objects ----------------------------------------------------------------------------------------------------------


class Items:
    """What a torch `Dataset` or a Grain source is: a length, and an example for a place."""

    def __init__(self, items, **attributes):
        self.items = items
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, place):
        return self.items[place]


def pairs(change=lambda pixels: pixels, label=lambda text: text):
    return [(change(pixels), label(text)) for pixels, text in examples()]


OBJECTS = {
    "arrays": lambda: tuple(np.array(part) for part in zip(*pairs(), strict=True)),
    "a dictionary of arrays": lambda: dict(zip("xy", OBJECTS["arrays"](), strict=True)),
    "pairs": lambda: Items(pairs()),
    "dictionaries": lambda: Items([{"image": x, "label": y} for x, y in pairs()]),
    "pictures of Pillow": lambda: Items(pairs(Image.fromarray)),
    "channels first, 0 to 1": lambda: Items(pairs(lambda x: np.moveaxis(x, -1, 0).astype(np.float32) / 255)),
    "numbers with names": lambda: Items(pairs(label="ab".index), classes=["a", "b"]),
    "parts": lambda: {"Training": Items(pairs()[:14]), "val": Items(pairs()[14:18]), "test": Items(pairs()[18:])},
}  # fmt: skip


@pytest.mark.parametrize("memory", [0, 2**29])
@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_of_the_caller(kind, memory):
    data = load_dataset(OBJECTS[kind](), memory=memory)
    assert data.classes == ("a", "b")
    assert isinstance(data.x_train, LazyExamples) == (memory == 0 and "arrays" not in kind)
    check(data, examples())
    if kind == "parts":
        assert (len(data.x_train), data.choose.tolist(), len(data.x_test)) == (18, [14, 15, 16, 17], 6)


@pytest.mark.parametrize("memory", [0, 2**29])
def test_rows_of_an_object_are_a_table(memory):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    held, other = load_dataset((x, y)), load_dataset(Items(list(zip(x, y, strict=True))), memory=memory)
    assert (held.kind, held.task, held.features) == ("table", "regression", ("x0", "x1", "x2"))
    np.testing.assert_array_equal(held.x_train[:], other.x_train[:])
    np.testing.assert_array_equal(held.y_test, other.y_test)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (iter([1]), "Data 'list_iterator': a list_iterator gives no example for a place"),
        (Items([(np.zeros(3), 0), (np.zeros(4), 1)]), "Data 'Items': an example has shape (4,), and the first"),
        (Items([3, 4]), "Data 'Items': example 0 is 3. Pass (x, y), a dictionary of parts"),
        (Items([("text", 1)]), "Data 'Items': an example is <U4 of shape (), neither a picture nor a row of numbers."),
        ((np.zeros((3, 2)), np.zeros(4)), "Data 'arrays': x has 3 examples and y has 4."),
        (Items(pairs(label=lambda text: 5), classes=["a", "b"]), "Data 'Items': labels run from 5 to 5, and 2"),
        ({"test": Items(pairs())}, "Data 'arrays': there is no part 'train' among 'test'."),
        (Items([]), "Data 'Items': there are no examples."),
    ],
)  # fmt: skip
def test_objects_that_cannot_be_used_are_refused(source, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        load_dataset(source)
