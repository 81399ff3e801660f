"""Self-attention whose values a stack can mix with those of its first block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from keras_residual._arguments import flag, owner_of, share, whole_number
from keras_residual._errors import bad_argument
from keras_residual._types import Shape, Tensor
from keras_residual.residual.configured import Configured
from keras_residual.residual.serialization import register


@register
class ValueResidualAttention(Configured):
    """Multi-head self-attention whose values a stack can mix with those of its first block.

    It does so with `topology="value_residual"`. Everywhere else this is plain self-attention, in each head
    `softmax(Q K^T / sqrt(key_dim)) V W_o`, where `Q`, `K` and `V` are projections of the input.

    Args:
        num_heads: Number of heads `h`.
        key_dim: Size `k` of a head's queries and keys.
        value_dim: Size `v` of a head's values; None for `key_dim`.
        dropout: Rate in `[0, 1)` at which attention weights are dropped in training.
        use_bias: Whether the projections have biases.
        causal: Whether each step attends only to itself and earlier steps.
        kernel_initializer: Initializer of the four kernels, `(channels, h * k)` twice, `(channels, h * v)` and
            `(h * v, channels)`.
        bias_initializer: Initializer of the biases.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, time, channels)`.
        training: Whether to drop.
        mask: `(batch, time)`; no step attends to one where it is False. It is passed on.
        attention_mask: `(batch, time, time)` or `(time, time)`; where it is False the step of the row does not attend
            to that of the column.

    Output shape:
        The shape of the input.

    Raises:
        ValueError: For numbers out of their range; when built, for an input that is not a sequence.

    Example:
        >>> kr.ValueResidualAttention(num_heads=2, key_dim=4, causal=True)(np.ones((1, 5, 8))).shape
        (1, 5, 8)

    Reference:
        Vaswani et al., Attention Is All You Need, 2017. https://arxiv.org/abs/1706.03762, section 3.2
        Zhou et al., Value Residual Learning, 2024. https://arxiv.org/abs/2410.17897
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        causal: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        owner = owner_of(self)
        self.num_heads = whole_number(owner, "num_heads", num_heads)
        self.key_dim = whole_number(owner, "key_dim", key_dim)
        self.value_dim = None if value_dim is None else whole_number(owner, "value_dim", value_dim)
        self.dropout = share(owner, "dropout", dropout)
        self.use_bias = flag(owner, "use_bias", use_bias)
        self.causal = flag(owner, "causal", causal)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        # Copies: an initializer that several weights share would give them the same values. They and the dropout are
        # made at once, for their seeds: what a stack gives the copies of a block follows from those.
        self._initializers = {
            part: (_copy(self.kernel_initializer), _copy(self.bias_initializer))
            for part in ("query", "key", "value", "output")
        }
        self.supports_masking = True
        self.drop = None
        if self.dropout:
            self.drop = self._made("drop", keras.layers.Dropout(self.dropout, dtype=self.dtype_policy, name="drop"))
        self._mix: Callable[[Any], Any] | None = None

    @property
    def value_shape(self) -> tuple[int, int]:
        """Number of heads, and size of the values of one."""
        return self.num_heads, self.value_dim or self.key_dim

    def build(self, input_shape: Shape) -> None:
        """Makes the projections."""
        channels = input_shape[-1]
        if len(input_shape) != 3 or channels is None:
            rule = "a sequence (batch, time, channels) with a known number of channels"
            raise bad_argument(owner_of(self), "inputs", rule, tuple(input_shape))
        width = self.num_heads * self.value_shape[1]
        self.query = self._projection("query", self.num_heads * self.key_dim, input_shape)
        self.key = self._projection("key", self.num_heads * self.key_dim, input_shape)
        self.value = self._projection("value", width, input_shape)
        self.output_projection = self._projection("output", channels, (*input_shape[:-1], width))

    def _projection(self, name: str, units: int, input_shape: Shape) -> keras.layers.Dense:
        kernel_initializer, bias_initializer = self._initializers[name]
        made = keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            dtype=self.dtype_policy,
            name=name,
        )
        made = self._made(name, made)
        made.build(input_shape)
        return made

    @contextmanager
    def mixing_values(self, mix: Callable[[Any], Any]) -> Iterator[None]:
        """Makes calls within the scope attend with `mix(values)`; values are `(batch, time, heads, value_dim)`."""
        self._mix = mix
        try:
            yield
        finally:
            self._mix = None

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Any = None, attention_mask: Any = None
    ) -> Tensor:
        """Returns the attended values, projected back to the channels of the inputs."""
        query, key, value = (
            self._heads(layer(inputs), size)
            for layer, size in ((self.query, self.key_dim), (self.key, self.key_dim), (self.value, self.value_shape[1]))
        )
        if self._mix is not None:
            value = self._mix(value)
        # In float32, whatever the policy: a half-precision softmax over many steps loses the small weights.
        logits: Tensor = ops.cast(ops.einsum("bthk,bshk->bhts", query * self.key_dim**-0.5, key), "float32")
        allowed = self._allowed(logits.shape, mask, attention_mask)
        if allowed is not None:
            # Not -inf: a step that may attend to nothing gets the mean of all values instead of nan.
            logits = ops.where(allowed, logits, -1e30)
        weights = ops.cast(ops.softmax(logits, axis=-1), value.dtype)
        if self.drop is not None:
            weights = self.drop(weights, training=training)
        attended = ops.einsum("bhts,bshv->bthv", weights, value)
        shape: Any = ops.shape(attended)
        return self.output_projection(ops.reshape(attended, (*shape[:2], self.num_heads * self.value_shape[1])))

    def _heads(self, projected: Any, size: int) -> Any:
        shape: Any = ops.shape(projected)
        return ops.reshape(projected, (*shape[:2], self.num_heads, size))

    def _allowed(self, shape: Any, mask: Any, attention_mask: Any) -> Any:
        """Returns what may be attended to, of the rank of the logits `(batch, heads, time, time)`; None for all."""
        found: list[Any] = []
        if mask is not None:
            steps: Any = ops.cast(mask, "bool")
            found.append(steps[:, None, None, :])
        if attention_mask is not None:
            given: Any = ops.cast(attention_mask, "bool")
            found.append(given[:, None] if len(given.shape) == 3 else given[None, None])
        if self.causal:
            steps = ops.arange(shape[-1])
            found.append((steps[:, None] >= steps[None, :])[None, None])
        allowed = None
        for part in found:
            allowed = part if allowed is None else ops.logical_and(allowed, part)
        return allowed

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the input."""
        return tuple(input_shape)


def _copy(initializer: Any) -> Any:
    """Returns a new initializer of the same configuration; one without a seed then draws other values."""
    if isinstance(initializer, keras.initializers.Initializer):
        return type(initializer).from_config(initializer.get_config())
    return initializer
