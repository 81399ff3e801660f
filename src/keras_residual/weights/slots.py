"""The weights of a model one by one, by paths that do not depend on how its stacks are executed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np

from keras_residual.stacks.stack import ResidualStack


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """One weight of a model, or a block's share of a stacked one.

    Args:
        path: Where it is, such as `"stage2_block3/conv1/kernel"`: blocks count from 1, those of a stack go on from the
            block before it.
        variable: The variable.
        index: The block's slice of the variable; None where the variable is its own.
    """

    path: str
    variable: keras.Variable
    index: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        shape = tuple(self.variable.shape)
        return shape if self.index is None else shape[1:]

    def read(self) -> np.ndarray:
        """Returns the weight as it is now."""
        value = np.asarray(keras.ops.convert_to_numpy(self.variable.value))
        return value if self.index is None else value[self.index]


def slots(model: keras.Model) -> list[Slot]:
    """Returns every weight of a model; random states are none.

    Args:
        model: A model whose layers have distinct names.
    """
    found: list[Slot] = []
    for layer in model.layers:
        if isinstance(layer, ResidualStack):
            # A stage is a first block `stage1_block1` and a stack `stage1_blocks` of the others, from the second on.
            stem, first = (layer.name[:-1], 2) if layer.name.endswith("_blocks") else (f"{layer.name}_block", 1)
            for number, weights in enumerate(layer.block_weights(), start=first):
                for path, (variable, index) in weights.items():
                    found.append(Slot(f"{stem}{number}/{path.removeprefix('block/')}", variable, index))
        else:
            found += [Slot(weight.path, weight) for weight in layer.weights]
    return found


def assign(values: Iterable[tuple[Slot, np.ndarray]]) -> None:
    """Sets weights; the slices of one stacked variable at once."""
    stacked: dict[int, tuple[keras.Variable, np.ndarray]] = {}
    for slot, value in values:
        if slot.index is None:
            slot.variable.assign(value)
            continue
        if id(slot.variable) not in stacked:
            now = np.array(keras.ops.convert_to_numpy(slot.variable.value))
            stacked[id(slot.variable)] = (slot.variable, now)
        stacked[id(slot.variable)][1][slot.index] = value
    for variable, value in stacked.values():
        variable.assign(value)
