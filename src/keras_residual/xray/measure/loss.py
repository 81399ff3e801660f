"""The number whose gradient is followed: the user's loss, or one that looks into a random direction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual._errors import bad_argument, listed
from keras_residual._keras import CompileLoss
from keras_residual.xray.quantities.directions import random_component

FIRST_LOSS_SCALE = 2.0**15
"""What Keras's `LossScaleOptimizer` begins with."""


CROSS_ENTROPIES = (
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "sparse_categorical_crossentropy",
)


DISTANCES = ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh")

ENTRY_BY_ENTRY = (
    *DISTANCES,
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "cosine_similarity",
    "hinge",
    "squared_hinge",
    "categorical_hinge",
    "kl_divergence",
    "poisson",
)
"""Losses, beside the cross-entropies, that hold each entry of the outputs against one of the targets."""


class FollowedLoss:
    """`(outputs, y, sample_weight) -> mean loss`, a scalar in float32.

    It is what Keras makes of the loss in training: one for each output, summed with the weights of `compile`, without
    what is masked, and with targets of shape `(batch,)` brought to outputs of `(batch, 1)`. Penalties and weights of
    classes are no part of it. Labels beyond the outputs count as the nearest ones that there are, so that all else can
    be measured on every backend.

    Args:
        model: The model; the loss that it was compiled with is used where `loss` is None.
        y: Targets, or None. Then the loss is the outputs' component in one random direction, so that the gradient is
            that of a target about which nothing is known.
        loss: A loss of Keras, its name, a function of targets and outputs, a structure of these, or None.
        owner: Whose arguments they are, for errors.
    """

    def __init__(self, model: Any, y: Any, loss: Any, owner: str = "xray") -> None:
        self._total: Any = None
        self._owner = owner
        self._names = list(getattr(model, "output_names", None) or ())
        if y is None:
            if loss is not None:
                raise bad_argument(owner, "y", "the targets that the loss needs", y)
            return
        loss, weights = loss_of(model, loss)
        if loss is None:
            raise bad_argument(owner, "loss", "given where targets are, or part of a compiled model", loss)
        for part in keras.tree.flatten(loss):
            if part is not None and not is_any_crossentropy(part):
                keras.losses.get(part)  # raises for what is no loss, before anything runs
        self._total = _AsInTraining(loss, weights, output_names=getattr(model, "output_names", None))
        self._total.owner = owner

    def __call__(self, outputs: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Returns the loss."""
        if self._total is None:
            return random_component(outputs)
        y, sample_weight = self._by_output("y", y, outputs), self._by_output("sample_weight", sample_weight, outputs)
        return ops.mean(ops.cast(self._total(y, outputs, sample_weight), "float32"))

    def _by_output(self, argument: str, given: Any, outputs: Any) -> Any:
        """Returns targets or weights with an array for each output; one array of weights is for all of them."""
        nested, parts = keras.tree.is_nested(given), keras.tree.flatten(given)
        count = len(keras.tree.flatten(outputs))
        names = list(outputs) if isinstance(outputs, dict) else self._names
        unknown = [name for name in given if name not in names] if isinstance(given, dict) else []
        of_weights = argument == "sample_weight"
        # Targets may be left out for an output without a loss.
        few = nested and (len(parts) != count if of_weights else len(parts) > count)
        if few or (unknown and (of_weights or count > 1)) or (not nested and not of_weights and count > 1):
            of = f" by its name: {listed(names)}" if names else " in the order of the outputs"
            rule = "one array" if count == 1 else f"{count} arrays, one for each output,{of}"
            received = list(given) if isinstance(given, dict) else f"{len(parts)} of them"
            raise bad_argument(self._owner, argument, rule, received)
        if not nested or (count > 1 and not (isinstance(given, dict) and of_weights and not isinstance(outputs, dict))):
            return given
        return parts[0] if count == 1 and not keras.tree.is_nested(outputs) else [given[name] for name in names]

    @contextmanager
    def noting(self) -> Iterator[list[tuple[dict[str, Any], dict[str, Any]]]]:
        """Yields a list that gets, for each cross-entropy computed within, facts and numbers of its targets."""
        noted: list[tuple[dict[str, Any], dict[str, Any]]] = []
        if self._total is not None:
            self._total.noted = noted
        try:
            yield noted
        finally:
            if self._total is not None:
                self._total.noted = None


class _AsInTraining(CompileLoss):
    """What `fit` minimises apart from penalties: the losses of the outputs, weighted and summed.

    It keeps no mean of each loss over the batches, which is state that a program of several passes cannot have.
    """

    noted: list[Any] | None = None
    owner = "xray"

    @property
    def metrics(self) -> list[Any]:
        """One for each loss, none of which is kept."""
        return [None] * len(self._flat_losses or ())

    def build(self, y_true: Any, y_pred: Any) -> None:
        """Pairs losses with outputs, and lets those of Keras look at their targets."""
        super().build(y_true, y_pred)
        several = len(self._flat_losses) > 1
        self._flat_losses = [
            one._replace(loss=self._looking(one.loss, f"targets {one.name!r}" if several else "targets"))
            for one in self._flat_losses
        ]

    def _looking(self, loss: Any, name: str) -> Any:
        kind = cross_entropy_of(loss)
        if kind is None and _name_of(loss) not in ENTRY_BY_ENTRY:
            return loss

        def looked(y: Any, outputs: Any, sample_weight: Any = None) -> Any:
            if not hasattr(y, "dtype") or not len(getattr(outputs, "shape", ())):
                return loss(y, outputs, sample_weight)
            _check_shapes(self.owner, name, kind, setting_of(loss, "axis", -1), y, outputs, sample_weight)
            if kind is None:
                return loss(y, outputs, sample_weight)
            axis, ignored = setting_of(loss, "axis", -1), setting_of(loss, "ignore_class", None)
            classes = int(outputs.shape[axis])
            if self.noted is not None:
                facts = {"name": name, "kind": kind, "classes": classes, "count": int(np.prod(y.shape))}
                self.noted.append((facts, _targets(y, kind, axis, ignored)))
            return loss(_in_range(y, kind, classes, ignored), outputs, sample_weight)

        return looked


def _targets(y: Any, kind: str, axis: int, ignored: int | None) -> dict[str, Any]:
    """Returns the range of targets, whether they are whole, how many different ones there are, and their sums."""
    y = ops.cast(y, "float32")
    sums: Any = ops.ones(()) if kind.startswith("sparse") or not len(y.shape) else ops.sum(y, axis=axis)
    found: dict[str, Any] = {"off_one": ops.max(ops.abs(ops.subtract(sums, 1.0)))}
    flat: Any = ops.reshape(y, (-1,))
    if ignored is not None:  # another one in its place
        kept: Any = flat != ignored
        other: Any = ops.max(ops.where(kept, flat, ops.full_like(flat, -np.inf)))
        flat = ops.where(kept, flat, ops.where(other > -np.inf, other, ops.zeros_like(other)))
    whole = ops.all(flat == ops.round(flat))
    found |= {"lowest": ops.min(flat), "highest": ops.max(flat), "whole": ops.cast(whole, "float32")}
    seen: Any = ops.zeros((), "float32")
    if kind.startswith("sparse"):
        ordered: Any = ops.sort(flat)
        seen = ops.add(1.0, ops.sum(ops.cast(ordered[1:] != ordered[:-1], "float32")))
    return {**found, "seen": seen}


def _check_shapes(owner: str, name: str, kind: str | None, axis: int, y: Any, outputs: Any, weights: Any) -> None:
    """Raises where targets or weights are of a shape that a loss of Keras cannot take with the outputs."""
    of_y, whole = tuple(y.shape), tuple(outputs.shape)
    sparse = kind is not None and kind.startswith("sparse")
    lost = axis % len(whole) if kind is not None and not kind.startswith("binary") else len(whole) - 1
    rest = tuple(size for place, size in enumerate(whole) if place != lost)
    one = tuple(1 if place == lost else size for place, size in enumerate(whole))
    wanted = rest if sparse else whole
    longer = (*wanted, 1) if len(of_y) > len(wanted) else wanted[:-1] if wanted[-1:] == (1,) else wanted
    takes = [wanted, one if sparse else longer]
    # Where targets or outputs have one number for several, NumPy's rules hold, as in training.
    if not any(_alike(of_y, shape, broadcast=kind is None) for shape in takes):
        way_out = "With a probability for each class the loss is 'categorical_crossentropy'." if sparse else ""
        if kind is not None and not sparse and _alike(of_y, rest):
            way_out = "With labels the loss is 'sparse_categorical_crossentropy'."
        rule = f"{name} of shape {wanted}, for outputs of shape {whole}"
        raise bad_argument(owner, "y", rule, of_y, way_out)
    of_weights = tuple(getattr(weights, "shape", rest))
    if not any(_alike(of_weights, shape, spread=True) for shape in (rest, (*rest, 1))):
        rule = f"weights of shape {rest}, for {name} of shape {of_y} and outputs of shape {whole}"
        raise bad_argument(owner, "sample_weight", rule, of_weights, "A size of 1 stands for any but the first.")


def _alike(one: tuple[Any, ...], other: tuple[Any, ...], *, spread: bool = False, broadcast: bool = False) -> bool:
    """Returns whether shapes are equal as far as they are known; a 1 of the first, or of both, may stand for any."""
    return len(one) == len(other) and all(
        a == b or None in (a, b) or (a == 1 and (spread or broadcast)) or (b == 1 and broadcast)
        for a, b in zip(one, other, strict=True)
    )


def _in_range(y: Any, kind: str, classes: int, ignored: int | None) -> Any:
    """Returns targets that the loss can take: PyTorch refuses others, and elsewhere they make a loss of anything."""
    if not kind.startswith("sparse"):
        return ops.clip(y, 0, 1) if kind.startswith("binary") else y
    nearest = ops.clip(y, 0, classes - 1)
    return nearest if ignored is None else ops.where(ops.equal(y, ignored), y, nearest)


def cross_entropy_of(loss: Any) -> str | None:
    """Returns which cross-entropy a loss is; None for another one.

    Args:
        loss: A loss of Keras or a function.
    """
    name = _name_of(loss)
    return name if name in CROSS_ENTROPIES else None


def _name_of(loss: Any) -> str | None:
    return getattr(getattr(loss, "fn", loss), "__name__", None)


def setting_of(loss: Any, name: str, otherwise: Any) -> Any:
    """Returns what a loss of Keras was made with.

    Args:
        loss: The loss, or a function.
        name: Name of the argument, such as `"axis"`.
        otherwise: Returned for a loss without that argument.
    """
    # Not each loss has an attribute for each of its arguments.
    return getattr(loss, "_fn_kwargs", {}).get(name, getattr(loss, name, otherwise))


def loss_takes(loss: Any) -> tuple[str | None, str | None]:
    """Returns which cross-entropy a loss is, and whether it takes `"logits"` or `"probabilities"`; Nones for others.

    Args:
        loss: A loss of Keras, its name, a function, or None.
    """
    if loss is None or isinstance(loss, (dict, list, tuple)) or is_any_crossentropy(loss):
        return None, None
    found: Any = keras.losses.get(loss)
    name = cross_entropy_of(found)
    return (
        (None, None)
        if name is None
        else (name, "logits" if setting_of(found, "from_logits", False) else "probabilities")
    )


def squares_or_sizes(loss: Any) -> bool:
    """Returns whether a loss is one of Keras's that grow with the distance of outputs from targets."""
    if loss is None or (callable(loss) and not isinstance(loss, keras.losses.Loss)):
        return False
    if isinstance(loss, (dict, list, tuple)) or is_any_crossentropy(loss):
        return False
    found: Any = keras.losses.get(loss)
    return getattr(getattr(found, "fn", found), "__name__", "") in DISTANCES


def loss_of(model: Any, loss: Any) -> tuple[Any, Any]:
    """Returns the loss that is followed where there are targets, and the weights of its parts; Nones for none.

    Args:
        model: The model; what it was compiled with is taken where `loss` is None.
        loss: As of `xray`.
    """
    if loss is not None:
        return loss, None
    compiled = getattr(model, "_compile_loss", None)
    if compiled is None:
        return getattr(model, "loss", None), None
    return compiled._user_loss, compiled._user_loss_weights


def is_any_crossentropy(loss: Any) -> bool:
    """Returns whether a loss is a name for the cross-entropy that suits targets and outputs."""
    return isinstance(loss, str) and loss.lower() in ("crossentropy", "ce")


def loss_scale(model: Any, float16: bool) -> float:
    """Returns the factor that training puts on the loss, so that float16 holds its gradients; 1 for none.

    Args:
        model: The model.
        float16: Whether parts of it compute in float16.
    """
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scale = getattr(optimizer, "dynamic_scale", None)  # none before the first step
        return float(optimizer.initial_scale if scale is None else np.asarray(ops.convert_to_numpy(scale)))
    policy = getattr(getattr(model, "dtype_policy", None), "name", "")
    return FIRST_LOSS_SCALE if optimizer is None and float16 and policy == "mixed_float16" else 1.0
