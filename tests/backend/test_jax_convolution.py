"""Convolutions for the body of a loop on JAX: the stock ones' numbers, their own time, and no trace left behind."""

from __future__ import annotations

import statistics
import threading
import time
from unittest import mock

import keras
import numpy as np
import pytest
from keras import layers

if keras.backend.backend() != "jax":
    pytest.skip("convolutions of XLA, which only the JAX backend makes", allow_module_level=True)

import jax
from jax import numpy as jnp

from keras_residual._backend.fast import jax_convolution
from keras_residual._backend.fast.jax_convolution import canonical_convolutions

if jax.default_backend() != "cpu":
    pytest.skip("the stock convolutions stay in place off the CPU", allow_module_level=True)

STOCK = jax.lax.conv_general_dilated
STOCK_TRANSPOSE = jax.lax.conv_transpose

LAYOUTS = {
    "last": {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")},
    "first": {1: ("NCW", "WIO", "NCW"), 2: ("NCHW", "HWIO", "NCHW"), 3: ("NCDHW", "DHWIO", "NCDHW")},
    "odd": {2: ("HNCW", "OWIH", "CWNH")},
}
# Name: data (N, ..., C), kernel (..., I, O), and the arguments.
CASES = {
    "3x3": ((2, 7, 8, 3), (3, 3, 3, 5), {}),
    "3x3 valid": ((2, 7, 8, 3), (3, 3, 3, 5), {"padding": "VALID"}),
    "explicit": ((2, 7, 8, 3), (3, 3, 3, 5), {"padding": [(3, 0), (1, 2)], "window_strides": (2, 1)}),
    "cut": ((2, 7, 8, 3), (3, 2, 3, 5), {"padding": [(-1, 2), (0, -2)]}),
    "4x1 strided": ((2, 9, 8, 3), (4, 1, 3, 5), {"window_strides": (3, 2)}),
    "1x1": ((2, 7, 8, 3), (1, 1, 3, 5), {}),
    "1x1 strided": ((2, 7, 8, 3), (1, 1, 3, 5), {"window_strides": (2, 3)}),
    "1x1 padded": ((2, 7, 8, 3), (1, 1, 3, 5), {"padding": [(1, 0), (0, 2)], "window_strides": (2, 1)}),
    "strided": ((2, 8, 9, 3), (3, 3, 3, 5), {"window_strides": (2, 2)}),
    "strided valid": ((2, 8, 9, 3), (3, 3, 3, 5), {"window_strides": (2, 3), "padding": "VALID"}),
    "dilated": ((2, 9, 8, 3), (3, 2, 3, 5), {"rhs_dilation": (2, 3)}),
    "spread": (
        (2, 5, 4, 3),
        (3, 2, 3, 5),
        {"lhs_dilation": (2, 3), "window_strides": (1, 2), "padding": [(2, 1), (0, 3)]},
    ),
    "spread 1x1": ((2, 5, 4, 3), (1, 1, 3, 5), {"lhs_dilation": (2, 1), "padding": [(0, 0), (0, 0)]}),
    "depthwise": ((2, 7, 8, 6), (3, 3, 1, 6), {"feature_group_count": 6}),
    "depthwise in blocks": ((2, 4, 5, 32), (3, 3, 1, 64), {"feature_group_count": 32, "window_strides": (2, 1)}),
    "groups": ((2, 7, 8, 6), (3, 3, 2, 9), {"feature_group_count": 3}),
    "groups in blocks": ((2, 4, 5, 60), (1, 3, 10, 12), {"feature_group_count": 6}),
    "1-D": ((2, 9, 3), (3, 3, 5), {"window_strides": (2,), "rhs_dilation": (2,)}),
    "3-D": ((2, 4, 5, 6, 3), (3, 2, 3, 3, 4), {"window_strides": (1, 2, 1)}),
}


def case_of(name, layout="last", dtype="float32"):
    """Returns the convolution of a case as a function of data and kernel, and those two."""
    data, kernel, given = CASES[name]
    rank = len(data) - 2
    last, wanted = LAYOUTS["last"][rank], LAYOUTS[layout][rank]
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=shape).transpose([have.index(axis) for axis in want])
        for shape, have, want in zip((data, kernel), last[:2], wanted[:2], strict=True)
    ]
    given = {"window_strides": (1,) * rank, "padding": "SAME", "dimension_numbers": wanted} | given

    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, **given)

    return convolution, *(jnp.asarray(array, dtype) for array in arrays)


def with_gradients(convolution):
    """Returns the function from data and kernel to the output and both gradients."""

    def both(x, kernel):
        y, pull = jax.vjp(convolution, x, kernel)
        weights = jnp.cos(jnp.arange(y.size, dtype="float32")).reshape(y.shape).astype(y.dtype)
        return y, *pull(weights)

    return jax.jit(both)


