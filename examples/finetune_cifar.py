"""Published weights, fine-tuned, beat training from scratch: 4 classes of 500 pictures, two minutes on two cores each.

    python examples/finetune_cifar.py resnet20-12fca82f.th train.parquet test.parquet

The weights are those of ResNet-20 for CIFAR-10, https://github.com/akamaster/pytorch_resnet_cifar10; the pictures are
those of CIFAR-10 as Parquet files, https://huggingface.co/datasets/uoft-cs/cifar10. Of four classes come 500 pictures
each to learn from, and as many to test. `recipe="finetune"` puts a new head on the weights and trains it first and
alone, then everything. The same network with random weights is trained by `"he2015_cifar"` for as many epochs, which
take a little longer, since there nothing is frozen.

The weights have seen these very classes, among others: that is why it is so quick here. Of classes that are further
away expect less.
"""

import argparse
import tempfile
from pathlib import Path

import keras_residual as kr  # before keras, for which it takes a backend that is installed

# isort: split
import numpy as np
import pyarrow.parquet as parquet

CLASSES = {3: "cat", 4: "deer", 5: "dog", 7: "horse"}


def write_folder(table: Path, folder: Path, most: int | None = None) -> None:
    """Writes the pictures of the four classes, one folder a class, as most data of one's own are."""
    content = parquet.read_table(table)
    labels, pictures = np.array(content["label"]), content["img"]
    for label, name in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for row in np.flatnonzero(labels == label)[:most]:
            (folder / name / f"{row}.png").write_bytes(pictures[int(row)].as_py()["bytes"])


def trained(data: Path, out: Path, epochs: int, recipe: str, **model: str) -> float:
    """Returns the accuracy on the test pictures."""
    config = kr.TrainConfig(
        data={"source": str(data)},
        model={"name": "cifar_resnet20", **model},
        augment={"crop": 0.0, "shift": 4, "flip": True},
        epochs=epochs,
        batch_size=64,
        out=str(out),
        xray=False,
        recipe=recipe,
    )
    metrics = kr.train(config).metrics
    accuracy, seconds = metrics["test_accuracy"], metrics["train_seconds"]
    print(f"{recipe:12}: {100 * accuracy:.1f} % of the test pictures, {epochs} epochs in {seconds:.0f} s", flush=True)
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--epochs", type=int, default=25, help="of each of the two")
    parser.add_argument("--pictures", type=int, default=500, help="of each class to learn from")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, runs = Path(folder) / "pictures", Path(folder) / "runs"
        write_folder(arguments.train, data / "train", arguments.pictures)
        write_folder(arguments.test, data / "test", arguments.pictures)
        tuned = trained(data, runs / "tuned", arguments.epochs, "finetune", weights=str(arguments.weights))
        scratch = trained(data, runs / "scratch", arguments.epochs, "he2015_cifar")
    print(f"fine-tuned: {100 * (tuned - scratch):.1f} points more")
    if tuned <= scratch:
        raise AssertionError("Fine-tuning is no better than training from scratch.")


if __name__ == "__main__":
    main()
