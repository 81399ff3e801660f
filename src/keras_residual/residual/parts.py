"""How a connection makes its parts from its arguments: norms, scales, the shortcut inferred from the branch, the merge.

Each is made when the connection is built, since only then the shapes are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_residual._arguments import owner_of
from keras_residual._errors import bad_argument, shape_mismatch
from keras_residual._types import Shape
from keras_residual.residual import chain, shapes
from keras_residual.residual.merges import MERGES, Merge
from keras_residual.residual.merges.base import needs_equal_shapes
from keras_residual.residual.norms import make_norm
from keras_residual.residual.scales import NAMED_FACTORS, SCALES, LayerScale
from keras_residual.residual.shapes import Resampling
from keras_residual.residual.shortcuts import SHORTCUTS, Shortcut

_KERAS_ELEMENTWISE = (
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
)


def input_shape_and_axis(connection: Any, inputs_shape: Any) -> tuple[Shape, int]:
    """Returns the shape that a connection is built for, and its channel axis, `1` or `-1`.

    Raises:
        ValueError: For an input that is not one tensor, has no channels, or whose number of channels is not known.
    """
    if not inputs_shape or not all(size is None or isinstance(size, int) for size in inputs_shape):
        rule = "one tensor of shape (batch, …, channels)"
        way_out = "Merge several tensors, or choose one, before."
        raise bad_argument(owner_of(connection), "inputs", rule, inputs_shape, way_out)
    # Only a layer that keeps a state for each sample needs the size of the batch.
    shape = (inputs_shape[0] if shapes.stateful(connection) else None, *inputs_shape[1:])
    axis = shapes.channel_axis([*(connection.preactivation or ()), *connection.branch], len(shape))
    if len(shape) < 2 or shape[axis] is None:
        rule = "a tensor (batch, …, channels) with a known number of channels"
        raise bad_argument(owner_of(connection), "inputs", rule, tuple(inputs_shape))
    return shape, axis


class PartsBuilder:
    """Makes and builds the parts of one connection.

    Args:
        connection: The `Residual`.
        axis: Its channel axis, `1` or `-1`.
        argument_shapes: Shapes of the tensors that its calls are given by name.
    """

    def __init__(self, connection: Any, axis: int, argument_shapes: Mapping[str, Any]) -> None:
        self.connection = connection
        self.owner = owner_of(connection)
        self.axis = axis
        self.argument_shapes = argument_shapes

    def chain(self, argument: str, layers: Sequence[keras.Layer], shape: Shape) -> Shape:
        """Builds layers in a row, given as `argument`, and returns the shape of their output."""
        return chain.build(self.owner, argument, layers, shape, self.connection.compute_dtype, self.argument_shapes)

    def shape_preserving(self, argument: str, layer: keras.Layer, shape: Shape) -> None:
        """Builds a layer, given as `argument`; raises a `ValueError` where its output has another shape."""
        output = self.chain(argument, [layer], shape)
        if output != shape:
            rule = f"a layer that keeps the shape, {shape}"
            raise bad_argument(self.owner, argument, rule, layer.name, f"It returns {output}.")

    def norm(self, position: str, shape: Shape) -> keras.Layer | None:
        """Returns the norm of a position, `"pre"`, `"out"` or `"post"`; None where it has none."""
        positions, norm = self.connection._norm_positions, self.connection.norm
        if position not in positions:
            return None
        if isinstance(norm, keras.Layer):
            on = getattr(norm, "axis", self.axis)
            if self.axis == 1 and on not in (1, [1], (1,)):
                rule = "a norm on the channels, which the branch has in axis 1"
                raise bad_argument(self.owner, "norm", rule, on, "Pass axis=1 to it, or the norm's name here.")
        # Every position has a norm of its own; one that has weights already serves the first.
        if not isinstance(norm, keras.Layer) or not norm.built or position != positions[0]:
            channels, policy = int(shape[self.axis] or 0), self.connection.dtype_policy
            norm = make_norm(norm, channels=channels, axis=self.axis, name=f"{position}_norm", dtype=policy)
        norm = self.connection._made(f"{position}_norm", norm)
        self.shape_preserving("norm", norm, shape)
        return norm

    def scale(self, argument: str, shape: Shape) -> keras.Layer | float | None:
        """Returns the scale of a path, given as `argument`: a layer, a number, or None."""
        value = getattr(self.connection, argument)
        if isinstance(value, str):
            if value in NAMED_FACTORS:
                return NAMED_FACTORS[value]
            scale_class = SCALES[value]
            keywords = {"axis": self.axis} if scale_class is LayerScale else {}
            value = scale_class(**keywords, name=argument, dtype=self.connection.dtype_policy)
            value = self.connection._made(f"{argument}_layer", value)
        if isinstance(value, keras.Layer):
            self.shape_preserving(argument, value, shape)
        return value

    # --- The shortcut ------------------------------------------------------------------------------------------------

    def shortcut(self, merge: keras.Layer, path: list[keras.Layer], shape: Shape, branch_shape: Shape) -> Any:
        """Returns the shortcut, inferred from the branch where it was left open; None for the identity.

        Args:
            merge: The merge layer, which says whether both paths must have one shape.
            path: The layers of the branch, with the norm before it.
            shape: Shape of what goes to both paths.
            branch_shape: Shape of the branch's output.
        """
        shortcut, axis = self.connection.shortcut, self.axis
        if isinstance(shortcut, keras.Layer) and not isinstance(shortcut, Shortcut):
            self.chain("shortcut", [shortcut], shape)
            return shortcut
        if shortcut == "identity":
            return None
        if len(shape) != len(branch_shape):
            way_out = (
                "No shortcut can be inferred between ranks: pass `shortcut=` a layer that makes the branch's shape."
            )
            raise shape_mismatch(self.owner, "the input", shape, "the branch's output", branch_shape, way_out)
        filters = branch_shape[axis] if needs_equal_shapes(merge) else shape[axis]
        sizes = shapes.spatial_sizes(path, shape, branch_shape, axis)
        changes = [shapes.infer_resampling(pairs) for pairs in sizes]
        keeps_shape = filters == shape[axis] and all(change is not None and change.keeps_size for change in changes)
        if keeps_shape and (shortcut == "auto" or not getattr(shortcut, "always", True)):
            return None
        if None in changes and getattr(shortcut, "strides", None) is None:
            raise self._no_resampling(shape, branch_shape, sizes[changes.index(None)])
        return self._inferred(shortcut, shape, filters, changes)

    def _inferred(
        self, shortcut: Any, shape: Shape, filters: int | None, changes: Sequence[Resampling | None]
    ) -> Shortcut:
        if isinstance(shortcut, str):
            name = "projection" if shortcut == "auto" else shortcut
            shortcut = SHORTCUTS[name](name="shortcut", dtype=self.connection.dtype_policy)
            shortcut = self.connection._made("shortcut_layer", shortcut)
        shortcut.infer(filters=filters, resampling=changes, axis=self.axis)
        if not shortcut.built:
            shortcut.build(shape)
        return shortcut

    def _no_resampling(self, shape: Shape, branch_shape: Shape, pairs: list[tuple[int, int]]) -> ValueError:
        return shape_mismatch(
            self.owner,
            "the input",
            shape,
            "the branch's output",
            branch_shape,
            f"No shortcut can be inferred: the branch takes sizes of {_listed(n for n, _ in pairs)} to "
            f"{_listed(m for _, m in pairs)}, which is neither a stride nor a whole factor. Pass padding='same' to the "
            "branch's layers, or `shortcut=` a layer that makes the branch's shape, such as a cropping layer.",
        )

    # --- The merge ---------------------------------------------------------------------------------------------------

    def merge(self) -> keras.Layer:
        """Returns the merge layer, not built."""
        merge = self.connection.merge
        if not isinstance(merge, str):
            return merge
        made = MERGES[merge](axis=self.axis, name="merge", dtype=self.connection.dtype_policy)
        return self.connection._made("merge_layer", made)

    def build_merge(self, merge: keras.Layer, shape: Shape, *paths: tuple[list[keras.Layer], Shape]) -> Shape:
        """Builds the merge layer and returns the shape of its output.

        Args:
            merge: The merge layer.
            shape: Shape of what goes to both paths.
            *paths: The layers of the skip path and of the branch, each with the shape of its output.

        Raises:
            ValueError: If the two shapes cannot be merged.
        """
        pair = [made for _, made in paths]
        if isinstance(merge, (Merge, *_KERAS_ELEMENTWISE)) and needs_equal_shapes(merge):
            skip, branch = _probed_shapes(shape, *paths)
            if not shapes.agree(skip, branch):
                way_out = "Pass shortcut='projection', or a layer that makes the branch's shape."
                raise shape_mismatch(self.owner, "the shortcut's output", skip, "the branch's output", branch, way_out)
        try:
            if not merge.built:
                merge.build(pair)
            return tuple(merge.compute_output_shape(pair))
        except Exception as error:
            way_out = f"{type(error).__name__}: {error}"
            rule = f"a layer that can be called with [skip, branch], of shapes {pair[0]} and {pair[1]}"
            raise bad_argument(self.owner, "merge", rule, merge.name, way_out) from error


def _probed_shapes(shape: Shape, *paths: tuple[list[keras.Layer], Shape]) -> list[Shape]:
    """Returns the two shapes, for a size at which they differ where the size is not known and there is one."""
    made = [output for _, output in paths]
    if shapes.agree(*made) and None in shape[1:]:
        for probe in shapes.probes(shape):
            try:
                found = [shapes.chain_output_shape(layers, probe) for layers, _ in paths]
            except Exception:
                break  # a layer for other sizes
            if not shapes.agree(*found):
                return found
    return made


def _listed(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, list(sizes)[:3]))
