"""The interface of `keras_residual._backend`, which describes it, on PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import keras
import torch
import torch.utils.checkpoint

from keras_residual._backend.fast import torch_maps as maps
from keras_residual._backend.loops import Body, ReversiblePass, slices, stacked, unroll
from keras_residual._keras import REGISTERED_OBJS_TO_NAMES, in_stateless_scope
from keras_residual._types import Tensor, Tree

VERSION = torch.__version__
SCAN_FROM = None

# Operations on feature maps.
HAS_BATCH_NORM = maps.HAS_BATCH_NORM
convolve, max_pool = maps.convolve, maps.max_pool
normalize, normalize_by_batch = maps.normalize, maps.normalize_by_batch
is_eager_torch, has_hooks, relu_in_place = maps.is_eager_torch, maps.has_hooks, maps.relu_in_place


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Tensor, backward: Tensor) -> Any:
        ctx.save_for_backward(backward)
        return x * forward

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, None, None]:
        (backward,) = ctx.saved_tensors
        return grad_outputs[0] * backward, None, None


scale_with_other_gradient = _Scale.apply


def input_gradient(function: Callable[[Any], Any], x: Tensor) -> Any:
    """Returns the gradient of a scalar function."""
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


def register_parameters(layer: Any) -> None:
    """Registers the variables of layers that were built in a stateless scope, which Keras does not do there."""
    if in_stateless_scope():
        return  # they have no values yet; whoever opened the scope does it
    for part in layer._flatten_layers():
        if part.built and not hasattr(part, "_torch_params"):
            part._track_variables()


def forget_parameters(layer: Any) -> None:
    """Deletes the list of a layer's own parameters, which `register_parameters` or Keras makes when asked for."""
    if hasattr(layer, "_torch_params"):
        del layer._torch_params


def with_shape_of(like: Tensor, x: Tensor) -> Tensor:
    """Returns `x`: all shapes are known when an operation is called."""
    del like
    return x


as_tensor = keras.ops.convert_to_tensor


def snapshot(variable: Any) -> Tensor:
    """Returns the variable's value, as later assignments do not change it."""
    return variable.value.detach().clone()


def update_variables(model: Any) -> None:
    """Does nothing: each step assigns to them."""
    del model


