"""Blocks that a trained net hardly needs, cut out one by one, with what each step costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._arguments import flag, number, whole_number
from keras_residual._errors import bad_argument, listed, unknown_name, wrong_type
from keras_residual._keras import get_keras_mask, print_msg
from keras_residual.surgery.models import check_model, compile_like
from keras_residual.surgery.without_blocks import Block, blocks_of, without_blocks
from keras_residual.xray.find.discover import discover
from keras_residual.xray.find.replaced import LOCK
from keras_residual.xray.find.structure import distinct
from keras_residual.xray.measure.batch import batch_of, given_of
from keras_residual.xray.measure.loss import FollowedLoss, loss_of, loss_takes, setting_of
from keras_residual.xray.measure.recorder import Recorder
from keras_residual.xray.rules.batch import out_of_range

_OWNER = "drop_blocks"

Measured = tuple[np.ndarray, np.ndarray | None]
"""The loss, and where the targets are classes the accuracy, for each of several choices of blocks."""


@dataclass(frozen=True)
class DropStep:
    """The model after one more block is gone.

    Args:
        block: Name of the block; None for the model as it was.
        loss: Loss on the batch, at inference; None where no batch was given.
        accuracy: Share of right answers, in `[0, 1]`, where the loss is one cross-entropy of one output, else None. As
            in the loss, classes that it ignores and masked places do not count, and `sample_weight` weighs the others.
        weights: Number of weights that are left.
    """

    block: str | None
    loss: float | None
    accuracy: float | None
    weights: int


@dataclass(frozen=True)
class DropReport:
    """What `drop_blocks` did.

    Args:
        steps: The model as it was, and then after each block.
        needed: The blocks that cannot go, each with the reason.
    """

    steps: Sequence[DropStep]
    needed: Mapping[str, str]

    @property
    def blocks(self) -> list[str]:
        """Names of the blocks that are gone, in the order in which they went."""
        return [step.block for step in self.steps if step.block is not None]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON has them."""
        return {"steps": [asdict(step) for step in self.steps], "needed": dict(self.needed)}

    def __str__(self) -> str:
        return "\n".join(_in_words(step, self.steps[0]) for step in self.steps)


