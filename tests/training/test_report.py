"""The report: one valid file that needs no network, with the right numbers, the same bytes each time."""

import re
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest

from keras_residual.data import Dataset
from keras_residual.training.report import write_report
from keras_residual.training.run_directory import RunDirectory

pytestmark = pytest.mark.any_backend

HISTORY = [
    {"epoch": epoch, "loss": 1 / epoch, "val_loss": 1.1 / epoch, "accuracy": 0.5, "val_accuracy": 0.4}
    for epoch in range(1, 5)
]
METRICS = {
    "data": "d<a>ta",
    "model": "small_resnet",
    "epochs": 4,
    "train_seconds": 2.5,
    "compile_seconds": None,
    "test_accuracy": 0.75,
    "test_majority": 0.5,
    "versions": {"keras": "3"},
}


class Page(HTMLParser):
    """Collects ids and addresses, and checks that every element is closed in its turn."""

    VOID = frozenset({"meta", "br", "img", "link"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses, self.cells = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self._take(attrs)

    def handle_startendtag(self, tag, attrs):
        self._take(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data.strip())

    def _take(self, attrs):
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            elif key in ("src", "href", "xlink:href"):
                self.addresses.append(value)


def pictures(classes=("cat", "dog")):
    x = np.arange(4 * 4 * 4, dtype=np.uint8).reshape(4, 4, 4, 1)
    y = np.array([0, 1, 1, 0], np.int32)
    return Dataset("d<a>ta", "pictures", "classification", x, y, x, y, classes, ())


def written(tmp_path, dataset, outputs, metrics=METRICS):
    run = RunDirectory(tmp_path)
    write_report(run, dataset, outputs, HISTORY, metrics, best_epoch=3)
    return run.report.read_text()


OUTPUTS = np.array([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [2.0, 0.0]], np.float32)


def test_classes(tmp_path):
    text = written(tmp_path, pictures(), OUTPUTS)
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert [address[1:] for address in page.addresses if address[0] == "#" and address[1:] not in page.ids] == []
    assert sum(address.startswith("data:") for address in page.addresses) == 1
    assert "http" not in re.sub(r'(xmlns(:\w+)?="[^"]*"|<metadata>.*?</metadata>)', "", text, flags=re.S)
    assert "75.00 % right" in text
    assert "d&lt;a&gt;ta" in text
    assert "d<a>ta" not in text
    assert page.cells[:10] == ["2", "2", "100.0 %", "3", "66.7 %", "1", "2", "50.0 %", "1", "100.0 %"]
    assert [cell for cell in page.cells[10:] if cell][:4] == ["2", "0", "1", "1"]
    assert "is dog,<br>answered\ncat (95 % sure)" in text
    assert "Always answering “cat”, the commonest, would be right for\n50.00 %" in text
    assert "epoch 3" in text
    assert [cell for cell in page.cells if cell.startswith("not")] == ["not known"]


def shades(text):
    """The kind, the shade and the count of each cell of the table of confusions."""
    found = re.findall(r'<td class="(right|wrong|none)" style="--share: ([\d.]+)">(\d+)</td>', text)
    return [(kind, float(share), int(count)) for kind, share, count in found]


def test_a_few_mistakes_are_not_as_blue_as_many_right_answers(tmp_path):
    # Of 49 of one class all are wrong, of 351 of the other all are right.
    y = np.repeat([0, 1], [49, 351]).astype(np.int32)
    x = np.zeros((400, 3), np.float32)
    dataset = Dataset("d", "table", "classification", x, y, x, y, ("rare", "common"), ("a", "b", "c"))
    text = written(tmp_path, dataset, np.tile([[0.0, 1.0]], (400, 1)))
    assert shades(text) == [("none", 0, 0), ("wrong", 0.14, 49), ("none", 0, 0), ("right", 1, 351)]
    right, wrong = (re.search(rf"--{kind}: (#\w+)", text)[1] for kind in ("right", "wrong"))
    assert right != wrong


def test_the_surest_mistakes_of_every_class_are_shown(tmp_path):
    # Three classes with ten mistakes each, the surer the later; a fourth class has a single one, an unsure one.
    y = np.array([0, 1, 2] * 10 + [3], np.int32)
    outputs = np.zeros((31, 4), np.float32)
    outputs[np.arange(31), (y + 1) % 4] = np.r_[np.arange(1, 31) / 4, 0.1]
    x = np.arange(31 * 16, dtype=np.uint16).reshape(31, 4, 4, 1).astype(np.uint8)
    dataset = Dataset("d", "pictures", "classification", x, y, x, y, tuple("abcd"), ())
    text = written(tmp_path, dataset, outputs)
    found = re.findall(r"is (\w),<br>answered\n(\w) \((\d+) % sure\)", text)
    assert [true for true, *_ in found] == list("cbad" + "cba" * 7)[:24]
    assert all(answer == "abcd"[("abcd".index(true) + 1) % 4] for true, answer, _ in found)
    of_one = [int(sure) for true, _, sure in found if true == "a"]
    assert of_one == sorted(of_one, reverse=True)


def test_a_table_is_not_spoken_of_as_pictures(tmp_path):
    y = np.array([0, 1, 1, 0], np.int32)
    x = np.zeros((4, 2), np.float32)
    dataset = Dataset("d", "table", "classification", x, y, x, y, ("cat", "dog"), ("a", "b"))
    assert not re.search("picture|mirror", written(tmp_path, dataset, OUTPUTS), re.IGNORECASE)


def test_a_hundred_thousand_classes_take_little_memory_and_a_short_page(tmp_path):
    names = tuple(f"class{index}" for index in range(100_000))
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(40, 100_000)).astype(np.float32)
    y = np.r_[np.argmax(outputs[:5], axis=-1), rng.integers(100_000, size=35)].astype(np.int32)
    x = np.zeros((40, 4, 4, 1), np.uint8)
    tracemalloc.start()
    text = written(tmp_path, Dataset("d", "pictures", "classification", x, y, x, y, names, ()), outputs)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100e6
    assert len(text) < 300_000
    assert "The 40 of\n100000 classes that were recognised worst" in text


def test_names_are_no_html_and_nothing_that_a_terminal_obeys(tmp_path):
    text = written(tmp_path, pictures(("<script>alert(1)</script>", "a\x1b[2Jb")), OUTPUTS)
    Page(text)
    assert "<script>alert" not in text
    assert "\x1b" not in text
    assert r"a\x1b[2Jb" in text


def test_many_classes_become_a_list_of_confusions(tmp_path):
    names = tuple(f"class{index}" for index in range(30))
    outputs = np.zeros((4, 30), np.float32)
    outputs[[0, 1, 2, 3], [0, 1, 7, 0]] = 1
    text = written(tmp_path, pictures(names), outputs)
    Page(text)
    assert "The commonest mistakes." in text
    assert '<tr><th scope="row">class1</th><td>class7</td><td>1</td></tr>' in text


def test_numbers(tmp_path):
    x, y = np.ones((3, 1)), np.array([1.0, 2, 3])
    dataset = Dataset("t", "table", "regression", x, y, x, y, (), ("a",))
    metrics = METRICS | {"test_loss": 1.5625, "test_r2": 0.5, "test_rmse": 1.25}
    text = written(tmp_path, dataset, np.array([[1.0], [2.5], [2.0]]), metrics)
    Page(text)
    assert "R² = 0.500" in text
    assert "perfect answers" in text
    assert "mean absolute error" not in text
    text = written(tmp_path, dataset, np.array([[1.0], [2.5], [2.0]]), metrics | {"test_mae": 0.75})
    assert "off, in the target's unit, by\n0.75 in the mean" in text
    meaning = "mean squared error, in the square of the target"
    assert meaning in text[text.index('<th scope="row">test_loss') :]
    assert meaning in " ".join(text[: text.index("</figcaption>")].split())
    assert "mean absolute error" in text


def test_numbers_that_do_not_vary_have_no_r2(tmp_path):
    x = y = np.full(3, 2.0)
    dataset = Dataset("t", "table", "regression", x[:, None], y, x[:, None], y, (), ("a",))
    text = written(tmp_path, dataset, np.array([[1.0], [2.5], [2.0]]), METRICS | {"test_rmse": 1.25})
    Page(text)
    assert "R² =" not in text
    assert "The target does not vary among them, so there is no R²" in text


def test_a_hundred_thousand_numbers_are_a_page_that_a_browser_opens(tmp_path):
    y = np.linspace(0, 1, 100_000, dtype=np.float32)
    x = y[:, None]
    text = written(
        tmp_path,
        Dataset("t", "table", "regression", x, y, x, y, (), ("a",)),
        x,
        METRICS | {"test_r2": 1.0, "test_rmse": 0.0},
    )
    assert "2,000 of 100,000 test examples" in text
    assert len(text) < 1_000_000


def test_the_same_bytes_each_time(tmp_path):
    assert written(tmp_path, pictures(), OUTPUTS) == written(tmp_path, pictures(), OUTPUTS)


def test_it_follows_the_page_into_the_dark(tmp_path):
    text = written(tmp_path, pictures(), OUTPUTS)
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text
    assert "#010203" not in text
    assert "#000000" not in text
