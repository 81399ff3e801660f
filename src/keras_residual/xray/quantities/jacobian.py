"""How much a block stretches small differences: the singular values of its Jacobian, and the paths that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual.xray.quantities.chart import WHOLE_STEPS, Chart, DepthChart, alone
from keras_residual.xray.quantities.directions import first_vectors, lanczos_step, largest_eigenvalue, own_draws
from keras_residual.xray.quantities.quantity import STREAMS_KEPT, Passes, Quantity

DRAWS = 4
LANCZOS_STEPS = 12


def chi(
    function: Any, x: Any, *, skip: float | None = None, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float | None]:
    """Returns `||J||_F^2 / n` and, where the block is a sum, the gain of its branch, `||J - skip I||_F / sqrt(n)`.

    Range: 0 and above. Critical: about 1 each; above, the signal and the gradient grow from block to block (chaos),
    below they die out (order); ReZero begins with exactly 1. Cost: `draws` passes through the block and
    back. The estimate is Hutchinson's, `E ||J' u||^2` for `u` of unit normal entries.

    Args:
        function: The block, from a tensor to a tensor.
        x: What it receives.
        skip: Factor on an identity shortcut; None where there is none.
        draws: Number of random vectors.
        seed: Seed of these.

    Reference:
        Poole et al., Exponential expressivity in deep neural networks through transient chaos, 2016.
        https://arxiv.org/abs/1606.05340
        Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.
    """
    rng = own_draws(seed)
    size = float(np.prod(x.shape))
    whole, branch = [], []
    for _ in range(draws):
        y, pullback = _backend.vjp(function, x)  # a pullback serves once: what it needs is gone then
        u = ops.cast(ops.convert_to_tensor(rng.normal(size=tuple(y.shape)).astype("float32")), y.dtype)
        back = np.asarray(ops.convert_to_numpy(ops.cast(pullback(u)[0], "float32")), "float64")
        whole.append((back**2).sum() / size)
        if skip is not None and tuple(y.shape) == tuple(x.shape):
            straight = np.asarray(ops.convert_to_numpy(ops.cast(u, "float32")), "float64")
            branch.append(((back - skip * straight) ** 2).sum() / size)
    return float(np.mean(whole)), float(np.mean(branch)) ** 0.5 if branch else None


def largest_singular_value(function: Any, x: Any, *, steps: int = LANCZOS_STEPS) -> float:
    """Returns an estimate, from below, of the largest singular value of a block's Jacobian `J`, by Lanczos on `J' J`.

    Range: 0 and above. Dynamical isometry is all of them near 1; a value far above `sqrt(chi)` means that few
    directions carry the gradient. It is good to about two percent where thousands of singular values are nearly as
    large, and else to the three digits to which `J v` is, a central difference. Cost: four passes through the block
    for each of the `steps`.

    Args:
        function: The block, from a tensor to a tensor.
        x: What it receives.
        steps: Number of Lanczos steps.

    Reference:
        Pennington et al., Resurrecting the sigmoid in deep learning through dynamical isometry, 2017.
        https://arxiv.org/abs/1711.04735
    """
    received: Any = ops.convert_to_numpy(ops.sqrt(ops.mean(ops.square(ops.cast(x, "float32")))))
    size = float(received) or 1.0
    step = 1e-2 * size * float(np.sqrt(np.prod(x.shape)))

    def product(v: list[Any]) -> list[Any]:
        there, back = (function(x + ops.cast(sign * step * v[0], x.dtype)) for sign in (1, -1))
        apart: Any = ops.subtract(ops.cast(there, "float32"), ops.cast(back, "float32"))
        forward = apart / (2 * step)
        _, pullback = _backend.vjp(function, x)
        return [ops.cast(pullback(ops.cast(forward, there.dtype))[0], "float32")]

    before, vector = first_vectors([x.shape])
    diagonal, beside = [], [ops.zeros((), "float32")]
    for _ in range(steps):
        following, entry, length = lanczos_step(product, before, vector, beside[-1])
        before, vector = vector, following
        diagonal.append(entry)
        beside.append(length)
    return max(largest_eigenvalue(ops.stack(diagonal), ops.stack(beside[1:])), 0.0) ** 0.5


def path_lengths(gains: Sequence[float]) -> list[float]:
    """Returns for `k = 0 … L` the part of the gradient that paths through `k` branches carry.

    A gradient that passes the branch of block `l` is multiplied by about its gain `q_l`, and one that takes the
    shortcut by 1, so that length `k` has the weight of the elementary symmetric polynomial `e_k(q)`. The parts add up
    to 1. Cost: that of `chi`.

    Args:
        gains: Gain of each branch, 0 and above.

    Reference:
        Veit et al., Residual Networks Behave Like Ensembles of Relatively Shallow Networks, 2016.
        https://arxiv.org/abs/1605.06431, section 4
    """
    weights = np.ones(1)
    for gain in gains:
        # Normalised at each block: one path takes the branch, the other the shortcut.
        weights = np.convolve(weights, [1 / (1 + gain), gain / (1 + gain)])
    return [float(weight) for weight in weights]


def effective_depth(gains: Sequence[float]) -> float:
    """Returns the mean length of the paths that carry the gradient, `sum_l q_l / (1 + q_l)`.

    Range: 0 to the number of blocks. ResNet-110, of 54 blocks, has some 10 to 34 (Veit et al. 2016).

    Args:
        gains: Gain of each branch, 0 and above.
    """
    return float(sum(gain / (1 + gain) for gain in gains))


def _add_chi(look: Any, blocks: Any, model: Any) -> None:
    if blocks and "chi" in blocks[0]:
        return
    for block, place, function, x in look.each_block(blocks):
        block["chi"] = block["branch_gain"] = None
        if function is not None and x is not None:
            straight = place.is_connection and place.additive and not place.shape_changes
            skip = (1.0 if place.skip_scale is None else place.skip_scale) if straight else None
            with keras.StatelessScope():
                block["chi"], block["branch_gain"] = chi(function, x, skip=skip)


def _add_singular_value(look: Any, blocks: Any, model: Any) -> None:
    for block, _, function, x in look.each_block(blocks):
        block["singular_value"] = None
        if function is not None and x is not None:
            with keras.StatelessScope():
                block["singular_value"] = largest_singular_value(function, x)


def _add_path_lengths(look: Any, blocks: Any, model: Any) -> None:
    """Adds `path_lengths` and `effective_depth`, over the blocks whose branches have a known gain."""
    _add_chi(look, blocks, model)
    gains = [block["branch_gain"] for block in blocks if block["branch_gain"] is not None]
    model["path_lengths"] = path_lengths(gains) if gains else None
    model["effective_depth"] = effective_depth(gains) if gains else None


def _draw_path_lengths(parts: list[float], model: Mapping[str, Any], names: list[str]) -> Chart:
    bars = [
        {"left": k - 0.5, "right": k + 0.5, "branches": k, "part": part} for k, part in enumerate(parts) if part > 1e-5
    ]
    depth = model.get("effective_depth")
    spec = {
        "mark": {"type": "rect", "fill": "--first", "stroke": "--paper"},
        "encoding": {
            "x": {"field": "left", "type": "quantitative", "title": "blocks that a path goes through", **WHOLE_STEPS},
            "x2": {"field": "right"},
            "y": {"field": "part", "type": "quantitative", "axis": {"title": "part of the gradient", "format": "~%"}},
            "y2": {"datum": 0},
            "tooltip": [
                {"field": "branches", "type": "quantitative", "title": "blocks"},
                {"field": "part", "type": "quantitative", "title": "part of the gradient", "format": ".2~%"},
            ],
        },
    }
    return Chart(
        key="path_lengths",
        title="How deep is the net really?",
        words="Each block can be passed by its shortcut, so that a net of many blocks is a bundle of many paths, long "
        "and short. The bars show through how many blocks those paths go that carry the learning signal. If the "
        "hill lies far left of the number of blocks, the net learns as a much shallower one.",
        here="" if depth is None else f"Here the mean is {depth:.3g} of {len(parts) - 1} blocks.",
        chapter="whole",
        spec=alone(spec, bars),
    )


CHI = Quantity(
    key="chi",
    definition="mean square of the singular values of each block's Jacobian",
    of="request",
    by=_add_chi,
    cost=Passes(forward=1 + DRAWS, backward=DRAWS, beside=STREAMS_KEPT),
    label="stretches small differences (mean square)",
    chart=DepthChart(
        title="Does a block stretch or shrink small differences?",
        words="If the input of a block changes a little, how much does its output change? 1 means by as much. Every "
        "block multiplies it: many blocks above 1 make a chaos in which gradients explode, many below 1 a calm in "
        "which they vanish.",
        axis="chi",
        log=True,
        neutral=1.0,
    ),
)

BRANCH_GAIN = Quantity(
    key="branch_gain",
    definition="the root mean square of the singular values of the branch's Jacobian",
    of="another",
    label="gain of its branch",
)

SINGULAR_VALUE = Quantity(
    key="singular_value",
    definition="the largest of them",
    of="request",
    by=_add_singular_value,
    cost=Passes(forward=1 + 3 * LANCZOS_STEPS, backward=LANCZOS_STEPS, beside=STREAMS_KEPT),
    label="stretches one direction by",
    chart=DepthChart(
        title="How far is the direction stretched that is stretched most?",
        words="As above, for the one small change that a block answers most strongly. Far above 1, "
        "few directions carry the whole gradient.",
        axis="largest singular value",
        log=True,
        neutral=1.0,
    ),
)

PATH_LENGTHS = Quantity(
    key="path_lengths",
    definition="part of the gradient that paths through 0, 1, 2, … branches carry, and `effective_depth`, their mean "
    "length",
    of="request",
    of_whole=True,
    by=_add_path_lengths,
    cost=Passes(forward=1 + DRAWS, backward=DRAWS, beside=f"{STREAMS_KEPT}; none beside 'chi'"),
    draw=_draw_path_lengths,
)
