"""What Keras's optimizers must know of stacks: which may see all blocks in one weight, and what their state belongs to.

Keras hands an optimizer variables and nothing else, so that the three methods where that matters are extended here, the
first time that a stack is built. Without a stack among its variables an optimizer does what it did.
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
"""Optimizers that move each entry of a weight by what they know of that entry alone.

Not among them: Lamb (norms of weights), Adafactor (moments by rows and columns), Muon (matrices made orthogonal).
"""

_EXTENDED = "_knows_stacks"


def extend_optimizers() -> None:
    """Has every optimizer of Keras ask here when it is applied, saved and loaded; once for all."""
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
            setattr(owner, name, _extended(method, extension))


def _extended(method: Callable[..., Any], extension: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return extension(self, method, *args, **kwargs)

    setattr(call, _EXTENDED, True)
    return call


# --- Applied ---------------------------------------------------------------------------------------------------------


_choosing_apart: WeakKeyDictionary[Any, set[int]] = WeakKeyDictionary()
"""Of a MultiOptimizer, the `id` of each stacked weight for which it does not choose as for the weights of blocks."""


def _build(self: Any, method: Callable[..., Any], variables: Any) -> None:
    # Here, and not when it is applied: a function that chooses may make optimizers, which Keras forbids in a program.
    stacked = [variable for variable in variables if isinstance(variable, StackedVariable)]
    _choosing_apart[self] = {id(variable) for variable in stacked if not _chooses_alike(self, variable)}
    method(self, variables)


def _apply(self: Any, method: Callable[..., Any], grads: Any, trainable_variables: Any = None) -> Any:
    variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
    stacked = [variable for variable in variables if isinstance(variable, StackedVariable)]
    if stacked and isinstance(self, optimizers.MultiOptimizer) and not self.built:
        with _backend.outside_of_programs():
            self.build(variables)  # as Keras does next, where it has not before: what it chooses is known then
    for variable in stacked:
        _check(self, variable)
    clipnorm = self.clipnorm
    if not (stacked and clipnorm):
        return method(self, grads, trainable_variables)
    grads = [_clipped(self, grad, variable) for grad, variable in zip(grads, variables, strict=True)]
    self.clipnorm = None
    try:
        return method(self, grads, trainable_variables)
    finally:
        self.clipnorm = clipnorm


def _stateless_apply(self: Any, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Before a branch of the program is traced, which has an error in it told in many lines.
    for variable in self._trainable_variables:
        if isinstance(variable, StackedVariable):
            _check(self, variable)
    return method(self, *args, **kwargs)


def _clipped(optimizer: Any, grad: Any, variable: Any) -> Any:
    """Returns a gradient of which each block's part has at most the norm `clipnorm`."""
    if grad is None or optimizer._overwrite_variable_with_gradient(variable):
        return grad
    scale = optimizer.loss_scale_factor or 1.0
    shape = tuple(variable.shape)
    each: Any = ops.reshape(grad, (*shape[: len(shape) - rank_in_block(variable)], -1))  # a row for each block
    return ops.reshape(optimizer._clip_by_norm(each / scale, len(each.shape) - 1) * scale, shape)


def _check(optimizer: Any, variable: StackedVariable) -> None:
    """Raises where an optimizer would give a stacked weight other values than the weights of single blocks."""
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
    # On PyTorch, Keras makes a subclass of its own of each; one of a user may do anything.
    known = kind in _ELEMENTWISE or (kind.__module__.startswith("keras.") and issubclass(kind, _ELEMENTWISE))
    return known or any(getattr(optimizer, name, False) is True for name in ("elementwise", "by_block"))


def _chooses_alike(optimizer: Any, variable: StackedVariable) -> bool:
    choose = optimizer._optimizer_map
    chosen = choose(variable)
    depth = variable.shape[0]
    # A map is asked for all blocks; a function, which may make an optimizer each time, for the ends.
    indices = range(depth) if isinstance(choose, optimizers.OptimizerMap) else {0, depth - 1}
    return all(_alike(chosen, choose(in_block(variable, index))) for index in indices)


def _alike(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and _settings(one) == _settings(other))


def _settings(optimizer: Any) -> dict[str, Any]:
    return {name: value for name, value in optimizer.get_config().items() if name != "name"}


# --- Saved and loaded ------------------------------------------------------------------------------------------------


def _save(self: Any, method: Callable[..., Any], store: Any) -> None:
    if not any(place_of(variable) for variable in _trained(self)):
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
    """Returns an optimizer's variables by names that do not depend on how the stacks of its model are executed.

    Those of one weight in all blocks of an unrolled stack are a list, which in a scanned one are one variable.
    """
    named: dict[str, Any] = {}
    owned: set[int] = set()
    for number, part in enumerate(_parts(optimizer)):
        variables = part._trainable_variables
        groups = _grouped(variables)
        for name, slots in vars(part).items():
            # Keras's way to the slot of a weight: a list with an entry for each.
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


def _grouped(variables: Sequence[Any]) -> list[list[int]]:
    """Returns the indices of the variables, those of one weight in the blocks of a stack together."""
    groups: dict[Any, list[int]] = {}
    for index, variable in enumerate(variables):
        groups.setdefault(place_of(variable) or index, []).append(index)
    return list(groups.values())


def _parts(optimizer: Any) -> Iterator[Any]:
    """Yields an optimizer and those in it."""
    yield optimizer
    inner = getattr(optimizer, "inner_optimizer", None)
    for part in (*getattr(optimizer, "_inner_optimizers", ()), *([] if inner is None else [inner])):
        yield from _parts(part)


def _trained(optimizer: Any) -> Iterator[Any]:
    for part in _parts(optimizer):
        yield from part._trainable_variables


def _shape(slots: Any) -> tuple[int, ...]:
    return (len(slots), *slots[0].shape) if isinstance(slots, list) else tuple(slots.shape)
