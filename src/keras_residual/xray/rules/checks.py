"""How each rule finds the blocks that it speaks of: functions of the report's numbers and of a threshold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from keras_residual.xray.rules.setup_checks import LEAST_SAMPLES, SETUP_CHECKS
from keras_residual.xray.rules.stream_checks import STREAM_CHECKS

Block = Mapping[str, Any]
Found = tuple[str, dict[str, Any]]
"""The name of a block, and what fills the braces of the rule."""

Check = Callable[[Sequence[Block], Block, float], Iterator[Found]]

MOST_LIKENESS_LEFT = 0.1
"""Part of the difference between samples below which it counts as lost."""

MOST_COSINE = 0.8
"""Where samples are more alike than this, a unit that is 0 for all of a batch may be on for another one."""

MOST_FACTOR = 1.5
"""Where each layer of a plain net changes the mean square by more than this, its weights are too large or too small."""

MOST_BRANCH = 8.0
"""Where the first branch adds more than this many times what it gets, its weights are too large."""

LARGE_VARIANCE = 10.0
"""Variance above which what a branch adds is not of the usual size."""

MOST_OTHERS = 0.75
"""Part of the blocks that must have an activation for one without to count as an oversight."""

SCALE_BRANCHES = (
    "depth_rule='inverse_sqrt_depth' of `kr.ResidualStack`, branch_scale='skip_init' of `kr.Residual`, or a norm in "
    "front of each branch: norm='layer_norm', or 'batch_norm' for pictures"
)
SHORTCUTS = (
    "put shortcuts around groups of layers: `kr.Residual([…])` for a few layers each, or `kr.residualize(model)`; a "
    "norm between the layers holds the signal meanwhile"
)
WEIGHTS = (
    "other initial weights, that keep the size of the signal: kernel_initializer='he_normal' in front of a ReLU, "
    "'lecun_normal' in front of a SELU, 'glorot_uniform' in front of a tanh"
)
DEPTH_SCALED = (
    "depth_rule='inverse_sqrt_depth' or 'layer_norm_scaling' of `kr.ResidualStack`, or branch_scale='skip_init'"
)
POST_NORM = "depth_rule='deepnorm' or 'keel' of `kr.ResidualStack`, or norm_position='pre' of `kr.Residual`"
UNSCALED_SKIP = "skip_scale=None and merge='add' of `kr.Residual`: a shortcut that nothing weakens"


def not_a_number(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the first block that hands on what is no number, unless numbers overflowed before."""
    for block in blocks:
        if block["inf"]:
            return
        if block["nan"] > threshold:
            yield block["name"], {"share": block["nan"]}
            return


