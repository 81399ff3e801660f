"""The losses of recipes: cross-entropy of one class or of shares of classes, smoothed, and the binary one of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_residual._arguments import choice, positive, share
from keras_residual._errors import bad_argument
from keras_residual.residual.serialization import register

ops: Any = keras.ops  # which Keras annotates as if they might return nothing


@register
class Crossentropy(keras.losses.Loss):
    """Cross-entropy of logits with `t = (1 - s) * y + s / classes`, where `y` is one class or shares of classes.

    Shares are what Mixup and CutMix make of labels. `"softmax"` is `-sum(t * log(softmax(z)))`, as PyTorch's
    `CrossEntropyLoss`; `"binary"` is the mean over the classes of the binary cross-entropy of `sigmoid(z)` with `t`, as
    in "ResNet strikes back".

    Args:
        kind: `"softmax"` or `"binary"`.
        label_smoothing: `s`, in `[0, 1)`.
        class_weights: A factor above 0 for each class: its term of the sum over the classes is multiplied by it. None
            for no factors.
        name: Name of the loss.
        **options: Of `keras.losses.Loss`.

    Raises:
        ValueError: If a value breaks its rule.

    Example:
        >>> logits = np.zeros((2, 4), "float32")
        >>> round(float(Crossentropy(label_smoothing=0.1)(np.array([0, 3]), logits)), 4)
        1.3863

    Reference:
        Szegedy et al., Rethinking the Inception Architecture, 2015. https://arxiv.org/abs/1512.00567. Wightman et al.,
        ResNet strikes back, 2021. https://arxiv.org/abs/2110.00476
    """

    def __init__(
        self,
        kind: Literal["softmax", "binary"] = "softmax",
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        name: str = "crossentropy",
        **options: Any,
    ) -> None:
        super().__init__(name=name, **options)
        self.kind = choice("Crossentropy", "kind", kind, ("softmax", "binary"))
        self.label_smoothing = share("Crossentropy", "label_smoothing", label_smoothing)
        self.class_weights = None
        if class_weights is not None:
            self.class_weights = [positive("Crossentropy", "class_weights", weight) for weight in class_weights]

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each example."""
        classes = y_pred.shape[-1]
        targets = (1 - self.label_smoothing) * shares(y_true, y_pred) + self.label_smoothing / classes
        if self.class_weights is not None and len(self.class_weights) != classes:
            rule = f"one number for each of {classes} classes"
            raise bad_argument("Crossentropy", "class_weights", rule, self.class_weights)
        factors = 1.0 if self.class_weights is None else ops.convert_to_tensor(self.class_weights, y_pred.dtype)
        if self.kind == "softmax":
            return _surprise(factors * targets, y_pred)
        # Of the classes' own losses the form that does not overflow.
        each = ops.relu(y_pred) - y_pred * targets + ops.log1p(ops.exp(-ops.abs(y_pred)))
        return ops.mean(factors * each, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return super().get_config() | {
            "kind": self.kind,
            "label_smoothing": self.label_smoothing,
            "class_weights": self.class_weights,
        }


def shares(y_true: Any, y_pred: Any) -> Any:
    """Returns `y_true`, which is one class an example or shares of classes, as shares of the shape of `y_pred`."""
    if _has_shares(y_true, y_pred):
        return ops.cast(y_true, y_pred.dtype)
    return ops.one_hot(ops.reshape(ops.cast(y_true, "int32"), (-1,)), y_pred.shape[-1], dtype=y_pred.dtype)


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Returns for each example whether the largest logit is that of its class, or of the class of the largest share."""
    if _has_shares(y_true, y_pred):
        y_true = ops.argmax(y_true, axis=-1)
    return ops.cast(ops.equal(ops.reshape(ops.cast(y_true, "int32"), (-1,)), ops.argmax(y_pred, axis=-1)), "float32")


def crossentropy(y_true: Any, y_pred: Any) -> Any:
    """Returns the cross-entropy of each example without smoothing."""
    return _surprise(shares(y_true, y_pred), y_pred)


def _surprise(targets: Any, logits: Any) -> Any:
    return -ops.sum(targets * ops.log_softmax(logits, axis=-1), axis=-1)


def _has_shares(y_true: Any, y_pred: Any) -> bool:
    # Keras gives labels an axis of length 1, and there are two classes at least.
    return len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == y_pred.shape[-1]
