"""Keras's optimizers on the weights of stacks: which accept stacked weights, and how their state is saved.

Keras passes an optimizer its variables and nothing else, so the methods in which stacks matter are extended here, the
first time that a stack is built; an optimizer without a stack among its variables behaves as before. This belongs to
stacks and not to `training/optimizers`, which has optimizers of our own: a stack that is trained by `model.fit` alone
depends on it, its `build` installs it, and a stack may import nothing from `training`, which is above it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
from keras import ops, optimizers

from keras_residual import _backend
from keras_residual._keras import BaseOptimizer
from keras_residual.stacks.variables import StackedVariable, in_block, place_of, rank_in_block

_ELEMENTWISE = (
    *(optimizers.SGD, optimizers.Adam, optimizers.AdamW, optimizers.Adamax, optimizers.Nadam, optimizers.RMSprop),
    *(optimizers.Adagrad, optimizers.Adadelta, optimizers.Ftrl, optimizers.Lion, optimizers.ScheduleFreeAdamW),
)
"""Optimizers that update each entry of a weight from the gradients of that entry alone.

Not among them: Lamb (norms of weights), Adafactor (moments of rows and columns), Muon (orthogonalised matrices).
"""

_EXTENDED = "_knows_stacks"


def extend_optimizers() -> None:
    """Extends the methods of all Keras optimizers that apply, save and load; does nothing when called again."""
    _backend.name_optimizers()
    for owner, name, extension in (
        (BaseOptimizer, "apply", _apply),
        (optimizers.MultiOptimizer, "build", _build),
        (optimizers.MultiOptimizer, "apply", _apply),
        (optimizers.LossScaleOptimizer, "apply", _apply),
        (optimizers.LossScaleOptimizer, "stateless_apply", _stateless_apply),
        (BaseOptimizer, "save_own_variables", _save),
        (BaseOptimizer, "load_own_variables", _load),
    ):
        method = getattr(owner, name)
        if not hasattr(method, _EXTENDED):
            setattr(owner, name, _extend(method, extension))


def _extend(method: Callable[..., Any], extension: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return extension(self, method, *args, **kwargs)

    setattr(call, _EXTENDED, True)
    return call


# --- Applied ---------------------------------------------------------------------------------------------------------


_choosing_apart: WeakKeyDictionary[Any, set[int]] = WeakKeyDictionary()
"""By MultiOptimizer, the `id`s of stacked weights whose optimizer is not the one it chooses for single blocks."""


def _build(self: Any, method: Callable[..., Any], variables: Any) -> None:
    # Here rather than in `_apply`: a function that chooses may create optimizers, which Keras forbids in a program.
    stacked = [variable for variable in variables if isinstance(variable, StackedVariable)]
    _choosing_apart[self] = {id(variable) for variable in stacked if not _chooses_alike(self, variable)}
    method(self, variables)


def _apply(self: Any, method: Callable[..., Any], grads: Any, trainable_variables: Any = None) -> Any:
    variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
    stacked = [variable for variable in variables if isinstance(variable, StackedVariable)]
    if stacked and isinstance(self, optimizers.MultiOptimizer) and not self.built:
        with _backend.outside_of_programs():
            self.build(variables)  # Keras would do this next; the check below needs the choices
    for variable in stacked:
        _check(self, variable)
    clipnorm = self.clipnorm
    if not (stacked and clipnorm):
        return method(self, grads, trainable_variables)
    grads = [_clip(self, grad, variable) for grad, variable in zip(grads, variables, strict=True)]
    self.clipnorm = None
    try:
        return method(self, grads, trainable_variables)
    finally:
        self.clipnorm = clipnorm


def _stateless_apply(self: Any, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Before a branch of the program is traced, where an error would be buried in a long traceback.
    for variable in self._trainable_variables:
        if isinstance(variable, StackedVariable):
            _check(self, variable)
    return method(self, *args, **kwargs)


def _clip(optimizer: Any, grad: Any, variable: Any) -> Any:
    """Returns the gradient with the norm of each block's part clipped to `clipnorm`."""
    if grad is None or optimizer._overwrite_variable_with_gradient(variable):
        return grad
    scale = optimizer.loss_scale_factor or 1.0
    shape = tuple(variable.shape)
    each: Any = ops.reshape(grad, (*shape[: len(shape) - rank_in_block(variable)], -1))  # a row for each block
    return ops.reshape(optimizer._clip_by_norm(each / scale, len(each.shape) - 1) * scale, shape)


