"""What is measured of several streams, against loops over tokens and pairs."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from contract import assert_close
from keras_residual.stacks.topologies.manifold import sinkhorn
from keras_residual.xray.quantities.streams import double_stochasticity, stream_collapse, transport_gain

RNG = np.random.default_rng(0)
STREAMS = (RNG.normal(size=(2, 5, 4, 8)) + 0.3).astype("float32")
TRANSPORTS = (np.eye(3) + 0.3 * RNG.normal(size=(6, 2, 5, 3, 3))).astype("float32")


def test_collapse_is_the_mean_over_pairs_and_tokens() -> None:
    cosines = []
    for streams in STREAMS.reshape(-1, 4, 8).astype("float64"):
        for i in range(4):
            for j in range(i):
                a, b = streams[i], streams[j]
                cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    for size in (1.0, 1e25):
        assert_close(stream_collapse(ops.convert_to_tensor(STREAMS * np.float32(size))), np.float32(np.mean(cosines)))


def test_collapse_of_copies_of_opposites_and_of_nothing() -> None:
    row = STREAMS[:, :, :1]
    assert_close(stream_collapse(ops.convert_to_tensor(row.repeat(3, axis=2))), np.float32(1.0))
    assert_close(stream_collapse(ops.convert_to_tensor(np.concatenate([row, -2 * row], axis=2))), np.float32(-1.0))
    assert float(stream_collapse(ops.zeros((2, 4, 8)))) == 0


def test_the_gain_is_that_of_the_products_token_by_token() -> None:
    gains = np.zeros((6, 10))
    for token in range(10):
        product = np.eye(3)
        for depth in range(6):
            product = TRANSPORTS[depth].reshape(10, 3, 3)[token].astype("float64") @ product
            rows = [sum(abs(v) for v in row) for row in product]
            columns = [sum(abs(v) for v in column) for column in product.T]
            gains[depth, token] = max(rows + columns)
    assert_close(transport_gain(ops.convert_to_tensor(TRANSPORTS)), gains.mean(axis=1).astype("float32"), 1e-5)


@pytest.mark.parametrize(("factor", "last"), [(1.1, 1.1**100), (0.5, 0.5**100), (1e3, np.inf), (0.0, 0.0)])
def test_the_gain_of_many_matrices(factor: float, last: float) -> None:
    same = np.tile(factor * np.eye(4, dtype="float32"), (100, 1, 1))
    gains = ops.convert_to_numpy(transport_gain(ops.convert_to_tensor(same)))
    np.testing.assert_allclose(gains[[0, -1]], [factor, last], rtol=1e-4)


def test_a_matrix_that_writes_all_streams_from_one_has_a_gain_of_their_number() -> None:
    matrix = np.zeros((1, 4, 4), "float32")
    matrix[0, :, 0] = 1
    assert_close(transport_gain(ops.convert_to_tensor(matrix)), np.array([4], "float32"))
    assert_close(double_stochasticity(ops.convert_to_tensor(matrix[0])), np.float32(3.0))


def test_the_worst_sum_of_a_matrix() -> None:
    worst = []
    for matrix in TRANSPORTS.reshape(-1, 3, 3).astype("float64"):
        sums = [sum(matrix[i]) for i in range(3)] + [sum(matrix[:, i]) for i in range(3)]
        worst.append(max(abs(total - 1) for total in sums))
    assert_close(double_stochasticity(ops.convert_to_tensor(TRANSPORTS)), np.float32(np.mean(worst)))
    logits = ops.convert_to_tensor(RNG.normal(size=(7, 4, 4)).astype("float32"))
    assert float(double_stochasticity(ops.exp(sinkhorn(logits, 20)))) < 1e-3
    assert float(double_stochasticity(ops.eye(4))) == 0
