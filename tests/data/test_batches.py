import itertools
import re

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.data import Augmentation, Batches, PaddedBatches

any_backend = pytest.mark.any_backend
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def numbered(count):
    """Rows that carry their own number, so that a batch shows which rows it has."""
    return np.arange(count, dtype=np.float32)[:, None], np.arange(count, dtype=np.int32)


def epoch_rows(batches, epoch=0):
    steps = range(epoch * batches.steps, (epoch + 1) * batches.steps)
    return np.concatenate([batches.batch(step)[1] for step in steps])


@any_backend
@given(sizes, st.integers(0, 2**32))
def test_training_serves_each_example_at_most_once_in_whole_batches(size, seed):
    count, batch_size = max(size), min(size)
    batches = Batches(*numbered(count), batch_size, seed=seed)
    rows = epoch_rows(batches)
    assert len(rows) == count // batch_size * batch_size
    assert len(set(rows.tolist())) == len(rows)
    for step in range(2 * batches.steps):
        x, y = batches.batch(step)
        np.testing.assert_array_equal(x[:, 0], y)


@any_backend
def test_each_epoch_has_another_order_and_every_example_gets_its_turn():
    batches = Batches(*numbered(50), 8, seed=3)
    orders = [tuple(epoch_rows(batches, epoch)) for epoch in range(20)]
    assert len(set(orders)) == 20
    assert set().union(*orders) == set(range(50))
    assert tuple(epoch_rows(Batches(*numbered(50), 8, seed=4))) not in orders


@any_backend
@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(0, 9))
def test_a_batch_depends_on_seed_and_step_alone(asked, seed):
    pictures = np.random.default_rng(0).integers(0, 256, (23, 5, 5, 1)).astype(np.uint8)
    make = lambda: Batches(pictures, np.arange(23), 4, seed=seed, augment=Augmentation(shift=2, flip=True))  # noqa: E731
    used = make()
    for step in asked:
        for served in (used.batch(step), next(used.since(step)), next(itertools.islice(make().since(), step, None))):
            for part, expected in zip(served, make().batch(step), strict=True):
                np.testing.assert_array_equal(part, expected)


@any_backend
def test_every_batch_of_every_epoch_is_augmented_differently():
    x = np.tile(np.random.default_rng(0).integers(0, 256, (1, 9, 9, 1)).astype(np.uint8), (40, 1, 1, 1))
    batches = Batches(x, np.arange(40), 20, augment=Augmentation(shift=4))
    assert len({batches.batch(step)[0].tobytes() for step in range(6)}) == 6


@any_backend
@given(sizes)
def test_evaluation_weights_sum_to_the_examples_and_the_rows_stay_in_order(size):
    count, batch_size = size
    batches = PaddedBatches(*numbered(count), batch_size)
    served = [batches[index] for index in range(len(batches))]
    assert {x.shape for x, _, _ in served} == {(batch_size, 1)}
    x, y, weight = (np.concatenate(parts) for parts in zip(*served, strict=True))
    assert weight.sum() == count
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(y[weight == 1], np.arange(count))
    np.testing.assert_array_equal(x[:, 0], y)


@any_backend
@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (
            Batches,
            {"batch_size": 6},
            "Batches: `batch_size` must be at most 5, the number of training examples, but received 6 (int). "
            "A training epoch has whole batches only.",
        ),
        (Batches, {"batch_size": 0}, "Batches: `batch_size` must be 1 or more, but received 0 (int)."),
        (PaddedBatches, {"batch_size": 0}, "PaddedBatches: `batch_size` must be 1 or more, but received 0 (int)."),
        (
            PaddedBatches,
            {"batch_size": 2, "y": np.arange(4)},
            "PaddedBatches: x and y must have equally many examples, 1 or more, not 5 and 4.",
        ),
    ],
)
def test_batches_that_cannot_be_made_are_refused(kind, arguments, message):
    x, y = numbered(5)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        kind(**{"x": x, "y": y, **arguments})


