"""ResNet-1202, for pictures of 32×32, takes some steps of training on a small machine.

    python examples/resnet1202.py ../shared/data/cifar10-jpeg/train.parquet --steps 20

The data is Parquet with a column of encoded pictures and one of labels, as the Hugging Face Hub has CIFAR-10. With
`remat="full"` only the input of each of the 600 blocks is kept for the backward pass.
"""

import argparse
import resource
import time

import keras_residual as kr  # before keras, for which it takes a backend that is installed

# isort: split
import keras
import numpy as np

from keras_residual.data import load_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a Parquet file of pictures, or a folder of pictures by class")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--depth", type=int, default=1202, help="20, 32, 44, 56, 110, 302 or 1202")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args()

    data = load_dataset(arguments.data)
    pictures = data.x_train[: arguments.steps * arguments.batch_size].astype("float32") / 255
    pictures = (pictures - pictures.mean((0, 1, 2))) / pictures.std((0, 1, 2))
    keras.utils.set_random_seed(0)
    model = kr.create_model(
        f"cifar_resnet{arguments.depth}", input_shape=(32, 32, 3), num_classes=len(data.classes), remat="full"
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(arguments.learning_rate), loss)

    losses = []
    for step, start in enumerate(range(0, len(pictures), arguments.batch_size), start=1):
        began = time.perf_counter()
        batch = slice(start, start + arguments.batch_size)
        losses.append(float(model.train_on_batch(pictures[batch], data.y_train[batch])))
        print(f"step {step:3}: loss {losses[-1]:7.3f}, {time.perf_counter() - began:.1f} s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    first, last = np.mean(losses[: len(losses) // 4]), np.mean(losses[-(len(losses) // 4) :])
    print(f"mean loss of the first quarter {first:.3f}, of the last {last:.3f}; peak memory {peak:.1f} GB")
    if not last < first:
        raise SystemExit("The loss did not fall.")


if __name__ == "__main__":
    main()
