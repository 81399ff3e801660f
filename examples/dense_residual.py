"""A residual connection around one Dense layer, written by hand and written with `kr.Residual`: the same network."""

import keras_residual as kr  # before keras, for which it takes a backend that is installed

# isort: split
import keras
import numpy as np
from keras.layers import Add, Dense


def by_hand() -> keras.Model:
    inputs = keras.Input((10,))
    x = Dense(32, activation="relu", name="first")(inputs)
    x = Dense(64, activation="relu", name="second")(x)
    branch = Dense(64, activation="relu", name="branch")(x)
    return keras.Model(inputs, Add(name="add")([x, branch]), name="by_hand")


def with_residual() -> keras.Model:
    inputs = keras.Input((10,))
    x = Dense(32, activation="relu", name="first")(inputs)
    x = Dense(64, activation="relu", name="second")(x)
    x = kr.Residual(Dense(64, activation="relu", name="branch"), name="residual")(x)
    return keras.Model(inputs, x, name="with_residual")


def check_equal(first: keras.Model, second: keras.Model, x: np.ndarray) -> None:
    difference = np.max(np.abs(first.predict(x, verbose=0) - second.predict(x, verbose=0)))
    if difference > 1e-6:
        raise AssertionError(f"{first.name} and {second.name} differ by {difference}.")
    print(f"{first.name} and {second.name}: equal weights, equal outputs (difference {difference}).")


def main() -> None:
    hand, residual = by_hand(), with_residual()
    hand.summary()
    residual.summary()

    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 10)).astype("float32")
    y = rng.normal(size=(256, 64)).astype("float32")
    residual.set_weights(hand.get_weights())
    check_equal(hand, residual, x)

    for model in (hand, residual):
        model.compile(optimizer="adam", loss="mse")
        losses = model.fit(x, y, epochs=3, shuffle=False, verbose=0).history["loss"]
        print(f"{model.name}: loss {losses[0]:.4f} in the first epoch, {losses[-1]:.4f} in the last")


if __name__ == "__main__":
    main()