@any_backend
def test_some_rows_are_served_as_if_they_were_all():
    x, y = numbered(40)
    rows = np.random.default_rng(0).permutation(40)[:23]
    some, alone = Batches(x, y, 5, rows=rows, seed=3), Batches(x[rows], y[rows], 5, seed=3)
    assert some.steps == alone.steps == 4
    pairs = [(some.batch(step), alone.batch(step)) for step in range(12)]
    some, alone = PaddedBatches(x, y, 5, rows=rows), PaddedBatches(x[rows], y[rows], 5)
    assert len(some) == len(alone) == 5
    pairs += [(some[index], alone[index]) for index in range(5)]
    for pair in pairs:
        for one, other in zip(*pair, strict=True):
            np.testing.assert_array_equal(one, other)


def picture_model(classes):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(classes)]
    )


def test_keras_evaluate_over_padded_batches_is_exact():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (37, 4, 4, 1)).astype(np.uint8), rng.integers(0, 3, 37).astype(np.int32)
    model = picture_model(3)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="exact_loss"),
        ],
    )
    result = model.evaluate(PaddedBatches(x, y, 16), verbose=0, return_dict=True)
    logits = model.predict(x, verbose=0).astype(np.float64)
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(37), y]
    np.testing.assert_allclose(result["accuracy"], np.mean(logits.argmax(-1) == y), rtol=1e-6)
    np.testing.assert_allclose(result["exact_loss"], losses.mean(), rtol=1e-5)
    # The factor that the docstring of PaddedBatches gives.
    np.testing.assert_allclose(result["loss"], losses.mean() * 37 / 48, rtol=1e-5)


@pytest.mark.parametrize("begin", [0, 2, 7])
def test_keras_fit_is_served_from_a_step_on_what_belongs_to_it(begin):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 4, 4, 1)).astype(np.uint8), np.arange(20, dtype=np.int32)
    batches = Batches(x, y, 6, seed=5)
    # What reaches the training step, whatever a backend looks at beside: a metric keeps the sum of place × label.
    model = picture_model(20)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="sgd", metrics=[placed])
    history = model.fit(batches.since(begin), steps_per_epoch=2, epochs=3, verbose=0, shuffle=False)
    for epoch, value in enumerate(history.history["placed"]):
        rows = [batches.batch(begin + 2 * epoch + index)[1] for index in range(2)]
        np.testing.assert_allclose(value, np.mean([row * np.arange(1, 7) for row in rows]), rtol=1e-6)


def placed(y_true, y_pred):
    """Mean over the batch of the label times its place in it: differs where the order differs."""
    return keras.ops.reshape(keras.ops.cast(y_true, "float32"), (-1,)) * keras.ops.arange(1, 7, dtype="float32")


@pytest.mark.every
@pytest.mark.parametrize(("repeats", "batch_size"), [(1, 4), (3, 6), (3, 4), (4, 3)])
def test_an_example_is_served_several_times_each_with_an_index_of_its_own(repeats, batch_size):
    seen = []

    def augment(x, y, seed, epoch, indices):
        seen.append((x.copy(), indices))
        return x, y

    x = np.arange(24)
    batches = Batches(x, x, batch_size, augment=augment, repeats=repeats)
    assert batches.steps == 24 // batch_size
    for epoch in range(2):
        seen.clear()
        for step in range(epoch * batches.steps, (epoch + 1) * batches.steps):
            np.testing.assert_array_equal(batches.batch(step)[1], seen[-1][0])
        served, indices = (np.concatenate(part) for part in zip(*seen, strict=True))
        np.testing.assert_array_equal(indices % 24, served)
        assert len(set(indices.tolist())) == 24
        examples, counts = np.unique(served, return_counts=True)
        assert (len(examples), set(counts.tolist())) == (24 // repeats, {repeats})
        # Neighbours in a batch are two examples, for what puts them together.
        if batch_size > 2 * repeats - 1:
            assert all((np.roll(each, 1) != each).all() for each, _ in seen)
    assert Batches(x, x, batch_size, repeats=repeats).batch(0)[0].shape == (batch_size,)


def test_repeats_are_whole():
    with pytest.raises(ValueError, match=r"^Batches: `repeats` must be"):
        Batches(np.arange(4), np.arange(4), 2, repeats=0)
