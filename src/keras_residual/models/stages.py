"""What the networks in stages have in common: strides and dilations, the rates of stochastic depth, and their ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_residual._arguments import share
from keras_residual._errors import bad_argument
from keras_residual.models.parts import Parts
from keras_residual.residual.residual import Residual
from keras_residual.stacks.stack import ResidualStack

OUTPUT_STRIDES = (8, 16, 32)
SCANNED_FROM = 48
"""Equal blocks in a row from which a model by name leaves it to `execution="auto"` whether they are scanned.

With fewer they are layers of their own, as in any Keras model: to be frozen, quantised or given adapters one by one.
With more, JAX takes minutes to compile them.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockPlace:
    """Where a block stands: what differs between the blocks of a network.

    Args:
        stage: Its stage, from 0.
        block: Its index in the stage, from 0.
        strides: Its stride.
        dilation: Dilation of the stage's convolutions.
        first_dilation: Dilation of the block's first spatial convolution.
        drop_path_rate: Its rate of stochastic depth.
    """

    stage: int
    block: int
    strides: int
    dilation: int = 1
    first_dilation: int = 1
    drop_path_rate: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What a user chooses for a network beside its architecture.

    Args:
        input_shape: `(*sizes, channels)`, or channels first where Keras is set so; sizes may be None.
        num_classes: Number of logits.
        include_top: Whether pooling and head are there; without them the output is the last map.
        features_only: Whether the output is a dictionary with the maps of the stem and of each stage.
        drop_path_rate: Rate of the last block, in `[0, 1)`; it rises linearly from 0 at the first.
        drop_block_rate: DropBlock's rate in the last two stages, in `[0, 1)`.
        dropout_rate: Rate in `[0, 1)` of the dropout before the head.
        output_stride: 8, 16 or 32: later strides become dilations. For networks whose stride would be 32.
        execution: How the equal blocks of each stage are executed, see `ResidualStack`; None for `SCANNED_FROM`'s rule.
        remat: Which of their activations are recomputed in the backward pass, see there.
        name: Name of the model.
        owner: What the user called, for messages.
    """

    input_shape: tuple[int | None, ...]
    num_classes: int
    include_top: bool = True
    features_only: bool = False
    drop_path_rate: float = 0.0
    drop_block_rate: float = 0.0
    dropout_rate: float = 0.0
    output_stride: int = 32
    execution: str | None = None
    remat: bool | str = False
    name: str | None = None
    owner: str = "create_model"

    def __post_init__(self) -> None:
        if isinstance(self.input_shape, list):
            object.__setattr__(self, "input_shape", tuple(self.input_shape))

    def check(self, rank: int) -> None:
        """Raises where a choice breaks its rule, for a network with so many spatial dimensions."""
        owner = self.owner
        forms = {1: "(length, channels)", 2: "(height, width, channels)", 3: "(depth, height, width, channels)"}
        check_input_shape(owner, self.input_shape, forms[rank], rank + 1)
        self.check_num_classes()
        for argument in ("drop_path_rate", "drop_block_rate", "dropout_rate"):
            share(owner, argument, getattr(self, argument))
        if self.output_stride not in OUTPUT_STRIDES:
            raise bad_argument(owner, "output_stride", "8, 16 or 32", self.output_stride)

    def check_num_classes(self) -> None:
        """Raises where the number of classes is none."""
        if isinstance(self.num_classes, bool) or not isinstance(self.num_classes, int) or self.num_classes < 1:
            rule = "a positive whole number"
            raise bad_argument(self.owner, "num_classes", rule, self.num_classes, "Without a head: include_top=False.")


def places(
    depths: Sequence[int], *, stem_stride: int, output_stride: int, drop_path_rate: float
) -> list[list[BlockPlace]]:
    """Returns where each block of each stage stands.

    Args:
        depths: Number of blocks in each stage; each stage after the first halves the map.
        stem_stride: Stride of what comes before the first stage.
        output_stride: From this stride on, halving becomes dilation.
        drop_path_rate: Rate of the last block, rising linearly from 0 at the first.
    """
    last, done, stride, dilation, previous = max(sum(depths) - 1, 1), 0, stem_stride, 1, 1
    found = []
    for stage, depth in enumerate(depths):
        strides = 1 if stage == 0 else 2
        if stride >= output_stride:
            dilation, strides = dilation * strides, 1
        stride *= strides
        blocks = []
        for block in range(depth):
            blocks.append(
                BlockPlace(
                    stage=stage,
                    block=block,
                    strides=strides if block == 0 else 1,
                    dilation=dilation,
                    first_dilation=previous,
                    drop_path_rate=drop_path_rate * done / last,
                )
            )
            previous, done = dilation, done + 1
        found.append(blocks)
    return found


def apply_stage(
    x: Any,
    blocks: Sequence[BlockPlace],
    make: Callable[[BlockPlace, str], Residual],
    *,
    alike: bool,
    execution: str | None,
    remat: bool | str,
) -> Any:
    """Returns the map after a stage: its first block, which changes the shape or may, and a stack of the others.

    Args:
        x: The map before the stage.
        blocks: Where its blocks stand.
        make: Makes the block of a place, with a name.
        alike: Whether all blocks after the first have the same widths.
        execution: As in `Choices`.
        remat: As in `ResidualStack`.
    """
    first, rest, stage = blocks[0], blocks[1:], blocks[0].stage + 1
    x = make(first, f"stage{stage}_block1")(x)
    if not rest:
        return x
    rates = [place.drop_path_rate for place in rest]
    # The stack sets the rates, so that they may differ within one compiled block.
    still = [replace(place, drop_path_rate=0.0) for place in rest]
    block: Any = make(still[0], "block") if alike else lambda index: make(still[index], "block")
    name = f"stage{stage}_blocks"
    return stacked(block, len(rest), execution, drop_path_rate=rates, remat=remat, name=name)(x)


def stacked(block: Any, depth: int, execution: str | None, **choices: Any) -> ResidualStack:
    """Returns a stack of a model by name, executed as `Choices` has it; other arguments as in `ResidualStack`."""
    if execution is not None:
        return ResidualStack(block, depth, execution=execution, **choices)
    few = depth < SCANNED_FROM
    stack = ResidualStack(block, depth, execution="unrolled" if few else "auto", **choices)
    if few:
        stack.execution_reason = "a model by name has each of its layers where Keras reaches it, unless asked otherwise"
    return stack


def finish(inputs: Any, x: Any, features: dict[str, Any], choices: Choices, parts: Parts, head: Any) -> keras.Model:
    """Returns the model from its inputs to what was chosen: logits, the last map, or the maps of all stages.

    Args:
        inputs: The model's input.
        x: The last map.
        features: Maps by name.
        choices: What the user chose.
        parts: Of which the pooling is made.
        head: Initializer of the head's kernel.
    """
    if choices.features_only:
        return keras.Model(inputs, features, name=choices.name)
    if not choices.include_top:
        return keras.Model(inputs, x, name=choices.name)
    x = parts.global_average_pool("pool")(x)
    if choices.dropout_rate:
        x = keras.layers.Dropout(choices.dropout_rate, name="dropout")(x)
    logits = keras.layers.Dense(choices.num_classes, kernel_initializer=head, name="head")(x)
    return keras.Model(inputs, logits, name=choices.name)


def check_input_shape(owner: str, shape: Any, form: str, length: int) -> None:
    """Raises where something is not the shape of one input.

    Args:
        owner: What the user called.
        shape: What was given.
        form: The sizes in words, such as `"(height, width, channels)"`.
        length: How many there are.

    Raises:
        ValueError: If it is no such shape.
    """
    if not isinstance(shape, tuple) or len(shape) != length or not all(map(_is_size, shape)):
        raise bad_argument(owner, "input_shape", form, shape)
    channels = 0 if keras.config.image_data_format() == "channels_first" and length > 2 else -1
    if shape[channels] is None:
        raise bad_argument(owner, "input_shape", f"{form} with a known number of channels", shape)


def _is_size(size: object) -> bool:
    return size is None or (isinstance(size, (int, np.integer)) and not isinstance(size, bool) and int(size) >= 1)
