"""Initial values drawn on the host: the distributions of Keras's initializers, another draw for each block."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import initializers, ops

from contract import to_numpy
from keras_residual.stacks.initial_values import HostInitializer, StackedInitializer, host_value

LARGE = (3, 5, 100, 150)  # 225,000 values; fans 1,500 and 2,250

# Kolmogorov and Smirnov: two samples of 225,000 of one distribution are further apart than this in one of 10 million
# seeds.
FAR = 2.9 * np.sqrt(2 / np.prod(LARGE))

RANDOM: dict[str, Any] = {
    "uniform": lambda: initializers.RandomUniform(-0.3, 0.9),
    "normal": lambda: initializers.RandomNormal(0.2, 0.7),
    "truncated normal": lambda: initializers.TruncatedNormal(-0.4, 0.3),
    "glorot uniform": lambda: initializers.GlorotUniform(),
    "glorot normal": lambda: initializers.GlorotNormal(),
    "he uniform": lambda: initializers.HeUniform(),
    "he normal": lambda: initializers.HeNormal(),
    "lecun uniform": lambda: initializers.LecunUniform(),
    "lecun normal": lambda: initializers.LecunNormal(),
    "fan out": lambda: initializers.VarianceScaling(0.3, "fan_out", "untruncated_normal"),
    "own axes": lambda: initializers.VarianceScaling(2.0, "fan_in", "uniform", input_axes=[0], output_axes=[3]),
    "one seed for all": lambda: initializers.HeNormal(seed=keras.random.SeedGenerator(3)),
}

FIXED: dict[str, Any] = {
    "zeros": initializers.Zeros(),
    "ones": initializers.Ones(),
    "constant": initializers.Constant(-1.7),
    "identity": initializers.Identity(gain=0.3),
}


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the largest difference of two samples' cumulative distributions."""
    a, b = np.sort(a, axis=None), np.sort(b, axis=None)
    at = np.concatenate([a, b])
    return float(np.max(np.abs(np.searchsorted(a, at, "right") / a.size - np.searchsorted(b, at, "right") / b.size)))


class Doubled(initializers.RandomNormal):
    """A user's subclass that draws in its own way."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return 2 * keras.random.uniform(shape, 10, 11, seed=self.seed, dtype=dtype)


class Wide(initializers.RandomNormal):
    """A user's subclass that draws as Keras does."""

    def __init__(self, seed: Any = None) -> None:
        super().__init__(0.0, 5.0, seed)


class Rising(initializers.Initializer):
    """An initializer that knows about the depth."""

    def at(self, index: int) -> Any:
        return initializers.RandomUniform(index, index + 0.5, seed=4)


@pytest.fixture
def same_as_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no initializer of Keras draw, so that a twin must have."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("Keras draws itself")

    for name in ("normal", "uniform", "truncated_normal"):
        monkeypatch.setattr(f"keras.src.initializers.random_initializers.random.{name}", refuse)


@pytest.mark.parametrize("case", RANDOM)
def test_the_distribution_is_that_of_keras(case: str) -> None:
    initializer = RANDOM[case]()
    expected = to_numpy(initializer(LARGE, dtype="float32"))
    values = host_value(initializer, LARGE, "float32", index=3)
    assert values.shape == LARGE
    assert values.dtype == np.float32
    size, spread = values.size, expected.std()
    assert abs(values.mean() - expected.mean()) < 7 * spread / np.sqrt(size)
    assert abs(values.std() / spread - 1) < 7 / np.sqrt(size)
    assert distance(values, expected) < FAR
    # Where a distribution ends; a normal does not, and its largest values scatter.
    if "uniform" in case or "axes" in case or "truncated" in case:
        ends = [1e-4, 1 - 1e-4]
        np.testing.assert_allclose(np.quantile(values, ends), np.quantile(expected, ends), atol=5e-3 * spread)
        # On PyTorch, Keras's has values beyond: 1 in 200,000.
        assert expected.min() - 5e-3 * spread < values.min()
        assert values.max() < expected.max() + 5e-3 * spread