def drop_blocks(
    model: Any,
    x: Any = None,
    y: Any = None,
    loss: Any = None,
    *,
    blocks: int | str | Sequence[str] = 1,
    max_loss_rise: float | None = None,
    sample_weight: Any = None,
    verbose: bool = True,
) -> tuple[Any, DropReport]:
    """Returns a copy of a model without the blocks that it needs least, and what that costs.

    At each step the loss is measured without each of the blocks that are left, as the X-ray's quantity `"lesion"` is,
    and the block goes without which it is lowest. Its branch and its weights are gone from the graph and from files:
    the model answers as the one that was passed does with these branches switched off. Some training afterwards gains
    back part of what it cost.

    Blocks are the `Residual`s of a Sequential or Functional model and of models inside it, and the blocks of a
    `ResidualStack`, scanned or not. An activation behind the sum stays, unless it is a ReLU of what comes from a ReLU.
    A block stays where the shortcut alone is not what it gets: where it changes the shape, scales its shortcut, has a
    norm behind the sum or a merge that is no sum; and in a stack whose topology or depth rule depends on the number of
    blocks.

    The model that is passed stays as it is. The new one keeps names, weights, flags and what it was compiled with.

    Args:
        model: A built Sequential or Functional model.
        x: One batch of inputs to measure the loss on, as `xray` takes it; some hundred samples, that were not trained
            on. None where `blocks` are names: then nothing is measured.
        y: Targets of the batch.
        loss: As of `xray`; None for that of `compile`.
        blocks: How many blocks go, at least 1; or the names of those that go, in that order: as the X-ray names them,
            `"block2"` or of a stack `"stage2_blocks.3"`, in a nested model with its name before, `"encoder/block2"`.
        max_loss_rise: By how much the loss may rise in all, at least 0; a block that would raise it further, or without
            which it is not finite, stays, and those after it. None for no bound.
        sample_weight: Weights of the samples, as of `fit`.
        verbose: Whether to print each step.

    Returns:
        The new model, and a `DropReport`.

    Raises:
        ValueError: For a model that is no graph of layers, more blocks than can go, a block that cannot, an unknown
            name, a batch without targets or loss, targets that a cross-entropy cannot take, or a loss that is not
            finite, of the model or, without `max_loss_rise`, of what is left of it.
        TypeError: For an argument of the wrong type.

    Example:
        >>> inputs = x = keras.Input((8,))
        >>> for name in ("first", "second", "third"):
        ...     x = kr.Residual(keras.layers.Dense(8), name=name)(x)
        >>> model = keras.Model(inputs, keras.layers.Dense(1)(x))
        >>> smaller, report = kr.drop_blocks(model, blocks="second")
        all blocks: 225 weights
        without second: 153 weights
        >>> [layer.name for layer in smaller.layers[1:3]]
        ['first', 'third']

    Reference:
        Veit et al., Residual Networks Behave Like Ensembles of Relatively Shallow Networks, 2016, section 4.
        https://arxiv.org/abs/1605.06431
    """
    verbose = flag(_OWNER, "verbose", verbose)
    instead = "leave the blocks out in the code of the model"
    check_model(_OWNER, model, first="Drop the blocks first, train", instead=instead)
    found = blocks_of(model)
    needed = {block.name: block.hindrance for block in found if block.hindrance is not None}
    free = {block.name: block for block in found if block.hindrance is None}
    count, names = _asked(blocks, [block.name for block in found], free, needed)
    if max_loss_rise is not None:
        max_loss_rise = number(_OWNER, "max_loss_rise", max_loss_rise, "at least 0, or None", lambda rise: rise >= 0)
    weights = model.count_params()
    steps: list[DropStep] = []

    def take(block: Block | None, loss: float | None, accuracy: float | None) -> bool:
        nonlocal weights
        if block is not None and loss is not None:
            finite = np.isfinite(loss)
            if max_loss_rise is None and not finite:
                raise ValueError(
                    f"{_OWNER}: without {block.name!r} the loss is {loss} on this batch, so that the block is needed. "
                    "With `max_loss_rise`, the blocks before it go and it stays."
                )
            if max_loss_rise is not None and not (finite and loss <= (steps[0].loss or 0.0) + max_loss_rise):
                if verbose:
                    print_msg(f"{block.name} stays: without it the loss is {loss:.4g}, beyond `max_loss_rise`.")
                return False
        weights -= 0 if block is None else _weights_of(block)
        steps.append(DropStep(block and block.name, loss, accuracy, weights))
        if verbose:
            print_msg(_in_words(steps[-1], steps[0]))
        return True

    if x is None:
        if not names or max_loss_rise is not None:
            raise bad_argument(_OWNER, "x", "one batch to measure the loss on, with its targets as `y`", x)
        for name in (None, *names):
            take(None if name is None else free[name], None, None)
    else:
        _measure_and_take(_measurement(model, x, y, loss, sample_weight, free), list(free.values()), count, names, take)
    gone = [step.block for step in steps if step.block is not None]
    renewed = without_blocks(_OWNER, model, gone)
    compile_like(model, renewed)
    return renewed, DropReport(tuple(steps), needed)


