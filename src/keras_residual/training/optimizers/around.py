"""What an optimizer around another one leaves to that one."""

from __future__ import annotations

from typing import Any

import keras


class Around(keras.Optimizer):
    """Interface: an optimizer that does something before or after the step of another. `Averaged` and `Discriminative`.

    Args:
        inner_optimizer: What changes the weights. It is told the rate, decay, clipping and accumulation of gradients.
        name: Name of the optimizer.
    """

    def __init__(self, inner_optimizer: keras.Optimizer, name: str) -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer

    def build(self, variables: Any) -> None:
        """Makes the state of each weight."""
        if self.built:
            return
        self.inner_optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self) -> list[Any]:
        """Its own and those of the inner optimizer."""
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> Any:
        """Steps of the inner optimizer."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """That of the inner optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Has the inner optimizer take its step."""
        if not self.built:
            self.build(list(trainable_variables))
        self._apply(grads, trainable_variables)
        self._iterations.assign_add(1)

    def scale_loss(self, loss: Any) -> Any:
        """Scales as the inner optimizer does."""
        return self.inner_optimizer.scale_loss(loss)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Tells the inner optimizer, whose decay it is."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Has the inner optimizer do what it does at the end of `fit`."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal optimizer."""
        return {"name": self.name, "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Makes an optimizer from what `get_config` returned."""
        inner = keras.saving.deserialize_keras_object(config["inner_optimizer"], custom_objects)
        return cls(**{**config, "inner_optimizer": inner})

    def _apply(self, grads: Any, trainable_variables: Any) -> None:
        raise NotImplementedError


def put_together(optimizer: Any) -> int:
    """Returns how many gradients an optimizer, or the one within it, puts together into one step."""
    while isinstance(optimizer, Around):
        optimizer = optimizer.inner_optimizer
    return optimizer.gradient_accumulation_steps or 1
