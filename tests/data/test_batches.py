import re

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_residual.data import Batches, FollowEpoch, shift_and_flip

any_backend = pytest.mark.any_backend
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def numbered(count):
    """Rows that carry their own number, so that a batch shows which rows it has."""
    return np.arange(count, dtype=np.float32)[:, None], np.arange(count, dtype=np.int32)


def epoch_rows(batches):
    return np.concatenate([batches[index][1] for index in range(len(batches))])


@any_backend
@given(sizes, st.integers(0, 2**32))
def test_training_serves_each_example_at_most_once_in_whole_batches(size, seed):
    count, batch_size = max(size), min(size)
    batches = Batches(*numbered(count), batch_size, training=True, seed=seed)
    rows = epoch_rows(batches)
    assert len(rows) == count // batch_size * batch_size
    assert len(set(rows.tolist())) == len(rows)
    for index in range(len(batches)):
        x, y = batches[index]
        np.testing.assert_array_equal(x[:, 0], y)


@any_backend
def test_each_epoch_has_another_order_and_every_example_gets_its_turn():
    batches = Batches(*numbered(50), 8, training=True, seed=3)
    orders = []
    for epoch in range(20):
        batches.epoch = epoch
        orders.append(tuple(epoch_rows(batches)))
    assert len(set(orders)) == 20
    assert set().union(*orders) == set(range(50))


@any_backend
def test_the_seed_decides_the_order_and_an_epoch_can_be_taken_up():
    first, second = (Batches(*numbered(50), 8, training=True, seed=3) for _ in range(2))
    np.testing.assert_array_equal(epoch_rows(first), epoch_rows(second))
    assert not np.array_equal(epoch_rows(first), epoch_rows(Batches(*numbered(50), 8, training=True, seed=4)))
    first.epoch = 2
    taken_up = Batches(*numbered(50), 8, training=True, seed=3, epoch=2)
    np.testing.assert_array_equal(epoch_rows(first), epoch_rows(taken_up))


@any_backend
def test_augmentation_is_applied_anew_each_epoch_and_repeats_with_the_seed():
    x = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 1)).astype(np.uint8)
    batches = Batches(x, np.arange(12), 12, training=True, seed=1, augment=shift_and_flip(pixels=2, flip=True))
    changed, rows = batches[0]
    assert not np.array_equal(changed, x[rows])
    np.testing.assert_array_equal(batches[0][0], changed)
    batches.epoch = 1
    later, later_rows = batches[0]
    assert not np.array_equal(later[np.argsort(later_rows)], changed[np.argsort(rows)])


@any_backend
def test_every_batch_of_every_epoch_is_augmented_differently():
    x = np.tile(np.random.default_rng(0).integers(0, 256, (1, 9, 9, 1)).astype(np.uint8), (40, 1, 1, 1))
    batches = Batches(x, np.arange(40), 20, training=True, augment=shift_and_flip(pixels=4))
    first = batches[0][0]
    assert not np.array_equal(first, batches[1][0])
    batches.epoch = 1
    assert not np.array_equal(first, batches[0][0])


@any_backend
@given(sizes)
def test_evaluation_weights_sum_to_the_examples_and_the_rows_stay_in_order(size):
    count, batch_size = size
    batches = Batches(*numbered(count), batch_size, training=False)
    served = [batches[index] for index in range(len(batches))]
    assert {x.shape for x, _, _ in served} == {(batch_size, 1)}
    x, y, weight = (np.concatenate(parts) for parts in zip(*served, strict=True))
    assert weight.sum() == count
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(y[weight == 1], np.arange(count))
    np.testing.assert_array_equal(x[:, 0], y)


@any_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"batch_size": 6, "training": True},
            "Batches: `batch_size` must be at most 5, the number of training examples, but received 6 (int). "
            "A training epoch has whole batches only.",
        ),
        ({"batch_size": 0, "training": False}, "Batches: `batch_size` must be 1 or more, but received 0 (int)."),
        (
            {"batch_size": 2, "training": True, "y": np.arange(4)},
            "Batches: x and y must have equally many examples, 1 or more, not 5 and 4.",
        ),
    ],
)
def test_batches_that_cannot_be_made_are_refused(arguments, message):
    x, y = numbered(5)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Batches(**{"x": x, "y": y, **arguments})


