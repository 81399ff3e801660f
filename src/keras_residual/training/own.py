"""A model and data of the caller's own, in the place of those that a configuration names."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_argument, shown, wrong_type
from keras_residual.data import Dataset, Fingerprint
from keras_residual.data.lazy import Inputs, served
from keras_residual.models.freezing import parts
from keras_residual.models.outputs import as_logits, ending
from keras_residual.training.assemble import Assembled
from keras_residual.training.config import OWN, TrainConfig
from keras_residual.training.validation import split_validation

_FORMS = "(x, y), ((x_train, y_train), (x_test, y_test)), or what keras_residual.data.load_dataset takes or returns"
_SOME = 256  # examples that tell what a model gives
_STREAM = 2**31  # apart from the seeds by which validation examples are drawn


class OwnArrays(Dataset):
    """Arrays as they are: examples of any shape and type, with answers of any shape."""

    def __post_init__(self) -> None:
        """Checks the lengths, and that there is something."""
        for part, x, y in (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)):
            if len(x) != len(y) or len(x) == 0:
                rule = "as many inputs as answers in each part, and one at least"
                raise bad_argument("train", "data", rule, f"{len(x)} and {len(y)} of {part}")


@dataclass(frozen=True, eq=False)
class Own:
    """What `train` was given beside a configuration.

    Args:
        model: A built or unbuilt Keras model; None for the one that the configuration names.
        data: In one of the forms that `train` takes; None for those of the configuration.
        loss: As `compile` takes it; None for that with which the model is compiled, or one that suits the data.
        metrics: Likewise.
        optimizer: Likewise; where there is none, it is that of the configuration.
    """

    model: keras.Model | None = None
    data: Any = None
    loss: Any = None
    metrics: Sequence[Any] | None = None
    optimizer: Any = None
    compiled: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        # Later on it is, by a run that may have to compile it in another way.
        object.__setattr__(self, "compiled", bool(getattr(self.model, "compiled", False)))
        if self.model is not None and not isinstance(self.model, keras.Model):
            raise wrong_type("train", "model", "a Keras model, or the name of one", self.model)
        if self.model is None:
            for name in ("loss", "metrics", "optimizer"):
                value = getattr(self, name)
                if value is not None:
                    way_out = "Pass `model` too, or set `optimizer` and `loss` of the configuration."
                    raise bad_argument(
                        "train", name, "left out for a model that the configuration names", value, way_out
                    )

    @property
    def takes_optimizer(self) -> bool:
        """Whether it is the configuration that says how the weights are changed."""
        return self.optimizer is None and not self.compiled

    def settings(self) -> dict[str, Any]:
        """Returns what stands in the configuration of such a run."""
        found = {} if self.model is None else {"model.name": OWN}
        return found if self.source is None else found | {"data.source": OWN}

    @property
    def source(self) -> Any:
        """The caller's data; None for those of the configuration."""
        return None if isinstance(self.data, (str, Path)) else self.data

    def arrays(self, config: TrainConfig) -> Dataset | None:
        """Returns arrays for the caller's own model, as they are; None for what `load_dataset` is to make of the data.

        Raises:
            ValueError: If they have none of the forms.
        """
        data = self.source
        if self.model is None or not isinstance(data, (tuple, list)) or len(data) != 2:
            return None
        if all(isinstance(part, (tuple, list)) and len(part) == 2 for part in data):
            (x_train, y_train), (x_test, y_test) = (tuple(map(_array, part)) for part in data)
            return self._dataset(x_train, y_train, x_test, y_test, own_test=True)
        x, y = map(_array, data)
        if len(x) != len(y):
            raise bad_argument("train", "data", "(x, y) of one length", f"{len(x)} and {len(y)}")
        groups = y.reshape(-1) if _has_classes(y) else y
        learn, test = split_validation(
            groups.astype(int) if _has_classes(y) else y, fraction=config.data.test_fraction,
            classes=int(_has_classes(y)), seed=config.seed + _STREAM,
        )  # fmt: skip
        return self._dataset(x[learn], y[learn], x[test], y[test], own_test=False)

    def assembled(self, dataset: Dataset, config: TrainConfig) -> Assembled:
        """Returns the caller's model in the place of one that is made for the data.

        Raises:
            ValueError: If it cannot be called with the data, not be saved, or not be fine-tuned as the configuration
                says.
        """
        model = self._model
        self._outputs(dataset.x_train)
        with tempfile.TemporaryDirectory() as folder:  # now, and not when the first epoch is over
            try:
                model.save(Path(folder) / "model.keras")
            except Exception as error:
                way_out = "Give it a get_config, see keras.io/guides/serialization_and_saving."
                raise ValueError(f"train: `model` {shown(model.name)} cannot be saved: {error}. {way_out}") from error
        has_parts = {"stem", "head"} <= parts(model).keys()
        if config.finetune.is_asked and (not has_parts or self.optimizer is not None):
            rule = "those of no fine-tuning for a model without parts named stem, stage1, … and head"
            if has_parts:
                rule = "those of no fine-tuning for an optimizer of the caller's own"
            way_out = "Set layer.trainable = False of what is to be frozen."
            raise bad_argument("TrainConfig", "finetune", rule, str(config.finetune), way_out)
        return Assembled(raw=model, network=model, body=model if has_parts else None)

    def compile(self, config: TrainConfig, dataset: Dataset, make: Any) -> None:
        """Compiles the model with what was given, else with what it is compiled with, else with what suits.

        Args:
            config: The configuration, without "auto".
            dataset: The data.
            make: Makes the optimizer of the configuration.
        """
        model = self._model
        compiled, tunes = self.compiled, config.finetune.is_asked
        if compiled and not tunes and self.loss is None and self.metrics is None and self.optimizer is None:
            return
        before: Any = (model.get_compile_config() if compiled else None) or {}
        loss = self.loss_for(dataset)
        metrics = self.metrics if self.metrics is not None else before.get("metrics")
        if metrics is None:
            metrics = ["accuracy"] if _has_classes(dataset.y_train) else []
        optimizer = self.optimizer or (model.optimizer if compiled and not tunes else None) or make()
        model.compile(optimizer=optimizer, loss=loss, metrics=metrics)

    def loss_for(self, dataset: Dataset) -> Any:
        """Returns the loss: the one that was given, else that of the compiled model, else one that suits."""
        if self.loss is not None:
            return self.loss
        compiled = getattr(self._model, "loss", None) if self.compiled else None
        return self._usual_loss(dataset) if compiled is None else compiled

    def tested(self, dataset: Dataset, batch_size: int) -> tuple[dict[str, float], np.ndarray | None]:
        """Returns the numbers of the test, and the logits or numbers of its examples; None of other outputs."""
        model, batches = self._model, Plain(dataset.x_test, dataset.y_test, batch_size)
        quiet: Any = 0
        numbers = model.evaluate(batches, return_dict=True, verbose=quiet)
        # One by one: `predict` of a data set has been seen to put batches together on TensorFlow.
        each: list[Any] = [model.predict_on_batch(batch[0]) for batch in (batches[i] for i in range(len(batches)))]
        found = {f"test_{key}": float(value) for key, value in numbers.items() if np.ndim(value) == 0}
        if not all(isinstance(outputs, np.ndarray) and outputs.ndim == 2 for outputs in each):
            return found, None
        outputs = np.concatenate(each)
        classes = len(dataset.classes)
        if classes and (outputs.shape[-1] == classes or (outputs.shape[-1], classes) == (1, 2)):
            return found, as_logits(outputs, ending(model, outputs), classes=classes)
        return found, None

    def _dataset(
        self, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, *, own_test: bool
    ) -> Dataset:
        classes: tuple[str, ...] = ()
        if _has_classes(y):
            y, y_test = y.reshape(-1), y_test.reshape(-1)
            outputs = self._outputs(x) if self.model is not None else 0
            classes = tuple(str(index) for index in range(max(int(max(y.max(), y_test.max())) + 1, outputs)))
        kind: Any = "arrays"
        task = "classification" if classes else "regression"
        return OwnArrays("arrays", kind, task, x, y, x_test, y_test, classes, (), own_test)

    def _outputs(self, x: Inputs) -> int:
        """Calls the model, and returns the number of outputs for an example; 0 where it is no row of them."""
        model = self._model
        try:
            outputs: Any = model(keras.ops.convert_to_tensor(x[:1]), training=False)
        except Exception as error:
            what = f"an input of shape {x.shape[1:]}, {x.dtype}"
            raise ValueError(f"train: `model` {shown(model.name)} cannot be called with {what}: {error}") from error
        shape = tuple(getattr(outputs, "shape", ()))
        return shape[-1] if len(shape) == 2 else 0

    @property
    def _model(self) -> keras.Model:
        if self.model is None:
            raise ValueError("train: there is no model of the caller's own.")
        return self.model

    def _usual_loss(self, dataset: Dataset) -> Any:
        if not _has_classes(dataset.y_train):
            return "mean_squared_error"
        outputs = np.asarray(self._model.predict(dataset.x_train[:_SOME], verbose=0))  # type: ignore[arg-type]
        logits = ending(self._model, outputs) == "logits"
        if outputs.shape[-1] == 1:
            return keras.losses.BinaryCrossentropy(from_logits=logits)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


