"""What a scan on JAX keeps of each block for the gradient: what is costly to compute, and not what follows from it.

By default JAX keeps whatever the gradient of any operation reads: of a convolution, a norm and a ReLU the result of
each. All but the convolution's take less time to compute again than memory takes to hold them.
"""

from __future__ import annotations

from typing import Any

ELEMENTWISE = frozenset(
    """
    abs add and bitcast_convert_type broadcast_in_dim cbrt ceil clamp convert_element_type copy cos div eq erf erf_inv
    erfc exp exp2 expand_dims expm1 floor ge gt integer_pow iota is_finite le log log1p logistic max min mul ne neg not
    or pad pow reduce_precision rem reshape rev round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin slice sqrt square squeeze stop_gradient sub tan tanh transpose xor
    """.split()
)
"""Operations whose result is computed again.

`lt` is not among them: by it dropout compares random numbers, and a mask of bytes takes less memory than these.
"""

_CALLS = frozenset({"custom_jvp_call", "jit", "pjit"})


def is_costly(primitive: Any, *_: Any, **parameters: Any) -> bool:
    """Returns whether the result of an operation is to be kept: a policy of `jax.checkpoint`."""
    if primitive.name in _CALLS:
        program = parameters.get("call_jaxpr") or parameters["jaxpr"]
        return any(is_costly(equation.primitive, **equation.params) for equation in program.eqns)
    return primitive.name not in ELEMENTWISE
