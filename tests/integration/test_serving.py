"""examples/serve_onnx.py serves an exported model to real clients, and ends with them."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_residual as kr

pytestmark = [pytest.mark.any_backend, pytest.mark.slow]

PROGRAM = Path(__file__).parents[2] / "examples" / "serve_onnx.py"
LABELS = ["red", "green", "blue"]
MOST_BYTES = 100_000


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def post(port, body, timeout=120):
    """Returns the status and the answer of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def asking(picture):
    return json.dumps({"picture": base64.b64encode(picture).decode()})


def png(pixels):
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pictures(count):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), "uint8")


def wait_until_ready(port, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server has ended"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    raise TimeoutError("the server did not become ready")


def running(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model's file, and the port at which the program serves it."""
    pytest.importorskip("litserve")
    folder = tmp_path_factory.mktemp("served")
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(x)
    x = kr.Residual([keras.layers.Conv2D(8, 3, padding="same"), keras.layers.ReLU()])(x)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    kr.export(keras.Model(inputs, outputs), folder / "net.onnx", labels=LABELS)
    port = free_port()
    arguments = [str(folder / "net.onnx"), "--port", str(port), "--most-bytes", str(MOST_BYTES)]
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until_ready(port, process)
        yield folder / "net.onnx", port
        process.send_signal(signal.SIGINT)
        process.wait(60)
        deadline = time.monotonic() + 30
        while running(process.pid) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not running(process.pid), "the server has left processes"
        assert sorted(path.name for path in folder.iterdir()) == ["net.onnx", "net.onnx.json"]
    finally:
        if running(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def check(answer, expected):
    status, found = answer
    assert status == 200, found
    np.testing.assert_allclose(found["outputs"], expected, rtol=1e-4, atol=1e-6)
    chances = np.exp(expected) / np.exp(expected).sum()
    assert found["class"] == LABELS[int(np.argmax(expected))]
    assert found["probability"] == pytest.approx(float(chances.max()), rel=1e-4)


def test_right_answers(served):
    file, port = served
    for pixels, expected in zip(pictures(3), kr.load_exported(file).predict(pictures(3)), strict=True):
        check(post(port, asking(png(pixels))), expected)


def test_eight_clients_at_once_lose_nothing(served):
    file, port = served
    given = pictures(48)
    expected = kr.load_exported(file).predict(given)
    bodies = [asking(png(pixels)) for pixels in given]
    bodies[7] = asking(b"no picture")  # an error of one is none of others
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda body: post(port, body), bodies))
    assert answers[7][0] == 422
    for index in sorted(set(range(48)) - {7}):
        check(answers[index], expected[index])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (asking(b"no picture"), "The picture is none of PNG, JPEG, WEBP, GIF, BMP."),
        (asking(b"\x89PNG\r\n\x1a\n" + b"\0" * 40), "The picture "),
        (asking(png(pictures(1)[0])[:120]), "The picture cannot be read: "),
        (json.dumps({"picture": "AAAAA"}), "Base64 decoding error"),
        (json.dumps({"image": "AAAA"}), "Field required"),
        ("{not json", "JSON decode error"),
    ],
)
def test_what_is_no_picture_gets_its_reason(served, body, reason):
    status, answer = post(served[1], body)
    assert 400 <= status < 500
    assert reason in json.dumps(answer)


def test_a_picture_that_is_small_as_a_file_alone_is_refused(served):
    file = io.BytesIO()
    pytest.importorskip("PIL.Image").new("1", (8000, 8000)).save(file, "PNG")
    status, answer = post(served[1], asking(file.getvalue()))
    reason = "The picture cannot be read: 8000x8000 pixels are more than 50,000,000."
    assert (status, answer) == (422, {"detail": reason})


def test_a_body_that_is_too_large_is_refused(served):
    file, port = served
    status, answer = post(port, json.dumps({"picture": "A" * (2 * MOST_BYTES)}))
    assert (status, answer) == (413, {"detail": "Payload too large"})
    check(post(port, asking(png(pictures(1)[0]))), kr.load_exported(file).predict(pictures(1))[0])