def overflow(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the first block whose output, or its mean square, is infinite."""
    for block in blocks:
        power = block["power"]
        if block["inf"] > threshold or (power is not None and math.isinf(power)):
            yield block["name"], {"dtype": model["dtype"], "cure": _cure_of_growth(blocks)}
            return
        if block["nan"]:
            return


def underflow(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the block on whose way back float16 loses the gradient, or the last where it comes too small to that."""
    if model["dtype"] != "float16":
        return
    for index in reversed(range(len(blocks))):
        share = blocks[index]["gradient_underflow"] or 0
        if share > threshold:
            yield blocks[min(index + 1, len(blocks) - 1)]["name"], {"share": share}
            return


def learning_rate(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the block that moves most, where half of all move too far."""
    ratios = [(block["update_ratio"], block["name"]) for block in blocks if block["update_ratio"] is not None]
    ratios = [pair for pair in ratios if math.isfinite(pair[0])]
    if not ratios:
        return
    middle = statistics.median(ratio for ratio, _ in ratios)
    if middle > threshold:
        yield max(ratios)[1], {"ratio": middle, "factor": 10 ** math.ceil(math.log10(middle / 1e-2))}


def signal_grows(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the block at which the stream has grown too far, where growth goes on by a factor and no norm ends it."""
    powers = [block["power"] for block in blocks]
    if len(blocks) < 4 or any(power is None or not math.isfinite(power) or power <= 0 for power in powers):
        return
    growth = [power / powers[0] for power in powers]
    half = growth[len(growth) // 2]
    # By a factor a block, not by a sum: the second half grows about as many times as the first.
    if growth[-1] < threshold or growth[-1] / half < threshold**0.4:
        return
    for index, (block, grown) in enumerate(zip(blocks, growth, strict=True)):
        if grown >= threshold:
            yield (
                block["name"],
                {
                    "growth": grown,
                    "factor": grown ** (1 / index),
                    "cure": _cure_of_growth(blocks),
                },
            )
            return


def post_norm(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the first block of a deep net whose sums have norms behind them and shortcuts that are not strengthened."""
    connections = _connections(blocks)
    if len(connections) > threshold and _is_post_norm(connections):
        yield connections[0]["name"], {"depth": len(connections), "ratio": model["gradient_ratio"]}


def samples_alike(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the block from which on the samples, which differ at the input, cannot be told apart."""
    before = model["sample_cosine_input"]
    if not _connections(blocks):
        blocks = blocks[:-1]  # the head has few outputs, in which samples may well agree
    cosines = [block["sample_cosine"] for block in blocks]
    last = next((cosine for cosine in reversed(cosines) if cosine is not None), None)
    if before is None or last is None or last < threshold or 1 - last > MOST_LIKENESS_LEFT * (1 - before):
        return
    for block, cosine in zip(blocks, cosines, strict=True):
        if cosine is not None and cosine >= threshold:
            yield block["name"], {"cosine": last, "before": before, "cure": _cure_of_vanishing(blocks)}
            return


def skip_scaled(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the blocks with a plain number below the threshold on the shortcut; one entry where all have it."""
    found = [block for block in blocks if block["skip_scale"] is not None and abs(block["skip_scale"]) < threshold]
    found = [block for block in found if "post" not in block["norm"]]
    for block in found[: 1 if len(found) == len(blocks) else None]:
        yield block["name"], {"scale": block["skip_scale"]}


def no_gradient(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the last block where not even that one gets a gradient, but for a head that begins with zeros."""
    last = blocks[-1]
    if _begins_with_zeros(model):
        return
    if last["gradient_norm"] is not None and last["gradient_norm"] <= threshold:
        yield last["name"], {}


def gradient_vanishes(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the first block where the gradient has shrunk on its way to the input.

    Without shortcuts the head is left out, whose outputs have a gradient of their own size, and layers of unlike shapes
    may differ by more.
    """
    ratio = model["gradient_ratio"]
    if not _connections(blocks):
        hidden = blocks[:-1]
        norms = [model["gradient_norm_input"], *(block["gradient_norm"] for block in hidden)]
        norms = [norm for norm in norms if norm is not None]
        ratio = norms[0] / norms[-1] if len(norms) > 1 and norms[-1] else math.nan
        threshold = threshold if len({tuple(block["shape"]) for block in hidden}) == 1 else threshold / 10
    if ratio < threshold and not _begins_with_zeros(model):
        yield blocks[0]["name"], {"ratio": ratio, "cure": _cure_of_vanishing(blocks)}


def gradient_explodes(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the first block of the stage through which the gradient grows most, where it does so by a factor a block.

    Where it grows as a power of the depth, as in a pre-norm net, most of that happens at the first blocks.
    """
    for name, norms in _worst_stage(blocks, model):
        ratio = norms[0] / norms[-1]
        if ratio > threshold and norms[len(norms) // 2] > norms[-1] * ratio**0.25:
            yield name, {"ratio": ratio, "cure": _cure_of_explosion(blocks)}


def gradient_grows(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the first block of the stage through which the gradient grows most, in whatever way."""
    for name, norms in _worst_stage(blocks, model):
        if norms[0] / norms[-1] > threshold:
            yield name, {"ratio": norms[0] / norms[-1], "cure": _cure_of_explosion(blocks)}


def _worst_stage(blocks: Sequence[Block], model: Block) -> list[tuple[str, list[float]]]:
    """Returns the stage with the largest ratio of its gradients at the ends: its first block, and all its norms.

    Within a stage the stream keeps its shape. From stage to stage the size of the maps changes, and the norm with it.
    """
    stages: list[tuple[str, list[float]]] = []
    before: Block | None = None
    for block in blocks:
        norm = block["gradient_norm"]
        if not norm or not math.isfinite(norm):
            continue
        if before is None or begins_stage(block, before):
            at_input = model["gradient_norm_input"]
            whole = before is None and at_input and not block["projected"] and not _receives_little(block)
            stages.append((block["name"], [at_input] if whole else []))
        stages[-1][1].append(norm)
        before = block
    stages = [stage for stage in stages if len(stage[1]) > 1]
    return sorted(stages, key=lambda stage: stage[1][0] / stage[1][-1])[-1:]


def _receives_little(block: Block) -> bool:
    """Returns whether a branch of usual size outweighs what its block receives, as behind an embedding of small rows.

    The norm in front of the branch then divides by that little, once.
    """
    ratio, added = block["branch_ratio"], block["branch_variance"]
    return ratio is not None and ratio > 2 and added is not None and added < LARGE_VARIANCE


def begins_stage(block: Block, before: Block) -> bool:
    """Returns whether the stream has another shape behind a block than behind the one before it."""
    if block["kind"] in ("layer", "concatenate"):
        return False
    return block["projected"] or block["shape"] != before["shape"]


def unused_branch(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the blocks whose branches add nothing, and whose weights cannot change that."""
    for block in blocks:
        ratio, gradient = block["branch_ratio"], block["weight_gradient_norm"]
        if ratio is not None and ratio < threshold and gradient == 0 and block["gradient_norm"] != 0:
            yield block["name"], {}


def unused_depth(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds where the tail of blocks that add next to nothing begins, where the first ones do add."""
    connections = [block for block in _connections(blocks) if block["branch_ratio"] is not None]
    count = 0
    for block in reversed(connections):
        if not 0 < block["branch_ratio"] < threshold:
            break
        count += 1
    if connections and count >= max(2, len(connections) // 4) and connections[0]["branch_ratio"] > 10 * threshold:
        yield connections[-count]["name"], {"ratio": connections[-count]["branch_ratio"], "count": count}


def frozen(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the blocks that are not trained although one before them is."""
    before = False
    for block in blocks:
        if block["frozen"] and before:
            yield block["name"], {}
        before |= block["weight_gradient_norm"] is not None


def dead_units(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the blocks with many units that no sample activates."""
    if model["batch"] < LEAST_SAMPLES:
        return
    for block in blocks:
        if (block["dead_units"] or 0) > threshold and (block["sample_cosine"] or 0) < MOST_COSINE:
            yield block["name"], {"share": block["dead_units"], "batch": model["batch"]}


def saturated_units(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the blocks whose bounded activations are mostly at their ends."""
    for block in blocks:
        if (block["saturated_units"] or 0) > threshold:
            yield block["name"], {"share": block["saturated_units"]}


def missing_activation(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the blocks of linear maps only, where most others of as many maps have something that is not linear."""
    for block in blocks[:-1] if not _connections(blocks) else blocks:
        least = 2 if block["kind"] != "layer" else 1
        if block["maps"] < least or block["activations"]:
            continue
        like = [other for other in blocks if other is not block and other["maps"] >= least]
        bent = [other for other in like if other["activations"]]
        if len(bent) >= 2 and len(bent) >= MOST_OTHERS * len(like):
            yield block["name"], {"maps": block["maps"], "others": f"{len(bent)} of {len(like)}"}


def duplicate(blocks: Sequence[Block], model: Block, threshold: float) -> Iterator[Found]:
    """Finds the blocks whose weights another block has."""
    for block in blocks:
        if block["duplicate_of"]:
            yield block["name"], {"other": block["duplicate_of"]}


def _begins_with_zeros(model: Block) -> bool:
    """Returns whether the last linear map is still zero: no gradient passes it until the first step."""
    return bool((model.get("ending") or {}).get("head_is_zero"))


# --- What to change --------------------------------------------------------------------------------------------------


def _connections(blocks: Sequence[Block]) -> list[Block]:
    return [block for block in blocks if block["kind"] != "layer"]


def _is_post_norm(connections: Sequence[Block]) -> bool:
    """Returns whether most have a norm behind the sum, and none of the shortcuts is strengthened against it."""
    behind = [block for block in connections if "post" in block["norm"] and (block["skip_scale"] or 1.0) <= 1.0]
    return len(behind) > len(connections) / 2


def _cure_without_shortcuts(blocks: Sequence[Block]) -> str:
    """Returns shortcuts, and before them other weights where each layer changes the signal's size by a factor."""
    powers = [block["power"] for block in blocks if block["power"] is not None]
    if len(powers) > 1 and powers[0] > 0 and not math.isnan(powers[-1]):
        factor = (powers[-1] / powers[0]) ** (1 / (len(powers) - 1))
        if not 1 / MOST_FACTOR < factor < MOST_FACTOR:
            return f"{WEIGHTS}; or {SHORTCUTS}"
    return SHORTCUTS


def _cure_of_growth(blocks: Sequence[Block]) -> str:
    connections = _connections(blocks)
    if not connections:
        return _cure_without_shortcuts(blocks)
    cure = DEPTH_SCALED if all(block["norms"] or block["norm"] for block in connections) else SCALE_BRANCHES
    ratios = [block["branch_ratio"] for block in connections if block["branch_ratio"] is not None]
    return f"{WEIGHTS}; or {cure}" if ratios and ratios[0] > MOST_BRANCH else cure


def _cure_of_vanishing(blocks: Sequence[Block]) -> str:
    connections = _connections(blocks)
    if not connections:
        return _cure_without_shortcuts(blocks)
    if _is_post_norm(connections):
        return POST_NORM
    weak = any(block["skip_scale"] is not None and abs(block["skip_scale"]) < 1 for block in connections)
    return UNSCALED_SKIP if weak or not _skips_are_sums(connections) else _cure_of_growth(blocks)


def _skips_are_sums(connections: Sequence[Block]) -> bool:
    return all(block["additive"] for block in connections)


def _cure_of_explosion(blocks: Sequence[Block]) -> str:
    connections = _connections(blocks)
    if not connections:
        return _cure_without_shortcuts(blocks)
    return POST_NORM if _is_post_norm(connections) else _cure_of_growth(blocks)


CHECKS: dict[str, Check] = (
    {
        check.__name__: check
        for check in (
            not_a_number,
            overflow,
            underflow,
            learning_rate,
            signal_grows,
            post_norm,
            samples_alike,
            skip_scaled,
            no_gradient,
            gradient_vanishes,
            gradient_explodes,
            gradient_grows,
            unused_branch,
            unused_depth,
            frozen,
            dead_units,
            saturated_units,
            missing_activation,
            duplicate,
        )
    }
    | SETUP_CHECKS
    | STREAM_CHECKS
)
"""The checks by name."""
