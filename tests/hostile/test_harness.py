"""The harness sees each kind of harm, or a count of none would say nothing."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from hostile.harness import Case, assert_harmless, attack, mutations, read_intact

pytestmark = [pytest.mark.any_backend, pytest.mark.hostile]


def reader(path):
    """Does what the file says."""
    text = Path(path).read_text()
    match text:
        case "refuse":
            raise ValueError("it is no good.")
        case "many lines":
            raise ValueError("one\ntwo")
        case "escape codes":
            raise ValueError("\x1b[31m")
        case "other error":
            raise RuntimeError("what")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            while True:
                pass
        case "flood":
            return int(np.ones(1_200_000_000, np.uint8).sum())
        case "huge flood":
            return int(np.ones(10**12, np.uint8).sum())
        case "exit":
            os._exit(3)
        case "exit of Python":
            raise SystemExit(3)
    return json.loads(text)


def test_each_verdict():
    table = [
        ("refuse", "refused", "plain"),
        ("refuse", "same", "wrong"),
        ("refuse", "same or refused", "plain"),
        ("[1]", "same", "read"),
        ("[1]", "any", "read"),
        ("[1]", "refused", "wrong"),
        ("[2]", "same or refused", "wrong"),
        ("[2]", "any", "read"),
        ("many lines", "refused", "unexpected"),
        ("escape codes", "refused", "unexpected"),
        ("other error", "any", "unexpected"),
        ("exit of Python", "any", "unexpected"),
        ("huge flood", "any", "unexpected"),
        ("crash", "any", "crashed"),
        ("hang", "any", "crashed"),
        ("exit", "any", "crashed"),
        ("flood", "any", "read"),
    ]
    cases = [Case(content, content.encode(), expected, original=[1]) for content, expected, _ in table]
    outcomes = attack("hostile.test_harness:reader", cases, seconds=5)
    for outcome, (content, expected, verdict) in zip(outcomes, table, strict=True):
        assert outcome.verdict == verdict, (content, expected, outcome)
        if verdict in ("plain", "read") and content != "flood":
            assert_harmless([outcome])
        else:
            with pytest.raises(AssertionError, match="1 of 1 inputs did harm"):
                assert_harmless([outcome])
    assert 1.1e9 < outcomes[-1].memory < 1.4e9


def test_outcomes_come_in_the_order_of_the_cases():
    cases = [Case(str(n), json.dumps(n).encode(), "same", original=n) for n in range(7)]
    outcomes = attack("hostile.test_harness:reader", cases)
    assert [outcome.case for outcome in outcomes] == cases
    assert assert_harmless(outcomes) == {"read": 7}
    assert read_intact("hostile.test_harness:reader", [(b"[3]", "x"), (b"4", "y")]) == [[3], 4]
    with pytest.raises(AssertionError, match="the intact x is plain"):
        read_intact("hostile.test_harness:reader", [(b"refuse", "x")])


def test_mutations_repeat_themselves_and_differ():
    content = bytes(range(256)) * 20
    made = list(mutations(content, seed=3, number=90))
    assert made == list(mutations(content, seed=3, number=90))
    assert len({damaged for _, damaged in made} - {content}) > 80