@any_backend
@pytest.mark.parametrize("training", [True, False])
def test_some_rows_are_served_as_if_they_were_all(training):
    x, y = numbered(40)
    rows = np.random.default_rng(0).permutation(40)[:23]
    some = Batches(x, y, 5, training=training, rows=rows, seed=3)
    alone = Batches(x[rows], y[rows], 5, training=training, seed=3)
    assert len(some) == len(alone)
    for epoch in range(3):
        some.epoch = alone.epoch = epoch
        for index in range(len(some)):
            for one, other in zip(some[index], alone[index], strict=True):
                np.testing.assert_array_equal(one, other)


@any_backend
def test_augmentation_of_evaluation_is_refused():
    with pytest.raises(
        ValueError, match=r"^Batches: `augment` must be left out for evaluation, but received <function"
    ):
        Batches(*numbered(5), 2, training=False, augment=shift_and_flip(pixels=1))


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
    result = model.evaluate(Batches(x, y, 16, training=False), verbose=0, return_dict=True)
    logits = model.predict(x, verbose=0).astype(np.float64)
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(37), y]
    np.testing.assert_allclose(result["accuracy"], np.mean(logits.argmax(-1) == y), rtol=1e-6)
    np.testing.assert_allclose(result["exact_loss"], losses.mean(), rtol=1e-5)
    # The factor that the docstring of Batches gives.
    np.testing.assert_allclose(result["loss"], losses.mean() * 37 / 48, rtol=1e-5)


@any_backend
def test_an_epoch_end_does_not_touch_the_order_of_evaluation():
    batches = Batches(*numbered(5), 2, training=False)
    batches.on_epoch_end()
    np.testing.assert_array_equal(epoch_rows(batches), [0, 1, 2, 3, 4, 4])
    assert batches.epoch == 0


@any_backend
def test_the_end_of_an_epoch_goes_on_to_the_next():
    batches = Batches(*numbered(50), 8, training=True, seed=3)
    batches.on_epoch_end()
    np.testing.assert_array_equal(
        epoch_rows(batches), epoch_rows(Batches(*numbered(50), 8, training=True, seed=3, epoch=1))
    )


@pytest.mark.parametrize("begin", [0, 2])
def test_keras_fit_serves_the_order_of_each_epoch_also_when_it_resumes(begin):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 4, 4, 1)).astype(np.uint8), np.arange(20, dtype=np.int32)
    batches = Batches(x, y, 6, training=True, seed=5)
    # What reaches the training step, whatever a backend looks at beside: a metric keeps the sum of place × label.
    model = picture_model(20)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="sgd", metrics=[placed])
    history = model.fit(
        batches, epochs=begin + 3, initial_epoch=begin, verbose=0, shuffle=False, callbacks=[FollowEpoch(batches)]
    )
    expected = Batches(x, y, 6, training=True, seed=5)
    for epoch, value in enumerate(history.history["placed"], start=begin):
        expected.epoch = epoch
        rows = [expected[index][1] for index in range(3)]
        np.testing.assert_allclose(value, np.mean([row * np.arange(1, 7) for row in rows]), rtol=1e-6)


def test_keras_fit_serves_another_order_each_epoch_without_the_callback():
    x, y = np.zeros((20, 4, 4, 1), np.uint8), np.arange(20, dtype=np.int32)
    model = picture_model(20)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="sgd", metrics=[placed])
    history = model.fit(Batches(x, y, 6, training=True), epochs=4, verbose=0, shuffle=False)
    assert len(set(history.history["placed"])) == 4


def placed(y_true, y_pred):
    """Mean over the batch of the label times its place in it: differs where the order differs."""
    return keras.ops.reshape(keras.ops.cast(y_true, "float32"), (-1,)) * keras.ops.arange(1, 7, dtype="float32")
