from __future__ import annotations

import numpy as np
from keras import ops

from contract import assert_close
from keras_residual.xray.quantities.likeness import sample_cosine

X = (np.random.default_rng(0).normal(size=(5, 3, 4)) + 0.5).astype("float32")


def test_it_is_the_mean_over_the_pairs() -> None:
    flat = X.reshape(5, -1).astype("float64")
    pairs = [(a, b) for a in range(5) for b in range(5) if a != b]
    cosines = [flat[a] @ flat[b] / np.linalg.norm(flat[a]) / np.linalg.norm(flat[b]) for a, b in pairs]
    assert_close(sample_cosine(ops.convert_to_tensor(X)), np.float32(np.mean(cosines)))
    assert_close(sample_cosine(ops.convert_to_tensor(X * np.float32(1e25))), np.float32(np.mean(cosines)))


def test_of_one_sample_and_of_nothing() -> None:
    assert float(sample_cosine(ops.ones((1, 4)))) == 0
    assert float(sample_cosine(ops.zeros((3, 4)))) == 0