def vjp(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Returns the outputs and the function from their cotangents to those of the arguments."""
    with torch.enable_grad():
        inputs: Tensor = keras.tree.map_structure(lambda tensor: tensor.detach().requires_grad_(), arguments)
        outputs = function(*inputs)

    def pullback(cotangents: Tree) -> Any:
        flat = keras.tree.flatten(inputs)
        pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(cotangents), strict=True)
        pairs = [(output, cotangent) for output, cotangent in pairs if output.requires_grad]
        found: Any = [None] * len(flat)
        if pairs:
            ends, cotangents = zip(*pairs, strict=True)
            found = torch.autograd.grad(ends, flat, cotangents, allow_unused=True)
        filled = [torch.zeros_like(x) if g is None else g for x, g in zip(flat, found, strict=True)]
        return keras.tree.pack_sequence_as(inputs, filled)

    return keras.tree.map_structure(lambda tensor: tensor.detach(), outputs), pullback


def probed_gradients(
    function: Callable[..., Any], finish: Callable[..., Any], variables: list[Any], others: list[Any]
) -> Callable[[Any], Any]:
    """Returns the program of the forward pass, the gradients of probes and variables, and `finish`."""
    del others

    def program(given: Tree) -> Any:
        probes: list[Any] = []

        def probe(shape: Any, dtype: str) -> Any:
            zeros = keras.ops.zeros(tuple(shape), dtype)
            probes.append(cast(Any, zeros).requires_grad_())
            return probes[-1]

        with torch.enable_grad(), keras.StatelessScope():
            loss, outputs = function(probe, given)
        targets = [*probes, *(variable.value for variable in variables)]
        found: Any = [None] * len(targets)
        if targets and loss.requires_grad:
            found = torch.autograd.grad(loss, targets, allow_unused=True)
        found = [torch.zeros_like(t) if g is None else g for t, g in zip(targets, found, strict=True)]
        with torch.no_grad():
            detached = keras.tree.map_structure(lambda tensor: tensor.detach(), outputs)
            return finish(detached, found[: len(probes)], found[len(probes) :])

    return program


def compiled(function: Callable[[Any], Any], variables: list[Any]) -> Callable[[Any], Any]:
    """Returns the function, run without gradients; nothing is compiled."""
    del variables

    def program(given: Tree) -> Any:
        with torch.no_grad(), keras.StatelessScope():
            return function(given)

    return program


outside_of_programs = nullcontext  # there are none
keeping_random_state = torch.random.fork_rng


def random_state() -> list[Any]:
    """Returns the states of the generators of the processor and of each accelerator, arrays of bytes."""
    return [state.numpy() for state in (torch.get_rng_state(), *torch.cuda.get_rng_state_all())]


def set_random_state(states: Sequence[Any]) -> None:
    """Restores the states; of accelerators, as many as there are here."""
    processor, *accelerators = (torch.from_numpy(state) for state in states)
    torch.set_rng_state(processor)
    for index, state in enumerate(accelerators[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, index)


def scan(body: Body, carry: Tree, xs: Tree, *, reverse: bool = False) -> tuple[Any, Any]:
    """Runs `body` over the leading axis of `xs`: PyTorch has no compiled loop, so one call a slice."""
    carry, ys = unroll(lambda carry, x, _: body(carry, x, None), carry, slices(xs), reverse=reverse)
    return carry, stacked(ys)


def recompute(function: Callable[..., Any], *, in_loop: bool, held: Sequence[Any]) -> Callable[..., Any]:
    """Returns the function, keeping only its arguments for the gradient."""
    del in_loop, held
    return functools.partial(torch.utils.checkpoint.checkpoint, function, use_reentrant=False)


def recompute_cheap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function: here, what is kept cannot be chosen."""
    return function


def map_slices(function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """Returns the results for each slice, stacked; unlike in `torch.vmap`, the function may write to its tensors."""
    return torch.stack([function(part) for part in torch.unbind(x)])


def name_optimizers() -> None:
    """Makes Keras save its optimizers by the names that every backend has for them.

    Here each is an instance of a subclass without a public name, which another backend cannot load.
    """
    for name, kind in vars(keras.optimizers).items():
        if isinstance(kind, type) and issubclass(kind, keras.optimizers.Optimizer):
            REGISTERED_OBJS_TO_NAMES.setdefault(type(kind.__new__(kind)), f"keras.optimizers.{name}")


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: _Run, *flat: Any) -> Any:
        rows, weights = keras.tree.pack_sequence_as(run.inputs, flat)
        state, losses, updates = run.program.run(rows, weights, run.others)
        outputs = (run.program.leave(state), losses, updates)
        # Neither is an input or an output of this function, so they may be kept as they are.
        ctx.run, ctx.state = run, state
        ctx.save_for_backward(*flat)
        ctx.mark_non_differentiable(*keras.tree.flatten(updates))
        run.outputs = keras.tree.map_structure(lambda tensor: None, outputs)
        return tuple(keras.tree.flatten(outputs))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        run = ctx.run
        if torch.is_grad_enabled():  # by `create_graph=True`
            return None, *_differentiable_pullback(run, ctx.saved_tensors, grad_outputs)
        rows_bar, losses_bar, _ = keras.tree.pack_sequence_as(run.outputs, list(grad_outputs))
        _, weights = keras.tree.pack_sequence_as(run.inputs, ctx.saved_tensors)
        bars = run.program.run_backward(ctx.state, rows_bar, weights, run.others, losses_bar)
        return None, *keras.tree.flatten(bars)


@dataclass
class _Run:
    """What one run of a reversible stack needs beside the tensors that have gradients."""

    program: ReversiblePass
    others: Tree
    inputs: Tensor
    outputs: Any = None


def _differentiable_pullback(run: _Run, flat: Any, grad_outputs: Any) -> list[Any]:
    """Returns the cotangents of the inputs as functions of inputs and cotangents that can be differentiated again.

    For that every block's activations are kept: what undoes a block starts from tensors that no graph leads to.
    """
    # Each a tensor of its own: where one input was computed from another, only what goes through the stack counts here.
    inputs = [tensor.view_as(tensor) for tensor in flat]
    rows, weights = keras.tree.pack_sequence_as(run.inputs, inputs)
    state, losses, _ = run.program.run(rows, weights, run.others)
    outputs = keras.tree.flatten((run.program.leave(state), losses))
    pairs = zip(outputs, grad_outputs[: len(outputs)], strict=True)
    ends, cotangents = zip(*[(end, bar) for end, bar in pairs if end.requires_grad], strict=True)
    asked = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(ends, asked, cotangents, create_graph=True, allow_unused=True))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]


def reversible(program: ReversiblePass, rows: Tree, weights: Tree, others: Tree) -> tuple[Any, Any, Any]:
    """Runs a stack without keeping activations."""
    run = _Run(program, others, keras.tree.map_structure(lambda tensor: None, (rows, weights)))
    flat = _Reversible.apply(run, *keras.tree.flatten((rows, weights)))
    return keras.tree.pack_sequence_as(run.outputs, list(flat))


def compilation_cache() -> None:
    """Returns None: no compiled program outlives the process."""
