"""The validation split: stratified, seeded, never a class without training examples."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.training.validation import split_validation

pytestmark = pytest.mark.any_backend


def test_each_class_gives_its_share():
    y = np.repeat([0, 1, 2], [100, 50, 10])
    train, validation = split_validation(y, fraction=0.1, classes=3, seed=0)
    assert np.bincount(y[validation]).tolist() == [10, 5, 1]
    assert np.bincount(y[train]).tolist() == [90, 45, 9]


def test_one_seed_one_split():
    y = np.arange(100) % 4
    first, again, other = (split_validation(y, fraction=0.2, classes=4, seed=seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@given(sizes=st.lists(st.integers(0, 30), min_size=2, max_size=6), fraction=st.floats(0.01, 0.99))
def test_every_class_keeps_a_training_example(sizes, fraction):
    y = np.repeat(np.arange(len(sizes)), sizes)
    if max(sizes) < 2:
        return
    train, validation = split_validation(y, fraction=fraction, classes=len(sizes), seed=0)
    assert sorted([*train, *validation]) == list(range(len(y)))
    assert len(validation) >= 1
    assert np.array_equal(np.unique(y[train]), np.unique(y))


def test_numbers_are_split_too():
    train, validation = split_validation(np.linspace(0, 1, 50), fraction=0.1, classes=0, seed=0)
    assert (len(train), len(validation)) == (45, 5)


def test_too_few_examples():
    message = "2 training examples are too few to keep one back for choosing the best epoch. Add examples."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        split_validation(np.array([0, 1]), fraction=0.5, classes=2, seed=0)
