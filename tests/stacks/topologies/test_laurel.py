"""LAuReL against the formula, in each of its parts."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from keras import ops

from contract import assert_close, to_numpy
from keras_residual.residual.context import DepthContext
from keras_residual.stacks.topologies.laurel import KINDS, Laurel
from stacks.topologies.history_driver import (
    Driven,
    X,
    assert_config_comes_back,
    assert_link_config_comes_back,
    assert_no_zero_gradient,
    branches,
    gradients_of,
    in_numpy,
    plain,
)

SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(KINDS, size)]


def by_hand(driven: Driven, previous: int) -> np.ndarray:
    """Returns `x_L` with `x' = a F(x) + b x + x A B + sum_j g_j h(x_{l-j})`."""
    stream = [X.astype("float64")]
    for link, function in zip(driven.links, in_numpy(len(driven.links)), strict=True):
        w = {weight.name: to_numpy(weight.value).astype("float64") for weight in link.weights}
        x = stream[-1]
        new = w.get("branch_weight", 1.0) * function(x) + w.get("skip_weight", 1.0) * x
        if "down" in w:
            new = new + x @ w["down"] @ w["up"]
        for j in range(1, previous + 1):
            if "gains" in w and len(stream) > j:
                earlier = stream[-1 - j]
                if "history_down" in w:
                    earlier = earlier @ w["history_down"] @ w["history_up"]
                new = new + w["gains"][j - 1] * earlier
        stream.append(new)
    return stream[-1]


@pytest.mark.parametrize("history_rank", [None, 2])
@pytest.mark.parametrize("kind", SUBSETS, ids="+".join)
def test_output_is_that_of_the_formula(kind: tuple[str, ...], history_rank: int | None) -> None:
    driven = Driven(Laurel(kind, rank=2, previous=3, history_rank=history_rank), 5)
    assert_close(driven(X, branches(5)), plain(X, 5))  # plain at first
    driven.randomize()
    assert_close(driven(X, branches(5)), by_hand(driven, 3))


def test_rank_of_what_is_added_to_the_skip() -> None:
    driven = Driven(Laurel("lr", rank=2), 1)
    driven.randomize()
    eye = np.broadcast_to(np.eye(4, dtype="float32")[None], (1, 4, 4))
    skip = to_numpy(driven(eye, [ops.zeros_like]))[0]
    assert np.linalg.matrix_rank(skip - np.eye(4), tol=1e-4) == 2


def test_coefficients_are_the_weights() -> None:
    driven = Driven(Laurel(("rw", "pa"), previous=2), 1)
    link = driven.links[0]
    values = {"branch_weight": 2.0, "skip_weight": 3.0, "gains": [4.0, 5.0]}
    link.set_weights([np.array(values[w.name], "float32") for w in link.weights])
    found = link.coefficients((X, X, X), DepthContext())
    assert found.read == [1, 0, 0]
    numbers = [
        [v if isinstance(v, int) else float(to_numpy(ops.convert_to_tensor(v))) for v in row] for row in found.transport
    ]
    assert numbers == [[3, 4, 5], [1, 0, 0], [0, 1, 0]]
    assert float(to_numpy(ops.convert_to_tensor(found.write[0]))) == 2.0
    assert found.write[1:] == [0, 0]


@pytest.mark.parametrize("history_rank", [None, 2])
def test_every_weight_learns(history_rank: int | None) -> None:
    driven = Driven(Laurel(KINDS, history_rank=history_rank), 5)
    driven.randomize()
    driven.links[0].trainable = False  # before it there are no streams, so that gains of it learn nothing
    driven.links[1].trainable = False  # before it there is one
    assert_no_zero_gradient(driven, 5)


def test_what_learns_at_first() -> None:
    """`B` and the gains, which are 0; `A` only once `B` is not."""
    driven = Driven(Laurel(KINDS), 3)
    found = gradients_of(driven, 3)
    moves = {path.split("/")[-1].split()[-1] for path, gradient in found.items() if np.any(gradient)}
    assert moves >= {"branch_weight", "skip_weight", "up", "gains"}
    assert "down" not in moves


def test_configuration_comes_back() -> None:
    topology = Laurel(("pa", "lr"), rank=3, previous=1, history_rank=2, dtype="mixed_bfloat16")
    assert_config_comes_back(topology)
    config = topology.get_config()
    assert (config["kind"], config["rank"], config["previous"], config["history_rank"]) == (["pa", "lr"], 3, 1, 2)
    assert_link_config_comes_back(Driven(topology, 1).links[0])
    assert Laurel("rw").get_config()["kind"] == ["rw"]


@pytest.mark.any_backend
def test_what_kind_may_be() -> None:
    with pytest.raises(ValueError, match=r"unknown name for `kind`: 'rww'. Did you mean 'rw'\?"):
        Laurel("rww")
    with pytest.raises(ValueError, match="`kind` must be one or several of 'rw', 'lr', 'pa', each once"):
        Laurel(("rw", "rw"))
    with pytest.raises(ValueError, match="each once"):
        Laurel(())
    with pytest.raises(TypeError, match="`kind` must be one or several"):
        Laurel(3)
    with pytest.raises(ValueError, match="`rank` must be a whole number of at least 1, but received 0"):
        Laurel("lr", rank=0)
