"""JSON of others is a value or one line that says what is wrong."""

import re

import pytest

from keras_residual._json import parse

pytestmark = pytest.mark.any_backend


@pytest.mark.parametrize(
    "content", [b'{"a": [1, 2.5, null, "\xc3\xa9"]}', b'\xef\xbb\xbf{"a": [1, 2.5, null, "\xc3\xa9"]}']
)
def test_it_is_read(content):
    assert parse(content) == {"a": [1, 2.5, None, "é"]}
    assert parse(content.decode("utf-8-sig")) == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is no JSON (Expecting value: line 1 column 1 (char 0))"),
        (b'{"a": ', "it is no JSON (Expecting value: line 1 column 7 (char 6))"),
        (b"\xff{}", "it is no text in UTF-8"),
        (b"[" * 500_000, "it is nested too deep"),
        (b'{"a":' * 500_000, "it is nested too deep"),
        (b'{"a": {"b\\u001b": 1, "c": 2, "b\\u001b": 3}}', r"it has 'b\x1b' twice"),
        (b"[" + b"9" * 5000 + b"]", "it has a number of 5000 digits"),
    ],
)
def test_what_is_wrong_is_said(content, what):
    with pytest.raises(ValueError, match=f"^{re.escape(what)}") as caught:
        parse(content)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
