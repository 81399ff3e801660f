"""Makes a scan on JAX keep only the costly results of each block for the gradient, and recompute the others.

By default JAX keeps whatever the gradient of any operation reads: of a convolution, a norm and a ReLU the result of
each. On the CPU all but the convolution's mostly take less time to recompute than to keep in memory. XLA does not
change that: it leaves the residuals of a scan alone (https://github.com/jax-ml/jax/pull/6639). This file can go when
JAX has such a policy of its own for a scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax

from keras_residual._types import Tree

ARITHMETIC = {"abs", "add", "clamp", "div", "integer_pow", "max", "min", "mul", "neg", "rem", "sign", "square", "sub"}
FUNCTIONS = {
    *("cbrt", "cos", "erf", "erfc", "exp", "exp2", "expm1", "log", "log1p", "logistic", "pow", "rsqrt", "sin", "sqrt"),
    *("tan", "tanh"),
}
ROUNDING = {"bitcast_convert_type", "ceil", "convert_element_type", "floor", "reduce_precision", "round"}
BITS = {"and", "not", "or", "shift_left", "shift_right_arithmetic", "shift_right_logical", "xor"}
COMPARISONS = {"eq", "ge", "gt", "is_finite", "le", "ne", "select_n"}
MOVES = {
    *("broadcast_in_dim", "copy", "expand_dims", "iota", "pad", "reshape", "rev", "slice", "squeeze", "stop_gradient"),
    "transpose",
}
CHEAP = frozenset(ARITHMETIC | FUNCTIONS | ROUNDING | BITS | COMPARISONS | MOVES)
"""Operations whose result is recomputed.

Without `erf_inv`, which normal noise needs, and `lt`, by which dropout compares random numbers: noise, or a mask of
bytes, takes no more memory than the bits it is computed from, and more time.
"""

_CALLS = {"custom_jvp_call", "jit", "pjit"}  # the last two within the first: elsewhere JAX looks into them itself
_OWN_CHOICES = {"checkpoint", "remat", "remat2", "scan", "while"}


def recompute_cheap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `(carry, weights, others) -> structure` that keeps only costly results for the gradient, if that is less.

    It returns the function itself if that has side effects, or loops and checkpoints of its own: side effects would
    happen twice, and checkpoints would keep what they are meant not to keep.
    """
    from jax.extend.core import jaxpr_as_fun  # which `import jax` does not load

    def call(carry: Tree, weights: Tree, others: Tree) -> Any:
        program, shape = jax.make_jaxpr(function, return_shape=True)(carry, weights, others)
        structure = jax.tree.structure(shape)

        def traced(*arguments: Any) -> Any:  # so that the layers' own code runs once
            return jaxpr_as_fun(program)(*jax.tree.leaves(arguments))

        thrifty = jax.checkpoint(traced, prevent_cse=False, policy=is_costly)
        fits = not program.effects and all(equation.primitive.name not in _OWN_CHOICES for equation in _within(program))
        if fits and _kept(thrifty, carry, weights, others) < _kept(traced, carry, weights, others):
            traced = thrifty
        return jax.tree.unflatten(structure, traced(carry, weights, others))

    return call


def is_costly(primitive: Any, *_: Any, **parameters: Any) -> bool:
    """Returns whether to keep the result of an operation: a policy of `jax.checkpoint`."""
    if primitive.name in _CALLS:
        program = parameters.get("call_jaxpr") or parameters["jaxpr"]
        return any(is_costly(equation.primitive, **equation.params) for equation in program.eqns)
    return primitive.name not in CHEAP


def _kept(function: Callable[..., Any], carry: Tree, weights: Tree, others: Tree) -> int:
    """Returns the bytes that the gradient keeps of one run, other than its arguments."""

    def pullback(carry: Tree, weights: Tree) -> Any:
        return jax.tree.leaves(jax.vjp(lambda *given: function(*given, others), carry, weights)[1])

    program = jax.make_jaxpr(pullback)(carry, weights).jaxpr
    given = {id(variable) for variable in (*program.invars, *program.constvars)}
    made: set[int] = set()  # computed from the arguments, and so different in each run
    for equation in program.eqns:
        if any(id(variable) in given or id(variable) in made for variable in equation.invars):
            made.update(map(id, equation.outvars))
    kept = {id(variable): variable.aval for variable in program.outvars}
    return sum(aval.size * aval.dtype.itemsize for key, aval in kept.items() if key in made)


def _within(program: Any) -> Iterator[Any]:
    """Yields the operations of a program and of the programs within them."""
    for equation in program.eqns:
        yield equation
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(part, "eqns"):
                yield from _within(part)
