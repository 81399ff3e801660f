"""Layers whose configuration follows from their constructor, and records later changes to their parts."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_residual._keras import in_stateless_scope
from keras_residual._types import Shape
from keras_residual.residual.serialization import (
    PACKAGE,
    config_of,
    deserialize,
    ids_in,
    plain,
    reading,
    with_own_ids,
    without_ids,
    writing,
)
from keras_residual.residual.shapes import sublayers

Changes = Mapping[str, Any]


class Untracked:
    """Holds an object that is not part of a layer: Keras does not track it, save it, or expect it to be built.

    A model with a layer that is not built is called once more, operation by operation, at each `predict_on_batch`.

    Args:
        value: What is held.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


class Configured(keras.layers.Layer):
    """A layer whose configuration is every constructor argument, read from the attribute of its name. Abstract.

    Changes to its parts, such as `trainable`, a dtype policy or a LoRA rank, are part of the configuration: those to
    layers that it creates itself, by `_made`, and those to layers created by the layers it was given.

    Args:
        *args: Arguments of a Keras class that is the other base.
        changed_parts: From a saved configuration: what had been changed, by part.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, *args: Any, changed_parts: Mapping[str, Changes] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._saved_parts = Untracked(changed_parts)
        self._made_parts = Untracked({})

    def _parts(self) -> dict[str, tuple[Any, dict[str, Any], bool]]:
        """Returns by name the layers that this one created, their default settings, and whether they share its policy.

        Not a property: Keras saves what properties return.
        """
        return self._made_parts.value

    # --- The configuration -------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, and what was changed in the parts since."""
        with writing() as outermost:
            if not self.built:
                self._freeze_given()  # What is built later has to find it done.
            arguments = {name: self._argument(name) for name in arguments_of(type(self))}
            config = plain({**super().get_config(), **arguments})
            changed = self._changed_parts(config)
            if changed is not None:
                config["changed_parts"] = changed
            return with_own_ids(config, self.name) if outermost else config

    def _argument(self, name: str) -> Any:
        """Returns the current value of a constructor argument, as it can be passed again."""
        return value_of_argument(self, name)

    def get_build_config(self) -> dict[str, Any]:
        """Returns the shapes that the layer was built for."""
        config = dict(super().get_build_config() or {})
        # Keras has the shapes that `build` takes as `**argument_shapes` as one.
        given = config.get("shapes_dict", {})
        return {"shapes_dict": {**given, **given.pop("argument_shapes")}} if "argument_shapes" in given else config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes the layer from `get_config`'s dictionary."""
        owner = f"{cls.__name__} {config.get('name')!r}"
        with reading():
            names = [name for name in arguments_of(cls) if name in config]
            given = {name: deserialize(config[name], f"{owner}: `{name}`") for name in names}
        return cls(**{**config, **given})

    # --- Layers that this one creates ---------------------------------------------------------------------------------

    def _made(self, name: str, layer: Any, settings: dict[str, Any] | None = None) -> Any:
        """Returns a layer that this one creates for itself, as it was when this one was saved.

        Args:
            name: Its name in the configuration.
            layer: The layer as it is by default, not built. If this one is frozen, so is it.
            settings: `settings_of` the default layer; layers that are alike may share one dictionary.
        """
        settings = settings_of(layer) if settings is None else settings
        shares_policy = layer.dtype_policy is self.dtype_policy
        changes = self._saved_part(name)
        # Recreated only where necessary: others may already refer to the layer.
        recreated = not set(changes) <= {"trainable", "dtype"}
        trainable = self.trainable and layer.trainable
        trainable = trainable if recreated else changes.get("trainable", trainable)
        if layer.trainable != trainable:
            layer.trainable = trainable
        if recreated:
            layer = type(layer).from_config({**layer.get_config(), **changes})
        elif "dtype" in changes:
            layer.dtype_policy = changes["dtype"]
        self._parts()[name] = (layer, settings, shares_policy)
        return layer

    def _saved_part(self, name: str) -> Changes:
        return (self._saved_parts.value or {}).get(name, {})

    # --- Layers that this one was given ------------------------------------------------------------------------------

    def _given_layers(self) -> list[keras.Layer]:
        """Returns the layers that this one was given and uses."""
        made = {id(layer) for layer, _, _ in self._parts().values()}
        return [layer for layer in self._flatten_layers(include_self=False, recursive=False) if id(layer) not in made]

    def _freeze_given(self) -> None:
        """Freezes the layers that this one was given, if it is frozen.

        Keras hands `trainable` down when it is set, but not from the constructor. If this layer was built when it was
        saved, they come with their own flags.
        """
        if not self.trainable and self._saved_parts.value is None:
            for layer in self._given_layers():
                layer.trainable = False

    def _inner_layers(self) -> Iterator[tuple[str, Any, keras.Layer]]:
        """Yields the layers created by those given: a name for the place, the layer, and the one that was given."""
        for place, given in enumerate(self._given_layers()):
            parts = list(sublayers(given))
            cared_for = {
                id(inner)
                for part in parts
                if isinstance(part, Configured)
                for inner in part._flatten_layers(include_self=False)
            }
            for index, part in enumerate(parts[1:]):
                if id(part) not in cared_for and not isinstance(part, keras.layers.InputLayer):
                    yield f"{place}/{index}", part, given

    def _restore_inner_layers(self) -> None:
        """Restores the changes to layers created by those given, as they were when this one was saved."""
        saved = self._saved_parts.value or {}
        for name, part, _ in self._inner_layers() if any("/" in name for name in saved) else ():
            changes = saved.get(name, {})
            if "trainable" in changes:
                part.trainable = changes["trainable"]
            # Only a layer with weights can be quantized, and in a stack the weights come last.
            if "dtype" in changes and not in_stateless_scope():
                part.dtype_policy = changes["dtype"]
            if "lora_rank" in changes and not (part.lora_enabled or in_stateless_scope()):
                part.enable_lora(changes["lora_rank"], lora_alpha=changes["lora_alpha"])

    # --- What was changed --------------------------------------------------------------------------------------------

    def _post_build(self) -> None:
        # Keras calls this after `build`; on PyTorch it registers the variables.
        self._freeze_given()
        self._restore_inner_layers()
        super()._post_build()
        # Of layers that share settings, prefer one that has not been changed.
        parts = [(layer, settings, self._saved_part(name)) for name, (layer, settings, _) in self._parts().items()]
        alike = {id(part[1]): part for part in sorted(parts, key=lambda part: len(part[2]), reverse=True)}
        for layer, settings, changes in alike.values():
            built = _fill_in(settings, settings_of(layer))
            settings.update({key: value for key, value in built.items() if key not in changes})

    def _changed_parts(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """Returns what a new layer of this configuration would lack, or None."""
        changed = {}
        for name, (layer, settings, shares_policy) in self._parts().items():
            expected = settings if self.trainable else _freeze(settings)
            if shares_policy:
                expected = {**expected, "dtype": _policy_of(self)}
            now = config_of(layer)
            differing = {
                key: value for key, value in now.items() if key not in expected or without_ids(value) != expected[key]
            }
            if differing:
                changed[name] = differing

        given = [] if self.trainable else self._given_layers()
        thawed = any(part.trainable for layer in given for part in sublayers(layer))
        written = set(ids_in(config))
        for name, part, layer in self._inner_layers():
            if id(part) not in written:
                changes = _changes_of(part, layer, trainable=self.trainable or thawed)
                changed |= {name: changes} if changes else {}

        saved = self._saved_parts.value
        if not self.built:
            changed |= {name: changes for name, changes in (saved or {}).items() if name not in self._parts()}
            return changed if changed or saved is not None else None
        # Where this layer is frozen and one it was given is not, an empty record still says that it was built.
        return changed if changed or thawed else None


class ShapePreserving(Configured):
    """A layer whose output has the shape and the mask of its input. Abstract."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the input."""
        return tuple(input_shape)


def value_of_argument(owner: Any, name: str) -> Any:
    """Returns the attribute that holds a constructor argument; raises an `AttributeError` if there is none."""
    if not hasattr(owner, name):
        raise AttributeError(
            f"{type(owner).__name__}: the argument `{name}` of the constructor must be an attribute of the same name, "
            f"or it cannot be saved. Set `self.{name}`, or override `get_config`."
        )
    return getattr(owner, name)


def arguments_of(cls: Any) -> tuple[str, ...]:
    """Returns the names of the constructor arguments that a configuration has, those of base classes first.

    They are those of this library's classes, and of classes derived from them unless these override `get_config`.
    Arguments that Keras records itself are left out.
    """
    return _arguments_of(cls)


@functools.cache
def _arguments_of(cls: Any) -> tuple[str, ...]:
    own = [base for base in reversed(cls.__mro__) if _is_own(base)]
    known = {base for ours in own for base in ours.__mro__}
    others = [base for base in reversed(cls.__mro__) if base not in known and not base.__module__.startswith("keras.")]
    if not any("get_config" in vars(base) for base in others):
        own += others
    signatures = [inspect.signature(vars(base)["__init__"]) for base in own if "__init__" in vars(base)]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [p.name for signature in signatures for p in signature.parameters.values() if p.kind in kinds]
    return tuple(name for name in dict.fromkeys(names) if name not in ("self", "changed_parts", *_KERAS_ARGUMENTS))


_KERAS_ARGUMENTS = ("name", "dtype", "trainable")
"""What every configuration of Keras has."""


def _is_own(cls: Any) -> bool:
    return cls.__module__.partition(".")[0] == PACKAGE


def settings_of(layer: Any) -> dict[str, Any]:
    """Returns a layer's configuration, to be compared with a later one; `{}` for a layer that has none."""
    # A layer that cannot be saved, or not safely, such as one with a lambda, raises when it is saved, not before.
    with writing(fresh=True), warnings.catch_warnings(action="ignore"):
        try:
            return without_ids(config_of(layer))
        except Exception:
            return {}


def _policy_of(layer: keras.Layer) -> Any:
    return without_ids(plain(keras.dtype_policies.serialize(layer.dtype_policy)))


def _changes_of(part: Any, given: keras.Layer, *, trainable: bool) -> dict[str, Any]:
    """Returns what must be set on a layer that another one created when it was built."""
    changes: dict[str, Any] = {}
    if part.trainable != trainable:
        changes["trainable"] = part.trainable
    if _policy_of(part) != _policy_of(given):
        changes["dtype"] = _policy_of(part)
    if getattr(part, "lora_rank", None):
        changes |= {"lora_rank": part.lora_rank, "lora_alpha": part.lora_alpha}
    return changes


def _freeze(config: Any) -> Any:
    """Returns a configuration as it is after `trainable = False`, which Keras passes to all layers within."""
    if isinstance(config, list):
        return [_freeze(item) for item in config]
    if not isinstance(config, dict):
        return config
    return {key: False if key == "trainable" else _freeze(item) for key, item in config.items()}


def _fill_in(before: Any, after: Any) -> Any:
    """Returns a configuration with the values that building filled in, and without other changes made until then.

    Building replaces None, and may turn a number into a list, as Keras's layer norm does with its axis.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        filled = {key: value for key, value in after.items() if key in before or key != "changed_parts"}
        return {key: _fill_in(before[key], value) if key in before else value for key, value in filled.items()}
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [_fill_in(old, new) for old, new in zip(before, after, strict=True)]
    plain_values = isinstance(before, (int, float, str)) and isinstance(after, (int, float, str))
    return before if plain_values else after
