"""From a name to a model, with pretrained weights where they are asked for."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_argument, bad_checkpoint, unknown_name, wrong_type
from keras_residual._order import natural_key
from keras_residual.models.builder import build
from keras_residual.models.catalog import CATALOG, family_of, is_for_imagenet
from keras_residual.models.catalog.aliases import ALIASES, resolve_alias
from keras_residual.models.config import Choices
from keras_residual.models.facts import PretrainedWeights, pretrained_tags, pretrained_weights
from keras_residual.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from keras_residual.weights.hub import open_location
from keras_residual.weights.load import load_weights, set_weights

_OWNER = "create_model"
_SOME_SIZE = 256  # for a model that takes pictures of any size
_LEAST_FEATURES = 16  # no network here has a head with fewer inputs


def list_models(pattern: str = "*", *, pretrained: bool | None = None) -> list[str]:
    """Returns the names of the models, numbers in natural order.

    Args:
        pattern: Shell-style pattern, for example `"resnet50*"`.
        pretrained: None for the architectures; True for the sets of pretrained weights, `"resnet50.a1_in1k"`; False
            for the architectures without any.

    Example:
        >>> list_models("wide_resnet*")
        ['wide_resnet50_2', 'wide_resnet101_2']
        >>> list_models("wide_resnet50_2*", pretrained=True)
        ['wide_resnet50_2.racm_in1k', 'wide_resnet50_2.tv2_in1k', 'wide_resnet50_2.tv_in1k']
    """
    names: list[str] = list(CATALOG)
    if pretrained:
        names = [f"{name}.{tag}" for name in CATALOG for tag in pretrained_tags(name)]
    elif pretrained is False:
        names = [name for name in CATALOG if not pretrained_tags(name)]
    return sorted(fnmatch.filter(names, pattern), key=natural_key)


def create_model(
    name: str,
    *,
    input_shape: tuple[int | None, ...] | None = None,
    num_classes: int | None = None,
    weights: str | Path | None = "auto",
    include_top: bool = True,
    features_only: bool = False,
    drop_path_rate: float = 0.0,
    drop_block_rate: float = 0.0,
    dropout_rate: float = 0.0,
    output_stride: int = 32,
    execution: str | None = None,
    remat: bool | str = False,
) -> keras.Model:
    """Returns a model by its name, from standardised inputs to logits.

    Args:
        name: One of `list_models()`, with a tag for pretrained weights (`"resnet50.a1_in1k"`), or the name that
            torchvision or KerasHub has for the same network.
        input_shape: Shape of one input: pictures `(height, width, channels)`, or channels first where Keras is set so;
            volumes `(depth, height, width, channels)`, series `(time, channels)`, tables `(features,)`. Sizes may be
            None. By default, for ImageNet networks, three channels at the size that the weights were trained at, or
            224.
        num_classes: Number of logits, or of targets in a regression. By default, for ImageNet networks, that of the
            pretrained weights, or 1000. If it differs from that of the weights, the backbone is loaded and the head
            is new.
        weights: `"pretrained"`; None for random ones; or a location that `load_weights` reads, such as a file, a
            folder or `"hf://owner/name"`. `"auto"` is `"pretrained"` if the name has a tag, else None.
        include_top: Whether the model ends in pooling and a head; without them it returns the last feature map.
        features_only: Whether the output is a dictionary of the feature maps of the stem and of each stage;
            `feature_strides` returns the stride of each.
        drop_path_rate: Stochastic depth: rate of the last block in `[0, 1)`, rising linearly from 0 at the first.
        drop_block_rate: Rate in `[0, 1)` of DropBlock in the last two stages of a ResNet v1.
        dropout_rate: Rate in `[0, 1)` of the dropout before the head.
        output_stride: 8, 16 or 32: the stride from which on strides become dilations, which keeps the last map larger.
        execution: How the equal blocks of each stage are executed: `"unrolled"`, as separate layers that
            can be frozen, quantised or given adapters; `"scan"`, compiled as one; or `"auto"`, see `ResidualStack`.
            By default `"unrolled"`, and `"auto"` for 48 or more in a row, as in `cifar_resnet302`.
        remat: `False`, `"full"` or `"sqrt"`: which activations are recomputed in the backward pass, see
            `ResidualStack`.

    Returns:
        A functional `keras.Model` with output `(batch, num_classes)`, or as `include_top` and `features_only` say.

    Raises:
        ValueError: If the name is unknown (the message has the nearest one), or an argument breaks its rule.
        CheckpointError: If the weights cannot be read or do not fit.
        ConnectionError: If pretrained weights are not on this machine and cannot be downloaded.

    Example:
        >>> create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10).output_shape
        (None, 10)
        >>> create_model("resnet18", features_only=True).output["stage4"].shape
        (None, 7, 7, 512)
    """
    architecture, tag = resolve(name)
    config = CATALOG[architecture]
    known = pretrained_weights(f"{architecture}.{tag}") if tag else None
    location = _location(architecture, tag, weights)
    if location == "pretrained":
        known = known or pretrained_weights(architecture)
    choices = Choices(
        input_shape=_input_shape(architecture, input_shape, known),
        num_classes=_num_classes(architecture, num_classes, known),
        include_top=include_top,
        features_only=features_only,
        drop_path_rate=drop_path_rate,
        drop_block_rate=drop_block_rate,
        dropout_rate=dropout_rate,
        output_stride=output_stride,
        execution=execution,
        remat=remat,
        name=architecture,
    )
    model = build(config, choices)
    if location is not None:
        # A head for other classes than the checkpoint's is new; asked for with as many it must fit.
        new_head = num_classes is not None and (known is None or known.num_classes != num_classes)
        place = address(known) if location == "pretrained" and known else location
        load_weights(model, place, new_head=new_head)
    return model


def feature_strides(model: keras.Model) -> dict[str, int]:
    """Returns the stride of each feature map of a `features_only` model, in pixels of the picture.

    Args:
        model: A model of `create_model(…, features_only=True)`, new or loaded.

    Raises:
        ValueError: If the model's output is not a dictionary of maps.

    Example:
        >>> feature_strides(create_model("resnet18", features_only=True))
        {'stem': 2, 'stage1': 4, 'stage2': 8, 'stage3': 16, 'stage4': 32}
    """
    outputs = model.output
    if not isinstance(outputs, dict) or "stem" not in outputs:
        raise bad_argument("feature_strides", "model", "built with features_only=True", model.name)
    side = 2 if keras.config.image_data_format() == "channels_first" else 1
    given = tuple(model.inputs[0].shape)
    shape = (1, *(_SOME_SIZE if size is None else size for size in given[1:]))
    maps: Any = model.compute_output_spec(keras.KerasTensor(shape))
    # Each stage halves the map, rounding up.
    strides = {name: 2 ** round(math.log2(shape[side] / value.shape[side])) for name, value in maps.items()}
    return {name: strides[name] for name in sorted(strides, key=lambda name: (name != "stem", natural_key(name)))}


def convert_checkpoint(
    location: str | Path,
    name: str,
    *,
    input_shape: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    strict: bool = False,
) -> keras.Model:
    """Returns a model with a checkpoint's weights that takes pictures with values 0..255.

    The number of classes is that of the checkpoint. The model standardises pictures itself; resize and crop them
    before, see `Preprocessing`.

    Args:
        location: Where the weights are, see `load_weights`.
        name: Architecture, with or without a tag; a tag determines how pictures are standardised.
        input_shape: `(height, width, channels)`. None: (32, 32, 3) for networks on small pictures, else the size that
            the weights of the tag expect, or (224, 224, 3).
        mean: Mean of each channel, subtracted from pictures with values 0..1; None for that of the tag, or ImageNet's.
        std: Standard deviation by which each channel is divided; None likewise.
        strict: Whether weights that no training produces are refused instead of warned about, see `load_weights`.

    Raises:
        CheckpointError: If the weights cannot be read or are those of another architecture.
        ValueError: For an unknown name.

    Reference:
        Common checkpoints for small pictures: https://github.com/akamaster/pytorch_resnet_cifar10
    """
    architecture, tag = resolve(name)
    known = pretrained_weights(f"{architecture}.{tag}") if tag else None
    family = family_of(architecture)
    if family in ("other", "resnet3d"):
        raise bad_argument("convert_checkpoint", "name", "a network on pictures that other libraries have too", name)
    size = (32, 32) if family == "cifar" else known.input_size if known else (224, 224)
    shape = input_shape or (size[0], size[1], 3)
    found = open_location(location)
    network = create_model(
        architecture,
        input_shape=_in_data_format(shape),
        num_classes=_classes_of(found.tensors, architecture, found.source),
        weights=None,
    )
    set_weights(network, found.tensors, source=found.source, strict=strict)
    mean = mean if mean is not None else known.mean if known else IMAGENET_MEAN
    std = std if std is not None else known.std if known else IMAGENET_STD
    inputs = keras.Input(shape, name="pictures")
    variance = np.square(255 * np.asarray(std))
    standardise = keras.layers.Normalization(mean=255 * np.asarray(mean), variance=variance, name="standardise")
    hidden = standardise(inputs)
    if keras.config.image_data_format() == "channels_first":
        hidden = keras.layers.Permute((3, 1, 2), name="channels_first")(hidden)
    return keras.Model(inputs, network(hidden), name=f"{architecture}_on_pictures")


def resolve(name: Any) -> tuple[str, str | None]:
    """Returns the architecture and the tag that a name stands for, which may be another library's name.

    Raises:
        ValueError: For an unknown one, with the nearest.
    """
    if not isinstance(name, str):
        raise wrong_type(_OWNER, "name", "the name of a model", name)
    if name in CATALOG:
        return name, None
    target = resolve_alias(name)
    if target is None and name in ALIASES:
        alias = ALIASES[name]
        raise bad_argument(
            _OWNER, "name", "of a network in this library", name, f"{alias.note} The nearest is {alias.target!r}."
        )
    architecture, _, tag = (target or name).partition(".")
    if architecture not in CATALOG:
        raise unknown_name(_OWNER, "name", name, [*CATALOG, *(list_models(pretrained=True) if tag else [])])
    if tag and tag not in pretrained_tags(architecture):
        allowed = [f"{architecture}.{known}" for known in pretrained_tags(architecture)] or [architecture]
        raise unknown_name(_OWNER, "name", name, allowed)
    return architecture, tag or None


def _location(architecture: str, tag: str | None, weights: str | Path | None) -> str | Path | None:
    if weights is not None and not isinstance(weights, (str, Path)):
        raise wrong_type(_OWNER, "weights", "'auto', 'pretrained', None or a place", weights)
    if weights == "auto":
        return "pretrained" if tag else None
    return weights


def address(known: PretrainedWeights) -> str:
    """Returns the place on the Hugging Face Hub of a set of pretrained weights.

    Raises:
        ValueError: If they are not there.
    """
    if known.hf_hub_id is not None:
        return f"hf://{known.hf_hub_id}"
    way_out = f"Download {known.url} and pass weights= the file." if known.url else "Pass weights= a file, or None."
    raise bad_argument(_OWNER, "weights", "on the Hugging Face Hub, or a file", known.name, way_out)


def _input_shape(
    architecture: str, shape: tuple[int | None, ...] | None, known: PretrainedWeights | None
) -> tuple[int | None, ...]:
    if shape is not None:
        return shape
    if not is_for_imagenet(architecture):
        raise bad_argument(_OWNER, "input_shape", f"given for {architecture!r}, for example (32, 32, 3)", shape)
    size = known.input_size if known else (224, 224)
    return (3, *size) if keras.config.image_data_format() == "channels_first" else (*size, 3)


def _num_classes(architecture: str, num_classes: int | None, known: PretrainedWeights | None) -> int:
    if num_classes is not None:
        return num_classes
    if not is_for_imagenet(architecture):
        raise bad_argument(_OWNER, "num_classes", f"given for {architecture!r}", num_classes)
    return known.num_classes if known and known.num_classes else 1000


def _in_data_format(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    first = keras.config.image_data_format() == "channels_first"
    return (shape[2], shape[0], shape[1]) if first else shape


def _classes_of(tensors: dict[str, np.ndarray], architecture: str, source: str) -> int:
    """Returns the number of classes of a checkpoint's head."""
    heads = [head for head in ("fc", "head.fc", "last_linear", "linear") if f"{head}.bias" in tensors]
    if len(heads) != 1:
        what = f"it does not have exactly one head of a kind that {architecture!r} has ({len(heads)} candidates)"
        raise bad_checkpoint(source, what, "Is it the checkpoint of a classifier? Use load_weights for a backbone.")
    bias, kernel = (np.shape(tensors.get(f"{heads[0]}.{leaf}", ())) for leaf in ("bias", "weight"))
    # Before a head is built: a tiny file may claim so many classes that their kernel would fill the memory.
    if len(bias) != 1 or kernel[:1] != bias or math.prod(kernel) < _LEAST_FEATURES * bias[0]:
        what = f"its head {heads[0]!r} is inconsistent: the bias has the shape {bias} and the kernel {kernel}"
        raise bad_checkpoint(source, what, "Is it the checkpoint of a classifier?")
    return bias[0]