@pytest.mark.parametrize("case", RANDOM)
@pytest.mark.usefixtures("same_as_keras")
def test_keras_is_not_asked_to_draw(case: str) -> None:
    assert host_value(RANDOM[case](), (2, 2, 4, 3), "float32", index=0).std() > 0


@pytest.mark.any_backend
def test_a_truncated_normal_has_the_tails_cut_off_and_not_folded() -> None:
    values = host_value(initializers.TruncatedNormal(0.0, 1.0), (400_000,), "float32", index=0)
    assert 1.999 < np.abs(values).max() < 2
    # P(1.9 < |x| < 2) of a normal is 0.01193; of the part within 2 it is 0.0125. Clipping would make it 0.057.
    assert np.mean(np.abs(values) > 1.9) == pytest.approx(0.0125, abs=0.001)


@pytest.mark.parametrize("case", FIXED)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_what_is_not_random_is_equal(case: str, dtype: str) -> None:
    # JAX has no float64 as a rule.
    expected = to_numpy(FIXED[case]((4, 6), dtype="float32" if dtype == "float64" else dtype))
    values = host_value(FIXED[case], (4, 6), dtype, index=2)
    assert str(values.dtype) == dtype
    precision = 1e-7 if dtype == "float64" else 0
    np.testing.assert_allclose(values.astype("float64"), expected.astype("float64"), rtol=precision)


def test_whole_numbers_are_exact() -> None:
    large = 2**53 + 1  # no float64
    assert host_value(initializers.Constant(large), (2,), "int64", index=0).tolist() == [large, large]
    stacked = StackedInitializer(initializers.Constant(7), 3, [1.0, 2.0, -1.0])((3, 2), "int32")
    assert keras.backend.standardize_dtype(stacked.dtype) == "int32"
    assert to_numpy(stacked).tolist() == [[7, 7], [14, 14], [-7, -7]]
    assert host_value("ones", (2,), "bool", index=0).tolist() == [True, True]
    assert host_value("identity", (2, 2), "int32", index=0).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("name", ["random_normal", "he_normal", "orthogonal"])
def test_random_whole_numbers_are_refused_by_keras(name: str) -> None:
    for draw in (host_value, lambda *given, index: StackedInitializer(given[0], 2)((2, *given[1]), given[2])):
        with pytest.raises(Exception, match=r"(?i)int"):  # each backend has a class of its own for it
            draw(name, (2, 2), "int32", index=0)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out"),
    [
        ((300, 700), 300, 700),  # Dense
        ((9, 60, 90), 540, 810),  # Conv1D
        ((3, 3, 100, 200), 900, 1800),  # Conv2D
        ((3, 3, 3, 20, 60), 540, 1620),  # Conv3D
        ((3, 3, 5000, 1), 45000, 9),  # DepthwiseConv2D
        ((90_000,), 90_000, 90_000),  # a vector
    ],
)
def test_fans(shape: tuple[int, ...], fan_in: int, fan_out: int) -> None:
    for mode, fan in {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}.items():
        for distribution in ("uniform", "truncated_normal", "untruncated_normal"):
            initializer = initializers.VarianceScaling(2.0, mode, distribution, seed=1)
            values = host_value(initializer, shape, "float32", index=1)
            assert values.std() == pytest.approx(np.sqrt(2 / fan), rel=0.02)


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (3, 3, 4, 6), (2, 2, 30)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    initializer = initializers.Orthogonal(gain=1.5, seed=2)
    values = host_value(initializer, shape, "float32", index=1)
    matrix = values.reshape(-1, shape[-1])
    product = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 1.5**2 * np.eye(len(product)), atol=1e-5)


@pytest.mark.any_backend
def test_orthogonal_matrices_are_uniform() -> None:
    # LAPACK's q has a first entry of one sign; that of a uniform matrix has the mean 0 and the variance 1/n.
    draws = StackedInitializer(initializers.Orthogonal(seed=2), 4000)
    entries = to_numpy(draws((4000, 4, 4), "float32"))
    np.testing.assert_allclose(entries.mean(axis=0), 0, atol=5 * 0.5 / np.sqrt(4000))
    np.testing.assert_allclose(entries.var(axis=0), 0.25, atol=0.02)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["orthogonal", "identity"])
