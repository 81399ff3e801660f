"""Sources to batches: built-in sets, folders of pictures, tables, NumPy files; augmentation."""

from keras_residual.data.augment import Augment, Augmentation
from keras_residual.data.batch_picture import draw_batch
from keras_residual.data.batches import Batches, PaddedBatches
from keras_residual.data.builtin import BUILTIN_NAMES
from keras_residual.data.dataset import Dataset
from keras_residual.data.fingerprint import Fingerprint
from keras_residual.data.inputs import load_inputs
from keras_residual.data.keras_sets import KERAS_NAMES
from keras_residual.data.sources import load_dataset

__all__ = [
    "BUILTIN_NAMES",
    "KERAS_NAMES",
    "Augment",
    "Augmentation",
    "Batches",
    "Dataset",
    "Fingerprint",
    "PaddedBatches",
    "draw_batch",
    "load_dataset",
    "load_inputs",
]
