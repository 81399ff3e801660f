"""The program of a model's last X-ray, kept with the model: the next one runs it again where only numbers are new."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras

from keras_residual.xray.measure.loss import loss_of
from keras_residual.xray.measure.program import Collection, collection_of, given_of
from keras_residual.xray.measure.settings import is_setting, settled

_NAME = "_keras_residual_xray"
_CHANGED_BY_TRAINING = ("stop_training", "_jax_state", "_jax_state_synced")


@dataclass(frozen=True, slots=True)
class _Kept:
    state: Any
    collection: Collection


def collection_for(model: Any, x: Any, y: Any, loss: Any, training: bool, sample_weight: Any = None) -> Collection:
    """Returns the collection of the last X-ray of a model for a new batch, or a new one where that would not do.

    It would not where the batch has another shape, where loss or `training` is another one, and where the model has
    changed in more than the values of its weights: in what is trained, or in a setting of a layer.

    Args:
        model: A built model or layer.
        x: The batch.
        y: Its targets, or None.
        loss: As of `xray`.
        training: Whether the layers act as in training.
        sample_weight: Weights of the samples, or None.
    """
    kept, given = model.__dict__.get(_NAME), given_of(x, y, sample_weight)
    if kept is None or kept.state != _state(model, given, loss, training):
        return collection_of(model, x, y, loss, training, sample_weight=sample_weight)
    kept.collection.given = given
    return kept.collection


def keep(collection: Collection, loss: Any) -> None:
    """Keeps a collection that has run with its model; what it has seen is its caller's to forget.

    It is part of the model's `__dict__`, past Keras's bookkeeping: it goes when the model goes, and no file or copy of
    the model has it.

    Args:
        collection: What has run.
        loss: As it was given to `xray`.
    """
    # Taken now, since a first call may change what layers note of it.
    state = _state(collection.model, collection.given, loss, collection.training)
    collection.model.__dict__[_NAME] = _Kept(state, collection)


def _state(model: Any, given: tuple[Any, ...], loss: Any, training: bool) -> Any:
    """Returns all that a program depends on beside values of tensors, to be compared with another such state."""
    batch = keras.tree.map_structure(lambda t: (tuple(t.shape), keras.backend.standardize_dtype(t.dtype)), given)
    trained = [(id(variable), variable.trainable) for variable in model.variables]
    return batch, loss_of(model, loss), training, trained, [_settings(layer) for layer in model._flatten_layers()]


def _settings(layer: Any) -> Any:
    """Returns the settings of a layer and its functions, such as a rate and an activation."""
    own = {
        name: settled(value) for name, value in vars(layer).items() if name not in _of_any_model() and is_setting(value)
    }
    return id(layer), layer.trainable, layer.compute_dtype, own


@functools.cache
def _of_any_model() -> frozenset[str]:
    """Returns the names of the attributes that Keras gives every model, for its own bookkeeping."""
    return frozenset((*vars(keras.Sequential(name="any")), *_CHANGED_BY_TRAINING, _NAME))