class Plain(keras.utils.PyDataset):
    """Batches in order, of which the last may be smaller: the losses and metrics of others know no padding.

    Args:
        x: Examples; one whose file is gone is replaced by the next.
        y: Answers.
        batch_size: Examples in a batch.
        rows: Places of the examples that are served; by default all.
    """

    def __init__(self, x: Inputs, y: np.ndarray, batch_size: int, *, rows: np.ndarray | None = None) -> None:
        super().__init__()
        self._x, self._y, self._batch_size = x, y, batch_size
        self._rows = np.arange(len(x)) if rows is None else rows

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        rows = self._rows[index * self._batch_size : (index + 1) * self._batch_size]
        x, rows = served(self._x, rows)
        return x, self._y[rows]


def fingerprint(dataset: Dataset, choose: np.ndarray, run: int) -> Fingerprint:
    """Returns that of the training examples, whose answers may be of any shape."""
    y = dataset.y_train
    return Fingerprint.of(dataset.x_train, y.reshape(len(y), -1).sum(-1, dtype=np.float64), choose, run=run)


def _has_classes(y: np.ndarray) -> bool:
    """Whether answers are indices of classes: whole numbers of 0 or more, one an example."""
    one = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    return bool(one and y.dtype.kind in "iub" and y.size and y.min() >= 0)


def _array(value: Any) -> np.ndarray:
    if isinstance(value, dict):
        raise wrong_type("train", "data", f"one of {_FORMS}, of arrays; a model with several inputs is not", value)
    array = np.asarray(keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value)
    if array.dtype == object or array.ndim == 0:
        raise wrong_type("train", "data", f"one of {_FORMS}, of arrays of numbers", value)
    return array
