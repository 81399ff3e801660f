"""The X-ray of a model: one forward and one backward pass, in which everything is measured."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_residual import _backend
from keras_residual._errors import bad_argument, wrong_type
from keras_residual._keras import print_msg
from keras_residual.xray.find.replaced import LOCK
from keras_residual.xray.measure.costs import costs_in_words
from keras_residual.xray.measure.kept import collection_for, keep
from keras_residual.xray.measure.on_request import MeasuringRequest, check_quantities
from keras_residual.xray.report import XrayReport


def xray(
    model: keras.Layer,
    x: Any,
    y: Any = None,
    loss: Any = None,
    *,
    sample_weight: Any = None,
    quantities: Sequence[str] = (),
    training: bool = True,
    verbose: bool = True,
) -> XrayReport:
    """Looks through a model with one batch: whether the gradient arrives, what each block adds, and what to change.

    It finds the residual connections by itself: each outermost `kr.Residual`, each block of a `kr.ResidualStack`, and
    in a Functional model, and in the `call` of a subclassed one or of a layer of others, each sum or concatenation of
    which one input reaches the other. Where there is none it goes layer by layer. Nothing of the model changes:
    weights, moving statistics, states of seeds, and what it was compiled with. Looking again, as after some training,
    compiles nothing anew for batches of one shape.

    Args:
        model: Any Keras model or layer. One that is not built yet is called once, which gives it its weights.
        x: A batch of inputs, as the model takes them; 32 samples and more tell dead units from rare ones, fewer than
            16 do not.
        y: Targets of the batch. Without them the gradient is that of a random direction of the output.
        loss: A loss of Keras, its name, a function of targets and outputs, or for several outputs a structure of these,
            as of `compile`; by default that of `compile`, with its `loss_weights`. Penalties of weights and of
            `add_loss`, and weights of classes, are left out.
        sample_weight: Weights of the samples, as of `fit`, with which the loss takes them.
        quantities: Names of what is to be measured beside the rest, at a cost of its own that is said before: of each
            block `"chi"`, `"singular_value"`, and with targets `"lesion"`, of the loss at inference, and `"early_exit"`
            (which takes `y` as labels, 0 to 9999); of the whole `"path_lengths"`, `"shattering"`, `"cka"`, and with
            targets `"loss_slice"`, `"loss_surface"` and `"sharpness"`, of the loss at inference.
        training: Whether the layers act as in training. A batch norm then takes the statistics of this batch.
        verbose: Whether it prints what the quantities cost before anything is measured.

    Returns:
        An `XrayReport`, with `.blocks`, `.model`, `.advice`, `.to_dict()` and `.to_json(path)`; `print` shows a table.

    Raises:
        ValueError: For targets without a loss, a batch that is empty, arrays of different numbers of rows, targets or
            weights of a shape that a loss of Keras cannot take, an unknown quantity, or one that lacks targets.
        TypeError: If `model` is not a Keras layer, or for arrays of anything but numbers.

    Example:
        >>> inputs = keras.Input((8,))
        >>> x = kr.Residual([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(8)], name="first")(inputs)
        >>> model = keras.Model(inputs, x + keras.layers.Dense(8, activation="relu")(x))
        >>> report = xray(model, np.random.default_rng(0).normal(size=(32, 8)))
        >>> [block["kind"] for block in report.blocks]
        ['residual', 'add']

    Reference:
        Each file of the folder `keras_residual/xray/quantities` names its own.
    """
    if not isinstance(model, keras.Layer):
        raise wrong_type("xray", "model", "a model or a layer of Keras", model)
    x, y, sample_weight = batch_of("xray", x, y, sample_weight)
    quantities = (quantities,) if isinstance(quantities, str) else quantities
    quantities = [*quantities] if isinstance(quantities, Iterable) else quantities
    if not isinstance(quantities, list) or not all(isinstance(name, str) for name in quantities):
        rule = "names of quantities, such as ['lesion', 'cka']; none at all as []"
        raise wrong_type("xray", "quantities", rule, quantities)
    check_quantities(quantities, y)
    with LOCK, _backend.keeping_random_state():
        make_weights(model, x)
        collection = collection_for(model, x, y, loss, training, sample_weight)
        try:
            if quantities and verbose:
                print_msg(costs_in_words(quantities, len(collection.recorder.places)))
            report = collection.report()
            if quantities:
                recorder = copy.copy(collection.recorder)
                request = MeasuringRequest(model, recorder, collection.given, collection.loss, training)
                request.add(quantities, report)
            keep(collection, loss)
        finally:
            collection.forget()
        return report


def make_weights(model: Any, x: Any) -> None:
    """Calls a model that lacks weights, which gives it them.

    One that is built may have layers that no call reaches, and stay without their weights: its variables are left as
    they are.

    Args:
        model: A model or layer.
        x: A batch.
    """
    if not model.built:
        model(x)
    elif not all(layer.built for layer in model._flatten_layers()):
        with keras.StatelessScope():
            model(x)


def batch_of(owner: str, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Returns inputs, targets and weights of samples as tensors; Nones stay.

    Args:
        owner: Whose arguments they are.
        x: Inputs.
        y: Targets, or None.
        sample_weight: Weights, or None.
    """
    if y is None and sample_weight is not None:
        raise bad_argument(owner, "y", "the targets of the loss that `sample_weight` weighs", y)
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    found = {name: None if a is None and name != "x" else batch_tensors(owner, name, a) for name, a in given.items()}
    rows = keras.tree.flatten(found["x"])[0].shape[0]
    for name in ("y", "sample_weight"):
        for tensor in keras.tree.flatten(() if found[name] is None else found[name]):
            if tensor.shape[0] != rows:
                rule = f"arrays of {rows} rows, one for each of `x`"
                raise bad_argument(owner, name, rule, tuple(tensor.shape), "The shape is shown.")
    return found["x"], found["y"], found["sample_weight"]


