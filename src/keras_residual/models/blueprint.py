"""A network by its name without its weights: the shapes of its maps, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import keras

from keras_residual._keras import UNINITIALIZED, get_global_attribute, set_global_attribute
from keras_residual.models.builders import build
from keras_residual.models.catalog import CATALOG, family_of
from keras_residual.models.costs import Costs, costs
from keras_residual.models.resnet_config import ResNetConfig
from keras_residual.models.stages import Choices
from keras_residual.residual.shapes import Shape

USUAL_INPUTS: MappingProxyType[str, tuple[tuple[int, ...], int]] = MappingProxyType(
    {
        "cifar": ((32, 32, 3), 10),
        "resnet3d": ((16, 112, 112, 3), 400),
        "small_resnet": ((32, 32, 3), 10),
        "series_resnet": ((512, 1), 10),
        "tabular_resnet": ((32,), 10),
    }
)
"""By family or name, the shape of an input with the channels last, and the number of classes, to give costs for."""

_IMAGENET = ((224, 224, 3), 1000)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What is known of a network before it has weights.

    Args:
        architecture: Its name in the catalogue.
        input_shape: Shape of one input, channels last.
        num_classes: Number of logits.
        maps: Shape of one input's map after each stage, as Keras's image data format has it; empty without stages.
        costs: What the network costs for one input.
    """

    architecture: str
    input_shape: tuple[int, ...]
    num_classes: int
    maps: MappingProxyType[str, Shape]
    costs: Costs


def blueprint(
    architecture: str, input_shape: Sequence[int] | None = None, *, num_classes: int | None = None
) -> Blueprint:
    """Returns shapes and costs of a network of the catalogue; no initial value is drawn and nothing is run.

    Args:
        architecture: A name of the catalogue, without a tag.
        input_shape: Shape of one input, channels last; None for the usual one, 224 pixels for the nets of ImageNet.
        num_classes: Number of logits; None for the usual one.

    Example:
        >>> blueprint("resnet50").costs.params
        25557032
        >>> blueprint("resnet18", (64, 64, 3)).maps["stage4"]
        (2, 2, 512)
    """
    usual_shape, usual_classes = usual_input(architecture)
    shape = usual_shape if input_shape is None else tuple(input_shape)
    classes = usual_classes if num_classes is None else num_classes
    config = CATALOG[architecture]
    # Of equal blocks one is enough; irregular ones must all be made.
    alike = not (isinstance(config, ResNetConfig) and config.inner_widths is not None)
    *sizes, channels = shape
    channels_first = len(sizes) > 1 and keras.config.image_data_format() == "channels_first"
    choices = Choices(
        input_shape=(channels, *sizes) if channels_first else shape,
        num_classes=classes,
        execution="scan" if alike else "unrolled",
        name=architecture,
    )
    with without_initial_values():
        model = build(config, choices)
        stages = {
            layer.name.partition("_")[0]: tuple(layer.output.shape[1:])
            for layer in model.layers
            if layer.name.startswith("stage")
        }
        return Blueprint(architecture, shape, classes, MappingProxyType(stages), costs(model))


def usual_input(architecture: str) -> tuple[tuple[int, ...], int]:
    """Returns the shape of one input and the number of classes that costs of an architecture are given for."""
    return USUAL_INPUTS.get(architecture) or USUAL_INPUTS.get(family_of(architecture)) or _IMAGENET


@contextmanager
def without_initial_values() -> Iterator[None]:
    """Drops the variables that are made inside, which Keras would else initialise when a scope ends."""
    before = list(get_global_attribute(UNINITIALIZED) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        set_global_attribute(UNINITIALIZED, before)