def _check(optimizer: Any, variable: StackedVariable) -> None:
    """Raises if an optimizer would update a stacked weight differently from the weights of single blocks."""
    if isinstance(optimizer, optimizers.LossScaleOptimizer):
        _check(optimizer.inner_optimizer, variable)
        return
    what = None
    if isinstance(optimizer, optimizers.MultiOptimizer):
        if id(variable) in _choosing_apart[optimizer]:
            what = "a MultiOptimizer that chooses the same optimizer for the weight of every block and for all in one"
    elif optimizer.clipnorm and optimizer.gradient_accumulation_steps:
        what = "one without `clipnorm` where it accumulates gradients, whose sum would be clipped for all blocks as one"
    elif not _keeps_blocks_apart(optimizer):
        what = (
            "one that updates each entry of a weight by itself, such as AdamW, or says so by an attribute `elementwise`"
        )
    if what is not None:
        raise ValueError(
            f"{variable.stack}: the optimizer must be {what}, but received {type(optimizer).__name__}, and a scanned "
            "stack has the weights of all its blocks in one. Take execution='unrolled' for the stack, or "
            "stack.with_execution('unrolled')."
        )


def _keeps_blocks_apart(optimizer: Any) -> bool:
    kind = type(optimizer)
    # On PyTorch, Keras derives a subclass of its own from each; a subclass of a user may do anything.
    known = kind in _ELEMENTWISE or (kind.__module__.startswith("keras.") and issubclass(kind, _ELEMENTWISE))
    return known or any(getattr(optimizer, name, False) is True for name in ("elementwise", "by_block"))


def _chooses_alike(optimizer: Any, variable: StackedVariable) -> bool:
    choose = optimizer._optimizer_map
    chosen = choose(variable)
    depth = variable.shape[0]
    # A map is asked for every block; a function, which may create an optimizer each time, for the first and the last.
    indices = range(depth) if isinstance(choose, optimizers.OptimizerMap) else {0, depth - 1}
    return all(_alike(chosen, choose(in_block(variable, index))) for index in indices)


def _alike(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and _settings(one) == _settings(other))


def _settings(optimizer: Any) -> dict[str, Any]:
    return {name: value for name, value in optimizer.get_config().items() if name != "name"}


# --- Saved and loaded ------------------------------------------------------------------------------------------------


def _save(self: Any, method: Callable[..., Any], store: Any) -> None:
    if not any(place_of(variable) for variable in _trained_variables(self)):
        method(self, store)
        return
    for key, slots in _slots(self).items():
        store[key] = np.stack([slot.numpy() for slot in slots]) if isinstance(slots, list) else slots.numpy()


def _load(self: Any, method: Callable[..., Any], store: Any) -> None:
    found = set(store.keys())
    if all(key.isdigit() for key in found):
        method(self, store)
        return
    slots = _slots(self)
    arrays = {key: np.asarray(store[key]) for key in found & set(slots)}
    if found != set(slots) or any(arrays[key].shape != _shape(each) for key, each in slots.items()):
        warnings.warn(
            f"Skipping variable loading for optimizer {self.name!r}, which starts anew: the saved one was of other "
            "weights.",
            stacklevel=2,
        )
        return
    for key, each in slots.items():
        pairs = zip(each, arrays[key], strict=True) if isinstance(each, list) else [(each, arrays[key])]
        for slot, value in pairs:
            slot.assign(value)


def _slots(optimizer: Any) -> dict[str, Any]:
    """Returns the variables of an optimizer under names that do not depend on the execution of stacks.

    For a weight of a block, an unrolled stack has a list of variables, and a scanned one a single variable.
    """
    named: dict[str, Any] = {}
    owned: set[int] = set()
    for number, part in enumerate(_parts(optimizer)):
        variables = part._trainable_variables
        groups = _group(variables)
        for name, slots in vars(part).items():
            # Keras keeps the slots of all weights in lists with an entry for each weight.
            if name in ("_variables", "_trainable_variables") or not isinstance(slots, (list, tuple)):
                continue
            if len(slots) != len(variables):
                continue
            for index, group in enumerate(groups):
                each = [slots[i] for i in group]
                if all(isinstance(slot, keras.Variable) for slot in each):
                    apart = place_of(variables[group[0]]) and not isinstance(variables[group[0]], StackedVariable)
                    named[f"{number}.{name.strip('_')}.{index}"] = each if apart else each[0]
                    owned.update(map(id, each))
    others = [variable for variable in optimizer.variables if id(variable) not in owned]
    return named | {f"other.{index}": variable for index, variable in enumerate(others)}


def _group(variables: Sequence[Any]) -> list[list[int]]:
    """Returns the indices of the variables, grouped by the weight of a block that they are."""
    groups: dict[Any, list[int]] = {}
    for index, variable in enumerate(variables):
        groups.setdefault(place_of(variable) or index, []).append(index)
    return list(groups.values())


def _parts(optimizer: Any) -> Iterator[Any]:
    """Yields an optimizer and the optimizers in it."""
    yield optimizer
    inner = getattr(optimizer, "inner_optimizer", None)
    for part in (*getattr(optimizer, "_inner_optimizers", ()), *([] if inner is None else [inner])):
        yield from _parts(part)


def _trained_variables(optimizer: Any) -> Iterator[Any]:
    for part in _parts(optimizer):
        yield from part._trainable_variables


def _shape(slots: Any) -> tuple[int, ...]:
    return (len(slots), *slots[0].shape) if isinstance(slots, list) else tuple(slots.shape)