def batch_tensors(owner: str, argument: str, given: Any) -> Any:
    """Returns a batch as tensors, of the precision that Keras computes in.

    Args:
        owner: Whose argument it is.
        argument: Its name.
        given: An array, or a structure of arrays.
    """
    lengths: set[int] = set()

    def convert(array: Any) -> Any:
        if not hasattr(array, "shape"):
            try:
                array = np.asarray(array)
            except ValueError as error:  # rows of different lengths
                raise wrong_type(owner, argument, "an array of numbers, its rows of one length", given) from error
        if not len(array.shape):
            rule = "an array or a tensor with a batch axis, or a structure of these"
            way_out = "Make an array of a list of numbers, and take one batch of a data set."
            raise bad_argument(owner, argument, rule, f"a {type(given).__name__}", way_out)
        if not array.shape[0]:
            raise bad_argument(owner, argument, "a batch of at least one sample", tuple(array.shape))
        if 0 in tuple(array.shape):
            raise bad_argument(owner, argument, "arrays with at least one value a sample", tuple(array.shape))
        lengths.add(int(array.shape[0]))
        if len(lengths) > 1:
            raise bad_argument(owner, argument, "arrays of one batch, all of the same length", sorted(lengths))
        # A model may begin with strings; no loss takes them.
        kind = getattr(array.dtype, "kind", "f") if hasattr(array, "dtype") else "f"
        try:
            if kind in "OUSMm" and argument != "x":
                raise TypeError(f"an array of {array.dtype}")
            tensor: Any = ops.convert_to_tensor(array)
        except (TypeError, ValueError) as error:
            way_out = (
                "Convert it, with np.asarray(…, 'float32') for instance; labels in words by their places in a list."
            )
            received = f"an array of {getattr(array, 'dtype', type(array).__name__)}"
            raise wrong_type(owner, argument, "an array or a tensor of numbers", received, way_out) from error
        double = keras.backend.standardize_dtype(tensor.dtype) == "float64"
        return ops.cast(tensor, keras.config.floatx()) if double else tensor

    if isinstance(given, Sequence) and not isinstance(given, (list, tuple)):
        raise wrong_type(owner, argument, "an array, a tensor, or a structure of these", given)
    tensors = keras.tree.map_structure(convert, given)
    if not lengths:
        raise bad_argument(owner, argument, "a batch of at least one array", given)
    return tensors
