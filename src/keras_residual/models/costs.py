"""What a network costs for one input, its weights, multiply-adds and activations, without running it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras

from keras_residual._errors import bad_argument, wrong_type
from keras_residual._keras import UNINITIALIZED, get_global_attribute, set_global_attribute
from keras_residual._types import Shape
from keras_residual.graph.nodes import nodes_of
from keras_residual.layers.channel_attention import EfficientChannelAttention, SqueezeExcite
from keras_residual.layers.composite_conv import MultiScaleConv2D
from keras_residual.layers.split_attention import SelectiveKernel2D, SplitAttention2D
from keras_residual.models.builder import build
from keras_residual.models.catalog import CATALOG, usual_input
from keras_residual.models.config import Choices
from keras_residual.residual.residual import Residual
from keras_residual.residual.shapes import output_shape, spatial_axes, sublayers
from keras_residual.residual.shortcuts import Shortcut
from keras_residual.stacks.pattern import GivenBlocks
from keras_residual.stacks.stack import ResidualStack
from keras_residual.stacks.variables import shape_in_block

_OWNER = "costs"


@dataclass(frozen=True, slots=True)
class Costs:
    """The size of a network and its work for one input.

    Args:
        params: Number of weights that training changes, if nothing is frozen.
        statistics: Number of weights that training does not change: the means and variances of batch norms.
        macs: Multiply-adds of convolutions and dense layers. Norms, activations, pools and sums are not counted.
        activations: Number of values that convolutions and dense layers output.
    """

    params: int
    statistics: int
    macs: int
    activations: int

    @property
    def flops(self) -> int:
        """Floating-point operations of convolutions and dense layers: two a multiply-add."""
        return 2 * self.macs


def costs(model: keras.Model, input_shape: Sequence[int] | None = None) -> Costs:
    """Returns the size of a network and its work for one input; nothing is run or compiled.

    Args:
        model: A functional or sequential model of convolutions, dense layers, norms, pools and residual connections.
        input_shape: Shape of one input, without the batch, instead of the model's own; needed if that leaves a size
            open.

    Raises:
        ValueError: If the model has several inputs, a size is unknown, or a layer with a matrix of weights is of a kind
            that is not counted.
        TypeError: If `model` is neither a Functional model nor a built Sequential one.

    Example:
        >>> model = kr.create_model("cifar_resnet20", input_shape=(32, 32, 3), num_classes=10)
        >>> costs(model)
        Costs(params=269722, statistics=1376, macs=40551040, activations=188426)
    """
    if not isinstance(model, keras.Model) or not hasattr(model, "inputs"):
        raise wrong_type(_OWNER, "model", "a functional model, or a sequential one that is built", model)
    inputs = model.inputs or []
    if len(inputs) != 1:
        raise bad_argument(_OWNER, "model", "a built model of one input", f"{model.name!r} with {len(inputs)}")
    shape = tuple(inputs[0].shape[1:]) if input_shape is None else tuple(input_shape)
    if len(shape) != len(inputs[0].shape) - 1 or any(size is None for size in shape):
        way_out = f"The model {model.name!r} takes {tuple(inputs[0].shape[1:])}."
        raise bad_argument(_OWNER, "input_shape", "the known sizes of one input", shape, way_out)
    work = _Work()
    work.model(model, (None, *shape))
    params = _params(model)
    return Costs(params, _size(model.weights) - params, work.macs, work.activations)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The shapes and costs of a network that has no weights yet.

    Args:
        architecture: Its name in the catalogue.
        input_shape: Shape of one input, channels last.
        num_classes: Number of logits.
        maps: Shape of one input's map after each stage, as Keras's image data format has it; empty without stages.
        costs: Its costs for one input.
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
        input_shape: Shape of one input, channels last; None for the usual one, 224 pixels for ImageNet networks.
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
    # One of several equal blocks is enough; irregular ones must all be made.
    alike = getattr(config, "inner_widths", None) is None
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


@contextmanager
def without_initial_values() -> Iterator[None]:
    """Drops the variables created inside, which Keras would otherwise initialise when a scope ends."""
    before = list(get_global_attribute(UNINITIALIZED) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        set_global_attribute(UNINITIALIZED, before)


# --- Counting ---------------------------------------------------------------------------------------------------------


class _Work:
    """Adds up what layers compute. Methods that take a layer and the shape of its input return that of its output."""

    def __init__(self) -> None:
        self.macs = 0
        self.activations = 0

    def chain(self, layers: Iterable[Any], shape: Shape) -> Shape:
        """Counts layers one after another; None and numbers compute nothing here."""
        for layer in layers:
            if isinstance(layer, keras.Layer):
                shape = self.layer(layer, shape)
        return shape

    def layer(self, layer: keras.Layer, shape: Shape) -> Shape:
        """Counts one layer and what is in it."""
        rule = next((rule for kind, rule in _RULES.items() if isinstance(layer, kind)), None)
        if rule is not None:
            rule(self, layer, shape)
        else:
            self.no_matrices(layer)
        return output_shape(layer, shape)

    def no_matrices(self, layer: keras.Layer) -> None:
        """Raises if a layer without a rule has more than one weight a channel: they must be part of some product."""
        if any(math.prod(shape) > max(shape, default=1) for shape in map(shape_in_block, layer.weights)):
            rule = "made of convolutions, dense layers, norms and this library's own layers"
            raise bad_argument(_OWNER, "model", rule, f"{type(layer).__name__} {layer.name!r}")

    def model(self, model: Any, shape: Shape) -> None:
        """Counts every layer of a model at its place in the graph."""
        if isinstance(model, keras.Sequential):
            self.chain(model.layers, shape)
            return
        (given,) = model.inputs
        known: dict[int, Any] = {id(given): keras.KerasTensor(shape, dtype=given.dtype)}
        for node in nodes_of(model):
            if node.is_input:
                continue
            args, kwargs = node.arguments.fill_in(known)
            if isinstance(node.operation, keras.Layer):
                self.layer_of_node(node.operation, args)
            outputs = node.operation.compute_output_spec(*args, **kwargs)
            for made, found in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
                known[id(made)] = found

    def layer_of_node(self, layer: keras.Layer, args: Any) -> None:
        """Counts a layer of a graph; a layer with several inputs, such as a sum, is not a convolution."""
        if isinstance(args[0], keras.KerasTensor):
            self.layer(layer, tuple(args[0].shape))

    def kernel(self, kernel: Any, positions: int, outputs: int) -> None:
        """Counts a kernel that is applied at each of some positions."""
        self.macs += positions * math.prod(shape_in_block(kernel))
        self.activations += outputs


# --- Rules: what each kind of layer computes for an input of a shape --------------------------------------------------


def _positions(layer: Any, shape: Shape) -> int:
    axis = 1 if layer.data_format == "channels_first" else -1
    return math.prod(_known(shape[i]) for i in spatial_axes(len(shape), axis))


def _convolution(work: _Work, layer: Any, shape: Shape) -> None:
    # Every weight of a kernel (*sizes, channels in a group, filters) is used once a position, with groups too.
    output = output_shape(layer, shape)
    work.kernel(layer.kernel, _positions(layer, output), _values(output))


def _transposed_convolution(work: _Work, layer: Any, shape: Shape) -> None:
    work.kernel(layer.kernel, _positions(layer, shape), _values(output_shape(layer, shape)))


def _separable_convolution(work: _Work, layer: Any, shape: Shape) -> None:
    output = output_shape(layer, shape)
    positions = _positions(layer, output)
    work.kernel(layer.depthwise_kernel, positions, positions * math.prod(shape_in_block(layer.depthwise_kernel)[-2:]))
    work.kernel(layer.pointwise_kernel, positions, _values(output))


def _dense(work: _Work, layer: Any, shape: Shape) -> None:
    output = output_shape(layer, shape)
    work.kernel(layer.kernel, _values(output[:-1]), _values(output))


def _residual(work: _Work, layer: Residual, shape: Shape) -> None:
    shape = work.chain(layer.preactivation or (), shape)
    branch = work.chain([layer.pre_norm, *layer.branch, layer.out_norm, layer.branch_scale_layer], shape)
    skip = work.chain([layer.shortcut_layer, layer.skip_scale_layer], shape)
    merged = tuple(layer.merge_layer.compute_output_shape([skip, branch]))
    work.no_matrices(layer.merge_layer)
    work.chain([layer.post_norm, layer.activation], merged)


def _shortcut(work: _Work, layer: Any, shape: Shape) -> None:
    work.chain([getattr(layer, "pool", None), getattr(layer, "projection", None)], shape)


def _stack(work: _Work, layer: Any, shape: Shape) -> None:
    cells = layer._blocks.cells
    if cells[0].links or layer.topology.weights:
        rule = "made of stacks whose topology is 'single'"
        raise bad_argument(_OWNER, "model", rule, type(layer.topology).__name__)
    if isinstance(layer.pattern, GivenBlocks):
        for cell in cells:
            work.chain(cell.connections, shape)
        return
    block = _Work()
    block.chain(cells[0].connections, shape)
    work.macs += layer.depth * block.macs
    work.activations += layer.depth * block.activations


def _squeeze_excite(work: _Work, layer: Any, shape: Shape) -> None:
    work.chain([layer.reduce, layer.expand], (None, shape_in_block(layer.reduce.kernel)[0]))


def _channel_attention(work: _Work, layer: Any, shape: Shape) -> None:
    work.chain([layer.conv], (None, shape[layer.channel_axis], 1))


def _split_attention(work: _Work, layer: Any, shape: Shape) -> None:
    work.chain([layer.conv], shape)
    work.chain([layer.reduce, layer.expand], layer.pooled_shape(layer.filters))


def _selective_kernel(work: _Work, layer: Any, shape: Shape) -> None:
    _parallel(work, layer.path_convs, shape)
    work.chain([layer.reduce, layer.select], layer.pooled_shape(layer.filters))


def _multi_scale(work: _Work, layer: Any, shape: Shape) -> None:
    _parallel(work, layer.convs, shape)


def _parallel(work: _Work, convolutions: Iterable[Any], shape: Shape) -> None:
    # Each may see a part of the channels: how many, its kernel says.
    for convolution in convolutions:
        work.layer(convolution, shape)


_RULES: dict[Any, Callable[[_Work, Any, Shape], None]] = {
    Residual: _residual,
    ResidualStack: _stack,
    Shortcut: _shortcut,
    SqueezeExcite: _squeeze_excite,
    EfficientChannelAttention: _channel_attention,
    SplitAttention2D: _split_attention,
    SelectiveKernel2D: _selective_kernel,
    MultiScaleConv2D: _multi_scale,
    keras.Model: lambda work, model, shape: work.model(model, shape),
    keras.layers.Dense: _dense,
    (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D): _separable_convolution,
    (
        keras.layers.Conv1DTranspose,
        keras.layers.Conv2DTranspose,
        keras.layers.Conv3DTranspose,
    ): _transposed_convolution,
    (
        keras.layers.Conv1D,
        keras.layers.Conv2D,
        keras.layers.Conv3D,
        keras.layers.DepthwiseConv1D,
        keras.layers.DepthwiseConv2D,
    ): _convolution,
}
"""The first entry that a layer is an instance of applies."""


def _params(model: keras.Model) -> int:
    """Returns the number of weights meant to be trained, frozen or not."""
    # `trainable_variables` leaves out frozen ones; the list in which a layer keeps its variables does not.
    found = {id(variable): variable for layer in sublayers(model) for variable in layer._trainable_variables}
    return _size(found.values())


def _size(variables: Iterable[Any]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _values(shape: Shape) -> int:
    return math.prod(_known(size) for size in shape[1:])


def _known(size: int | None) -> int:
    if size is None:
        raise bad_argument(_OWNER, "input_shape", "one that determines every size inside", None)
    return size