def assert_near(found, wanted, bound=1e-5):
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
        assert np.max(np.abs(one - other)) <= bound * np.max(np.abs(other))


def counted():
    """Counts our convolutions, going forward."""
    return mock.patch.object(jax_convolution, "_grouped", wraps=jax_convolution._grouped)


@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, "last") for name in CASES]
    + [(name, "first") for name in ("explicit", "1x1 strided", "depthwise in blocks", "groups", "1-D", "3-D")]
    + [(name, "odd") for name in ("explicit", "groups")],
)
def test_outputs_and_gradients_are_those_of_the_stock_convolution(name, layout):
    convolution, x, kernel = case_of(name, layout)
    wanted = with_gradients(convolution)(x, kernel)
    with canonical_convolutions(), counted() as ours:
        found = with_gradients(convolution)(x, kernel)
    assert ours.call_count == 1
    assert_near(found, wanted)


@pytest.mark.parametrize("name", ["3x3", "1x1", "strided", "depthwise", "groups in blocks", "1-D"])
def test_gradients_through_a_scan_are_those_of_the_loop_unrolled(name):
    convolution, x, kernel = case_of(name)
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])

    def unrolled(x, kernels):
        return sum(jnp.sin(convolution(x * (i + 1), kernel)) for i, kernel in enumerate(kernels))

    def scanned(x, kernels):
        def body(i, kernel):
            with canonical_convolutions():
                return i + 1, jnp.sin(convolution(x * i, kernel))

        return jnp.sum(jax.lax.scan(body, 1.0, kernels)[1], 0)

    assert_near(with_gradients(scanned)(x, kernels), with_gradients(unrolled)(x, kernels))


@pytest.mark.parametrize("name", ["explicit", "1x1 strided", "depthwise", "groups"])
def test_second_derivative_in_reverse_mode(name):
    convolution, x, kernel = case_of(name)

    def curvature(x, kernel):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(convolution(x, kernel)))

        def gradients_size(x, kernel):
            return sum(jnp.sum(jnp.cos(part)) for part in jax.grad(loss, (0, 1))(x, kernel))

        # A function of its own, or what was traced outside the context would be found again within.
        return jax.jit(jax.grad(lambda *arrays: gradients_size(*arrays), (0, 1)))(x, kernel)

    wanted = curvature(x, kernel)
    with canonical_convolutions(), counted() as ours:
        assert_near(curvature(x, kernel), wanted)
    assert ours.called


def test_under_vmap_and_checkpoint():
    convolution, x, kernel = case_of("strided")
    batches = jnp.stack([x, -x, 2 * x])
    wanted = jax.vmap(with_gradients(convolution), (0, None))(batches, kernel)
    with canonical_convolutions():
        ours = with_gradients(jax.checkpoint(lambda x, kernel: convolution(x, kernel)))
        assert_near(jax.vmap(ours, (0, None))(batches, kernel), wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["3x3", "1x1", "depthwise in blocks", "groups"])
def test_half_precision_within_its_rounding(name, dtype):
    convolution, x, kernel = case_of(name, dtype=dtype)
    wanted = with_gradients(convolution)(x.astype("float32"), kernel.astype("float32"))
    with canonical_convolutions(), counted() as ours:
        found = with_gradients(convolution)(x, kernel)
    assert ours.called
    assert_near(found, [part.astype(dtype) for part in wanted], 2 * float(jnp.finfo(dtype).eps))


LAYERS = {
    "Conv1D": (lambda **more: layers.Conv1D(4, 3, **more), 1, 1),
    "Conv2D": (lambda **more: layers.Conv2D(4, 3, dilation_rate=2, **more), 2, 1),
    "Conv2D groups": (lambda **more: layers.Conv2D(4, 3, groups=2, padding="same", **more), 2, 1),
    "Conv3D": (lambda **more: layers.Conv3D(4, 2, strides=2, **more), 3, 1),
    "DepthwiseConv1D": (lambda **more: layers.DepthwiseConv1D(3, **more), 1, 1),
    "DepthwiseConv2D": (lambda **more: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, **more), 2, 1),
    "SeparableConv2D": (lambda **more: layers.SeparableConv2D(4, 3, padding="same", **more), 2, 2),
    "Conv1DTranspose": (lambda **more: layers.Conv1DTranspose(4, 3, strides=3, **more), 1, 1),
    "Conv2DTranspose": (lambda **more: layers.Conv2DTranspose(4, 3, strides=2, padding="same", **more), 2, 1),
}