def test_the_wrong_rank_is_refused_by_keras(name: str) -> None:
    with pytest.raises(ValueError, match=r"dimensional|2D"):
        host_value(name, (3,), "float32", index=0)


# --- Index and seed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 0, 7, -3, 2**40])
@pytest.mark.parametrize("make", [initializers.GlorotUniform, initializers.Orthogonal, Doubled])
def test_a_draw_follows_from_seed_and_index(make: Any, seed: int | None) -> None:
    if make is Doubled and seed == 2**40:
        pytest.skip("no backend takes such a seed")
    initializer = make(seed=seed)
    draws = [host_value(initializer, (4, 4), "float32", index=index) for index in (0, 1, 2)]
    again = [host_value(initializer, (4, 4), "float32", index=index) for index in (0, 1, 2)]
    np.testing.assert_array_equal(draws, again)
    assert all(np.abs(draws[i] - draws[j]).max() > 0.01 for i, j in [(0, 1), (0, 2), (1, 2)])
    other = host_value(make(seed=5), (4, 4), "float32", index=0)
    assert np.abs(draws[0] - other).max() > 0.01
    if seed is not None:
        np.testing.assert_array_equal(host_value(make(seed=seed), (4, 4), "float32", index=2), draws[2])


@pytest.mark.any_backend
def test_the_seed_of_keras_makes_unseeded_draws_repeat() -> None:
    draws = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        draws.append(host_value("he_normal", (3, 3), "float32", index=1))
    np.testing.assert_array_equal(*draws)
    assert np.abs(host_value("he_normal", (3, 3), "float32", index=1) - draws[0]).max() > 0.01


def test_a_seed_generator_gives_each_initializer_its_own_draws() -> None:
    generator = keras.random.SeedGenerator(3)
    first, second = initializers.RandomNormal(seed=generator), initializers.RandomNormal(seed=generator)
    draws = [host_value(initializer, (5,), "float32", index=0) for initializer in (first, second, first)]
    assert np.abs(draws[0] - draws[1]).max() > 1e-3
    np.testing.assert_array_equal(draws[0], draws[2])


# --- Initializers of others ------------------------------------------------------------------------------------------


def test_a_subclass_with_its_own_call_draws_itself() -> None:
    values = host_value(Doubled(0.0, 0.1, seed=3), (1000,), "float32", index=4)
    assert 20 <= values.min() < 20.1
    assert 21.9 < values.max() <= 22
    assert values.dtype == np.float32


@pytest.mark.usefixtures("same_as_keras")
def test_a_subclass_without_its_own_call_has_the_twin_of_its_base() -> None:
    assert host_value(Wide(seed=1), (10_000,), "float32", index=0).std() == pytest.approx(5, rel=0.05)


def test_a_function_and_one_of_keras_without_a_twin_are_called() -> None:
    values = host_value(lambda shape, dtype=None: ops.full(shape, 3, dtype=dtype), (2, 2), "float16", index=1)
    np.testing.assert_array_equal(values, np.full((2, 2), 3, "float16"))
    stft = initializers.STFT("real")
    np.testing.assert_array_equal(host_value(stft, (16, 1, 9), "float32", index=1), to_numpy(stft((16, 1, 9))))


@pytest.mark.any_backend
def test_an_initializer_that_knows_the_depth_is_asked_for_each_index() -> None:
    values = to_numpy(StackedInitializer(Rising(), 3)((3, 500), "float32"))
    np.testing.assert_allclose(values.min(axis=1), [0, 1, 2], atol=0.01)
    np.testing.assert_allclose(values.max(axis=1), [0.5, 1.5, 2.5], atol=0.01)
    assert np.abs(values[1] - 1 - values[0]).max() > 0.1  # its one seed is not that of every block
    nested = to_numpy(StackedInitializer(StackedInitializer(Rising(), 3), 2)((2, 3, 500), "float32"))
    np.testing.assert_allclose(nested.min(axis=2), [[0, 1, 2]] * 2, atol=0.01)  # it is in the inner stack


