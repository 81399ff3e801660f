"""A net of 40 plain blocks does not learn the handwritten digits; with shortcuts put into the same net it does.

    python examples/residualize_digits.py

The plain net is trained and fails. `kr.residualize` puts a shortcut around each of its blocks, with the weights that
the failed training left, and the result is trained by the same optimizer for as many steps.

The X-ray of each, after its training, shows what the difference is; docs/surgery.md explains the two.

`start="identity"` is what makes it work: at first the blocks are switched off and the shortcuts are all there is, so
that the gradient reaches every layer, and each block comes in as training finds a use for it. The default,
`start="unchanged"`, keeps the outputs, and with them all that keeps the plain net from learning: it is for nets that
have learned something. See it fail here with `--start unchanged`.
"""

import argparse
import time

import keras_residual as kr  # before keras, for which it takes a backend that is installed

# isort: split
import keras
import numpy as np
from keras.layers import Dense, ReLU
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

BLOCKS, WIDTH, EPOCHS = 40, 64, 20


def plain_net() -> keras.Model:
    model = keras.Sequential([keras.Input((64,)), Dense(WIDTH, name="stem"), ReLU(name="stem_relu")], name="net")
    for i in range(1, BLOCKS + 1):
        model.add(Dense(WIDTH, activation="relu", kernel_initializer="he_normal", name=f"block{i}_dense1"))
        model.add(Dense(WIDTH, activation="relu", kernel_initializer="he_normal", name=f"block{i}_dense2"))
    model.add(Dense(10, name="head"))
    return model


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return train_test_split((x / 16).astype("float32"), y, test_size=360, random_state=0, stratify=y)


def trained_accuracy(model: keras.Model) -> float:
    x_train, x_test, y_train, y_test = digits()
    schedule = keras.optimizers.schedules.CosineDecay(0.03, EPOCHS * 23)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=0.03), loss, metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=64, epochs=EPOCHS, verbose=0)
    return float(model.evaluate(x_test, y_test, verbose=0)[1])


def look(title: str, model: keras.Model) -> None:
    x_train, _, y_train, _ = digits()
    print(f"{title}:\n{kr.xray(model, x_train[:256], y_train[:256])}")


def factor_of(block: kr.Residual) -> float:
    scale = block.branch_scale_layer or block.skip_scale_layer
    return abs(float(scale.get_weights()[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", choices=["identity", "unchanged"], default="identity")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    plain = plain_net()
    before = trained_accuracy(plain)
    print(f"plain:    {BLOCKS} blocks, {100 * before:.1f} % of the test digits, {time.perf_counter() - start:.0f} s")
    look("X-ray of the plain net", plain)

    start = time.perf_counter()
    residual = kr.residualize(plain, start=arguments.start, verbose=False)
    after = trained_accuracy(residual)
    print(f"residual: {BLOCKS} blocks, {100 * after:.1f} % of the test digits, {time.perf_counter() - start:.0f} s")
    look("X-ray of the residual net", residual)

    blocks = [layer for layer in residual.layers if isinstance(layer, kr.Residual)]
    factors = [factor_of(block) for block in blocks]
    print(f"the {len(factors)} factors: 0 at first, now {min(factors):.3f} to {max(factors):.3f} in size")
    if before > 0.6:
        raise AssertionError("The plain net learns at this depth: there is nothing to show.")
    if after < 0.95:
        raise AssertionError("The residual net has not learned.")


if __name__ == "__main__":
    main()