@pytest.mark.parametrize(
    ("name", "data_format"),
    [(name, "channels_last") for name in LAYERS]
    + [(name, "channels_first") for name in ("Conv1D", "Conv2D", "DepthwiseConv2D", "Conv2DTranspose")],
)
def test_keras_layers_use_them(name, data_format):
    make, rank, convolutions = LAYERS[name]
    layer = make(data_format=data_format)
    x = np.random.default_rng(0).normal(size=(2, *(6,) * (rank + 1))).astype("float32")
    layer.build(x.shape)
    weights = [variable.value for variable in layer.trainable_variables]

    def gradients(weights, x):
        def call(weights, x):
            return layer.stateless_call(weights, [], x)[0]

        y, pull = jax.vjp(call, weights, x)
        return jax.tree.leaves((y, pull(jnp.cos(y))))

    wanted = jax.jit(lambda *arrays: gradients(*arrays))(weights, x)
    with canonical_convolutions(), counted() as ours:
        found = jax.jit(lambda *arrays: gradients(*arrays))(weights, x)
    assert ours.call_count == convolutions
    assert_near(found, wanted)


def test_arguments_that_are_not_ours_get_the_stock_convolution():
    x, kernel = jnp.ones((4, 5, 5, 2)), jnp.ones((3, 3, 2, 4))
    layout = LAYOUTS["last"][2]
    with canonical_convolutions(), counted() as ours:
        jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, batch_group_count=2)
        jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, precision="highest")
        integers = x.astype("int32"), kernel.astype("int32")
        jax.lax.conv_general_dilated(*integers, (1, 1), "SAME", dimension_numbers=layout)
        jax.lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=layout)
        turned = {"dimension_numbers": layout, "transpose_kernel": True}
        jax.lax.conv_transpose(jnp.ones((4, 5, 5, 4)), kernel, (2, 2), [(1, 1)] * 2, **turned, precision="highest")
        with pytest.raises(ValueError, match="String padding"):
            jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", (2, 2), dimension_numbers=layout)
        with pytest.raises(ValueError, match="feature_group_count"):
            jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, feature_group_count=2)
    assert ours.call_args_list == []


def test_nothing_stays_behind():
    with canonical_convolutions():
        with canonical_convolutions():
            assert jax.lax.conv_general_dilated is not STOCK
        assert jax.lax.conv_general_dilated is not STOCK
        with pytest.raises(KeyError), canonical_convolutions():
            raise KeyError
        convolution, x, kernel = case_of("3x3")
        with counted() as ours:
            convolution(x, kernel)
        assert ours.called
    assert jax.lax.conv_general_dilated is STOCK
    assert jax.lax.conv_transpose is STOCK_TRANSPOSE


def test_another_librarys_stand_in_comes_back(monkeypatch):
    def stand_in(*args, **kwargs):
        return STOCK(*args, **kwargs)

    monkeypatch.setattr(jax.lax, "conv_general_dilated", stand_in)
    with canonical_convolutions():
        assert jax.lax.conv_general_dilated is not stand_in
    assert jax.lax.conv_general_dilated is stand_in


def test_other_threads_keep_the_stock_convolution():
    convolution, x, kernel = case_of("3x3")
    entered, leave = threading.Event(), threading.Event()

    def elsewhere():
        with canonical_convolutions():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert entered.wait(30)
    try:
        with counted() as ours:
            convolution(x, kernel)
            assert not ours.called
            with canonical_convolutions():
                convolution(x, kernel)
            assert ours.call_count == 1
            # This thread has left while the other one is still within.
            convolution(x, kernel)
            assert ours.call_count == 1
    finally:
        leave.set()
        thread.join()
    assert jax.lax.conv_general_dilated is STOCK


def test_nothing_happens_off_the_cpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with canonical_convolutions():
        assert jax.lax.conv_general_dilated is STOCK


@pytest.mark.parametrize(
    ("kernel_shape", "groups"), [((3, 3, 16, 16), 1), ((3, 3, 1, 16), 16)], ids=["3x3", "depthwise"]
)
def test_a_scanned_convolution_trains_several_times_faster(kernel_shape, groups):
    """XLA's slow loop is ten times as slow and more; a ratio of two times in one process bears other work."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4, 16, 16, 16)), "float32")
    kernels = jnp.asarray(rng.normal(size=(2, *kernel_shape)), "float32") / 12

    def step(context):
        def body(x, kernel):
            with context():
                y = keras.ops.conv(x, kernel, padding="same")
            return x + jnp.tanh(y), None

        return jax.jit(jax.grad(lambda x, kernels: jnp.sum(jax.lax.scan(body, x, kernels)[0]), (0, 1)))

    stock, ours = step(mock.MagicMock), step(canonical_convolutions)
    assert_near(ours(x, kernels), stock(x, kernels))
    repeats = 10

    def seconds(call):
        start = time.process_time()
        for _ in range(repeats):
            jax.block_until_ready(call(x, kernels))
        return time.process_time() - start

    assert statistics.median(seconds(stock) / seconds(ours) for _ in range(3)) > 3