# --- Wrappers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (5,), (3, 2, 4)])
def test_a_stack_has_the_values_of_each_index_times_its_gain(shape: tuple[int, ...], dtype: str) -> None:
    initializer = initializers.RandomUniform(1.0, 9.0, seed=4)
    gains = [1.0, 0.5, 3.0, 0.0]
    stacked = StackedInitializer(initializer, 4, gains)((4, *shape), dtype)
    assert keras.backend.standardize_dtype(stacked.dtype) == dtype
    for index, gain in enumerate(gains):
        one = HostInitializer(initializer, index, gain)(shape, dtype)
        assert keras.backend.standardize_dtype(one.dtype) == dtype
        np.testing.assert_array_equal(to_numpy(stacked)[index], to_numpy(one))
        exact = gain * host_value(initializer, shape, "float32", index=index)
        error = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype] * 27
        np.testing.assert_allclose(to_numpy(one).astype("float32"), exact, atol=error)


def test_the_dtype_of_a_wrapper_is_floatx_where_none_is_given() -> None:
    assert keras.backend.standardize_dtype(HostInitializer("ones", 0)((2,)).dtype) == keras.config.floatx()


def test_stacks_within_stacks_draw_differently_everywhere() -> None:
    initializer = initializers.RandomNormal(0.0, 1.0, seed=4)
    nested = to_numpy(StackedInitializer(StackedInitializer(initializer, 3), 2)((2, 3, 50), "float32"))
    flat = nested.reshape(6, 50)
    alone = to_numpy(StackedInitializer(initializer, 3)((3, 50), "float32"))
    for rows in (flat, np.concatenate([flat, alone])):
        apart = np.abs(rows[:, None] - rows[None]).max(axis=-1) + np.eye(len(rows))
        assert apart.min() > 0.5
    # One block of the outer stack by each way there is to it.
    inner = StackedInitializer(initializer, 3)
    for one in (inner.at(1), HostInitializer(inner, 1), StackedInitializer(inner, 2).initializer.at(1)):
        np.testing.assert_array_equal(to_numpy(one((3, 50), "float32")), nested[1])
    np.testing.assert_array_equal(to_numpy(HostInitializer(initializer, 2).at(1)((50,), "float32")), nested[1, 2])
    deep = HostInitializer(HostInitializer(HostInitializer(initializer, 2), 1), 5)((50,), "float32")
    other = HostInitializer(HostInitializer(initializer, 2).at(1), 5)((50,), "float32")
    np.testing.assert_array_equal(to_numpy(deep), to_numpy(other))


@pytest.mark.any_backend
def test_the_gains_of_nested_stacks_multiply() -> None:
    inner = StackedInitializer("ones", 2, [2.0, 3.0])
    nested = to_numpy(StackedInitializer(inner, 2, [1.0, 10.0])((2, 2, 1), "float32"))
    np.testing.assert_array_equal(nested[..., 0], [[2, 3], [20, 30]])


@pytest.mark.parametrize(
    "wrapper",
    [
        HostInitializer(initializers.HeNormal(seed=3), 2, 0.5),
        StackedInitializer(initializers.HeNormal(seed=3), 2, [1.0, 0.5]),
        StackedInitializer(initializers.HeNormal(seed=3), 2).at(4),
    ],
)
def test_a_clone_draws_the_same(wrapper: Any) -> None:
    values = [to_numpy(one((2, 3), "float32")) for one in (wrapper, wrapper.clone())]
    np.testing.assert_array_equal(*values)


@pytest.mark.any_backend
def test_a_stack_of_another_depth_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`gains` must be one factor for each of 3 blocks.*\[1.0\]"):
        StackedInitializer("ones", 3, [1.0])
    with pytest.raises(ValueError, match=r"`shape` must be \(3, …\)"):
        StackedInitializer("ones", 3)((2, 4))