def _asked(
    blocks: Any, known: Sequence[str], free: Mapping[str, Block], needed: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Returns how many blocks go, and their names where these are given."""
    if isinstance(blocks, str):
        blocks = [blocks]
    if isinstance(blocks, Sequence):
        if not blocks or not all(isinstance(name, str) for name in blocks):
            raise wrong_type(_OWNER, "blocks", "a number of blocks, or names of blocks", blocks)
        names = list(dict.fromkeys(blocks))
        for name in names:
            if name not in known:
                raise unknown_name(_OWNER, "blocks", name, known)
            if name in needed:
                raise ValueError(f"{_OWNER}: {name!r} cannot go: {needed[name]}.{_can_go(free)}")
        return len(names), names
    count = whole_number(_OWNER, "blocks", blocks)
    if count > len(free):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(needed.items())[:5])
        rule = f"at most {len(free)}, the number of blocks that can go"
        raise bad_argument(_OWNER, "blocks", rule, blocks, f"{reasons}." if reasons else "The model has no others.")
    return count, []


def _can_go(free: Mapping[str, Block]) -> str:
    return f" These can: {listed(free)}." if free else " No block of the model can."


def _weights_of(block: Block) -> int:
    if block.index is not None:
        values = block.layer.block_weights()[block.index].values()
        return sum(int(np.prod(v.shape if index is None else v.shape[1:])) for v, index in values)
    activation = block.layer.activation
    return block.layer.count_params() - (activation.count_params() if isinstance(activation, keras.Layer) else 0)


def _measure_and_take(
    measure: Callable[[np.ndarray], Measured], free: Sequence[Block], count: int, names: Sequence[str], take: Any
) -> None:
    """Measures and takes one block after another, those of these names or the ones that are needed least."""
    on = np.ones(len(free), "float32")
    everyone = np.eye(len(free), dtype="float32")
    if names:
        order = [[block.name for block in free].index(name) for name in names]
        losses, accuracies = measure(on - np.cumsum([0 * on, *everyone[order]], axis=0))
        for step, index in enumerate((None, *order)):
            accuracy = None if accuracies is None else float(accuracies[step])
            if not take(None if index is None else free[index], float(losses[step]), accuracy):
                return
        return
    left = set(range(len(free)))
    for step in range(count):
        # As many rows each time, so that one program does for all steps.
        losses, accuracies = measure(np.stack([on, *(on * (1 - row) for row in everyone)]))
        if not step:
            take(None, float(losses[0]), None if accuracies is None else float(accuracies[0]))
        best = min(left, key=lambda index: losses[index + 1] if np.isfinite(losses[index + 1]) else np.inf)
        accuracy = None if accuracies is None else float(accuracies[best + 1])
        if not take(free[best], float(losses[best + 1]), accuracy):
            return
        left.remove(best)
        on = on * (1 - everyone[best])


# --- The loss without some blocks ------------------------------------------------------------------------------------


def _measurement(
    model: Any, x: Any, y: Any, loss: Any, sample_weight: Any, free: Mapping[str, Block]
) -> Callable[[np.ndarray], Measured]:
    """Returns what measures: from rows with a 1 for each block that is on, to the loss and the accuracy of each row."""
    if y is None:
        raise bad_argument(_OWNER, "y", "the targets of the batch, which the loss needs", y)
    followed = loss_of(model, loss)[0]
    if followed is None:
        rule = "given for a model that is not compiled"
        raise bad_argument(_OWNER, "loss", rule, loss, "Such as loss='sparse_categorical_crossentropy'.")
    x, y, sample_weight = batch_of(_OWNER, x, y, sample_weight)
    total = FollowedLoss(model, y, loss, _OWNER)
    how = {"training": False} if model._call_has_training_arg else {}
    recorder = Recorder(discover(model, x, training=False), model)
    blocks = np.array([[_is_of(place, block) for place in recorder.places] for block in free.values()], "float32")
    facts: list[dict[str, Any]] = []

    def body(carry: Any, masks: Any, given: tuple[Any, ...]) -> Any:
        recorder.reset(lambda shape, dtype: ops.zeros(shape, dtype))
        (recorder.mask,) = masks
        try:
            with recorder.watching():
                outputs = model(given[0], **how)
        finally:
            recorder.mask = None
            recorder.forget()
        with total.noting() as labels:
            found = total(outputs, *given[1:])
        facts[:] = [fact for fact, _ in labels]
        return carry, (found, _right(followed, outputs, *given[1:]), *(numbers for _, numbers in labels))

    def run(arguments: Any) -> Any:
        given, masks = arguments
        scanned = (ops.convert_to_tensor(masks),)
        return _backend.scan(lambda carry, masks, _: body(carry, masks, given), ops.zeros(()), scanned)[1]

    program = _backend.compiled(run, distinct(model.variables))
    given = given_of(x, y, sample_weight)

    def measure(rows: np.ndarray) -> Measured:
        masks = 1 - (1 - rows) @ blocks
        with LOCK, _backend.keeping_random_state():
            found: Any = keras.tree.map_structure(
                lambda part: np.asarray(ops.convert_to_numpy(part)), program((given, masks))
            )
        losses, right, *labels = found
        for fact, numbers in zip(facts, labels, strict=True):
            _check_targets({**fact, **{name: float(value[0]) for name, value in numbers.items()}})
        if not np.isfinite(losses[0]):
            raise ValueError(
                f"{_OWNER}: the loss of the model is {losses[0]} on this batch, so that nothing can be compared with "
                "it. kr.xray says where that comes from."
            )
        return losses, right if np.isfinite(right).all() else None

    return measure


def _check_targets(labels: Mapping[str, Any]) -> None:
    """Raises for targets that the loss was measured without, since it cannot take them."""
    wrong = out_of_range(labels) if labels["kind"].startswith(("sparse", "binary")) else None
    if wrong is not None:
        what, cure = wrong
        raise ValueError(f"{_OWNER}: `y` must be {labels['name']} that the loss can take, but {what}. Take {cure}.")


def _is_of(place: Any, block: Block) -> bool:
    if block.index is not None:
        return place.stack is block.layer and place.index == block.index
    return place.stack is None and any(operation is block.layer for operation in place.operations)


def _right(loss: Any, outputs: Any, y: Any, sample_weight: Any = None) -> Any:
    """Returns the share of right answers among what counts in the loss; not a number where there is no such share."""
    kind, takes = loss_takes(loss)
    parts = [keras.tree.flatten(part) for part in (outputs, y)]
    if kind is None or any(len(part) != 1 for part in parts):
        return ops.full((), np.nan)
    (outputs,), (y,) = parts
    loss = keras.losses.get(loss)
    axis, ignored = setting_of(loss, "axis", -1), setting_of(loss, "ignore_class", None)
    if kind.startswith("binary"):
        answers: Any = ops.greater(outputs, 0.0 if takes == "logits" else 0.5)
        right: Any = ops.equal(answers, ops.reshape(ops.greater(y, 0.5), answers.shape))
    else:
        answers = ops.argmax(outputs, axis=axis)
        targets: Any = y if kind.startswith("sparse") else ops.argmax(y, axis=axis)
        right = ops.equal(answers, ops.reshape(ops.cast(targets, answers.dtype), answers.shape))
    right = ops.cast(right, "float32")
    counts: Any = ops.ones_like(right)
    if ignored is not None:
        counts = ops.cast(ops.not_equal(ops.reshape(ops.cast(y, "int32"), right.shape), ignored), "float32")
    for weights in (get_keras_mask(outputs), *keras.tree.flatten(() if sample_weight is None else sample_weight)):
        if weights is not None:
            counts = counts * _as_long(ops.cast(weights, "float32"), len(right.shape))
    total: Any = ops.sum(right * counts)
    return total / ops.sum(counts)


def _as_long(weights: Any, rank: int) -> Any:
    """Returns weights with as many axes as the answers have: the last ones are of size 1."""
    shape = tuple(weights.shape)
    return ops.reshape(weights, (*shape[:rank], *(1,) * (rank - len(shape))))


def _in_words(step: DropStep, first: DropStep) -> str:
    parts = []
    if step.loss is not None and first.loss is not None:
        parts.append(f"loss {step.loss:.4g}" + (f" ({step.loss - first.loss:+.2g})" if step is not first else ""))
    if step.accuracy is not None and first.accuracy is not None:
        change = f" ({100 * (step.accuracy - first.accuracy):+.2f})" if step is not first else ""
        parts.append(f"accuracy {100 * step.accuracy:.2f} %{change}")
    who = "all blocks" if step.block is None else f"without {step.block}"
    return f"{who}: {', '.join([*parts, f'{step.weights:,} weights'])}"
