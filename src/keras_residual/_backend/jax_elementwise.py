"""What a scan on JAX keeps of each block for the gradient: what is costly to compute, and not what follows from it.

By default JAX keeps whatever the gradient of any operation reads: of a convolution, a norm and a ReLU the result of
each. All but the convolution's take less time to compute again than memory takes to hold them.
"""

from __future__ import annotations

from typing import Any

ARITHMETIC = {"abs", "add", "clamp", "div", "integer_pow", "max", "min", "mul", "neg", "rem", "sign", "square", "sub"}
FUNCTIONS = {
    *("cbrt", "cos", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "log", "log1p", "logistic", "pow", "rsqrt"),
    *("sin", "sqrt", "tan", "tanh"),
}
ROUNDING = {"bitcast_convert_type", "ceil", "convert_element_type", "floor", "reduce_precision", "round"}
BITS = {"and", "not", "or", "shift_left", "shift_right_arithmetic", "shift_right_logical", "xor"}
COMPARISONS = {"eq", "ge", "gt", "is_finite", "le", "ne", "select_n"}
MOVES = {
    *("broadcast_in_dim", "copy", "expand_dims", "iota", "pad", "reshape", "rev", "slice", "squeeze", "stop_gradient"),
    "transpose",
}
ELEMENTWISE = frozenset(ARITHMETIC | FUNCTIONS | ROUNDING | BITS | COMPARISONS | MOVES)
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
