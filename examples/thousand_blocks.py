"""Hundreds of Dense blocks on handwritten digits: with residual connections they learn, without they do not.

    python examples/thousand_blocks.py --depth 1000

On JAX the blocks are compiled as one, so that a thousand take no longer to compile than ten.
"""

import argparse
import time

import keras_residual as kr  # before keras, for which it takes a backend that is installed

# isort: split
import keras
import numpy as np
from keras.layers import Dense
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

WIDTH = 64


def network(depth: int, *, residual: bool) -> keras.Model:
    branch = [Dense(WIDTH, activation="relu", kernel_initializer="he_normal"), Dense(WIDTH)]
    block = kr.Residual(branch, norm="layer_norm") if residual else branch
    inputs = keras.Input((64,))
    x = Dense(WIDTH)(inputs)
    x = kr.ResidualStack(block, depth, depth_rule="inverse_sqrt_depth" if residual else None, name="stack")(x)
    x = keras.layers.LayerNormalization()(x)
    return keras.Model(inputs, Dense(10)(x))


def accuracy(model: keras.Model, epochs: int) -> float:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=360, random_state=0, stratify=y)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, epochs * 12)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=128, epochs=epochs, verbose=0)
    return float(model.evaluate(x_test, y_test, verbose=0)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=200, help="number of blocks (default 200)")
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    found = {}
    for residual, name, epochs in ((True, "residual", arguments.epochs), (False, "plain", 3)):
        keras.utils.set_random_seed(0)
        start = time.perf_counter()
        model = network(arguments.depth, residual=residual)
        found[name] = accuracy(model, epochs)
        stack = model.get_layer("stack")
        took = time.perf_counter() - start
        print(
            f"{name:8}: {arguments.depth} blocks ({stack.execution}), {model.count_params():d} weights, {epochs} "
            f"epochs: {100 * found[name]:.1f} % of the test digits, {took:.0f} s"
        )
    if found["residual"] < 0.97:
        raise AssertionError("The residual network has not learned.")
    if found["plain"] > np.mean([0.1, 0.3]):
        raise AssertionError("The plain network learns at this depth: there is nothing to show.")


if __name__ == "__main__":
    main()
