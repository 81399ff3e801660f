"""What a message shows of foreign names and values: one line, bounded, and nothing that a terminal obeys."""

import re

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual._errors import (
    bad_argument,
    bad_checkpoint,
    did_you_mean,
    listed,
    printable,
    shape_mismatch,
    shown,
    unknown_name,
)

pytestmark = pytest.mark.any_backend

ESCAPES = "a\x1b]0;title\x07b\r\nc\u202ed\x9b31m\u2028e\udc80"


@given(st.text(st.characters(), max_size=400), st.integers(10, 300))
def test_any_text_is_printable_and_bounded(text, limit):
    result = printable(text, limit)
    assert result.isprintable()
    assert len(result) <= limit
    if text.isprintable() and len(text) <= limit:
        assert result == text


def test_control_characters_become_escapes():
    assert printable(ESCAPES) == r"a\x1b]0;title\x07b\r\nc\u202ed\x9b31m\u2028e\udc80"


def test_of_a_long_text_the_end_stays():
    assert printable("a" * 500 + "/model.pth", limit=40) == "a" * 25 + " … " + "aa/model.pth"


def test_a_list_of_names_says_how_many_there_are():
    assert listed(["a", "b\x1b", "c"], 2) == r"a, b\x1b and 1 more"
    assert listed(name for name in "ab") == "a, b"
    assert listed([]) == ""
    assert listed([" a", "b", "", "c  d", "e f"]) == "' a', b, '', 'c  d', e f"


def test_blanks_at_the_ends_of_a_name_are_seen():
    assert did_you_mean("y", [" y ", "x"]) == " Did you mean ' y '? Known: ' y ', x."
    assert did_you_mean("   target", ["targets", "target"]) == " Did you mean 'target'? Known: targets, target."


@pytest.mark.parametrize(("name", "near"), [("7", "007"), ("0012", "12"), ("0", None), ("8", None)])
def test_zeros_that_a_spreadsheet_takes_away_are_thought_of(name, near):
    known = ["007", "other", "12", ""]
    said = did_you_mean(name, known).partition("?")[0]
    assert said == f" Did you mean {near!r}" if near else not said.startswith(" Did")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "'plain'"),
        ({"b": 1, "a": [1, (2, None)]}, "{'b': 1, 'a': [1, (2, None)]}"),
        (np.arange(4).reshape(2, 2), "array([[0, 1], [2, 3]])"),
    ],
)
def test_a_value_is_shown_as_python_writes_it(value, text):
    assert shown(value) == text


def itself():
    loop: list = []
    loop.append(loop)
    return loop


def deep(levels=100_000):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


class Broken:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    ["x" * 1_000_000, list(range(1_000_000)), dict.fromkeys(range(1_000_000)), 10**10_000, itself(), deep(), Broken()],
    ids=["text", "list", "dict", "number", "itself", "deep", "broken"],
)
@pytest.mark.parametrize(
    "error",
    [
        lambda value: bad_argument("Owner", "argument", "short", value),
        lambda value: bad_checkpoint(str(type(value)), f"it has {listed([shown(value)] * 1000)}", "Leave it."),
        lambda value: unknown_name("Owner", "argument", shown(value), [shown(value)] * 100),
    ],
    ids=["argument", "checkpoint", "name"],
)
def test_no_value_makes_a_long_message_or_an_error_of_its_own(value, error):
    message = str(error(value))
    assert len(message) <= 4000
    assert message.isprintable()


@pytest.mark.parametrize("value", [np.zeros((2, 6)), keras.KerasTensor((None, 3)), keras.ops.zeros((4, 4))])
def test_of_a_tensor_its_shape_is_shown(value):
    message = str(bad_argument("Owner", "argument", "short", value))
    assert re.search(r"received \((2, 6|None, 3|4, 4)\) of \S*float\d\d \(\w+\)", message)
    assert "[0., 0.]" in str(bad_argument("Owner", "argument", "short", np.zeros(2)))


def test_foreign_names_reach_no_message_raw():
    messages = [
        bad_argument(ESCAPES, ESCAPES, ESCAPES, ESCAPES, ESCAPES),
        bad_checkpoint(ESCAPES, ESCAPES, ESCAPES),
        unknown_name(ESCAPES, ESCAPES, ESCAPES, [ESCAPES]),
        shape_mismatch(ESCAPES, ESCAPES, (1,), ESCAPES, (2,), ESCAPES),
        did_you_mean(ESCAPES, [ESCAPES]),
        did_you_mean("x" * 1_000_000, ["y"]),
    ]
    for message in messages:
        assert str(message).isprintable()
