"""The report: one valid file that needs no network, with the right numbers, the same bytes each time."""

import re
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
METRICS = {"data": "d<a>ta", "model": "small_resnet", "epochs": 4, "test_accuracy": 0.75, "versions": {"keras": "3"}}


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
    assert page.cells[:6] == ["2", "2", "100.0 %", "1", "2", "50.0 %"]
    assert [cell for cell in page.cells[6:] if cell][:4] == ["2", "0", "1", "1"]
    assert "is dog,<br>answered cat" in text
    assert "epoch 3" in text


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
    metrics = METRICS | {"test_r2": 0.5, "test_rmse": 1.25}
    text = written(tmp_path, dataset, np.array([[1.0], [2.5], [2.0]]), metrics)
    Page(text)
    assert "R² = 0.500" in text
    assert "perfect answers" in text


def test_the_same_bytes_each_time(tmp_path):
    assert written(tmp_path, pictures(), OUTPUTS) == written(tmp_path, pictures(), OUTPUTS)


def test_it_follows_the_page_into_the_dark(tmp_path):
    text = written(tmp_path, pictures(), OUTPUTS)
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text
    assert "#010203" not in text
    assert "#000000" not in text
