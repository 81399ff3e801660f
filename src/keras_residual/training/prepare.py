"""From a configuration to what a training needs: data, settings without "auto", a new model. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_residual._errors import bad_argument
from keras_residual._optional import require
from keras_residual.data import (
    BUILTIN_NAMES,
    KERAS_NAMES,
    Augmentation,
    Batches,
    Dataset,
    Fingerprint,
    load_dataset,
)
from keras_residual.data.augment import check_shift
from keras_residual.data.lazy import Inputs, set_workers
from keras_residual.training.assemble import Assembled, assemble
from keras_residual.training.config import OWN, TrainConfig, settled
from keras_residual.training.config_file import digest_of_data
from keras_residual.training.defaults import resolve, usual_size
from keras_residual.training.finetune import (
    begin_with,
    check_finetuning,
    read_pretrained,
    said,
    thaw,
    with_pictures_of,
)
from keras_residual.training.fit import SplitBatches
from keras_residual.training.making import make_augmentation
from keras_residual.training.own import Own, fingerprint
from keras_residual.training.resume import Earlier, check_data, earlier, facts
from keras_residual.training.run_directory import check_apart, check_free
from keras_residual.training.validation import split_validation


@dataclass(frozen=True)
class Prepared:
    """A run that can begin or go on: a configuration without "auto", its data, its new model. Good for one training."""

    config: TrainConfig
    dataset: Dataset
    learn: np.ndarray
    choose: np.ndarray
    assembled: Assembled
    facts: Mapping[str, Any]
    trained_on: Fingerprint
    earlier: Earlier | None = None
    about_weights: tuple[str, ...] = ()
    own: Own | None = None

    @property
    def tunes(self) -> bool:
        """Whether parts of the network are frozen, or have rates of their own."""
        if self.own is not None:
            return self.config.finetune.is_asked
        return self.assembled.body is not None and self.config.begins_with_weights

    @property
    def epochs(self) -> int:
        """Passes over the training examples."""
        return settled(self.config.epochs)

    @property
    def steps(self) -> int:
        """Steps in an epoch: whole batches only, of which each part is a step."""
        return len(self.learn) // settled(self.config.batch_size) * self.config.split_batch

    @property
    def augmentation(self) -> Augmentation | None:
        """What is done to the training pictures."""
        return make_augmentation(self.config.augment, classes=len(self.dataset.classes), epochs=self.epochs)

    def batches(self, x: Inputs, y: np.ndarray) -> Batches | SplitBatches:
        """Returns the batches of the data's training part, as it is or standardised, or their parts, by their step."""
        config = self.config
        how: dict[str, Any] = {"augment": self.augmentation, "repeats": config.augment.repeats}
        whole = Batches(x, y, settled(config.batch_size), rows=self.learn, seed=config.seed, **how)
        return SplitBatches(whole, config.split_batch) if config.split_batch > 1 else whole

    @property
    def state(self) -> Mapping[str, Any] | None:
        """What it goes on from; None where it begins."""
        return self.earlier.state if self.earlier else None

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.state["step"] if self.state else 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the data and of the run that goes on."""
        earlier = self.earlier.notes if self.earlier else ()
        return self.dataset.found + self.dataset.notes + self.about_weights + earlier


def prepare(config: TrainConfig | None = None, *, resume: str | Path | None = None, own: Own | None = None) -> Prepared:
    """Reads the data, settles every setting and builds the model; nothing is written.

    Whatever is wrong with the configuration or the data is found here.

    Args:
        config: What to train; None for the default, or for what the run has that is gone on with.
        resume: Directory of a run that is gone on with.
        own: A model or data of the caller's own.

    Raises:
        ValueError: If a setting does not fit the data, the data cannot be learned from, or the run cannot be gone on
            with.
        OSError: If the data cannot be read, or the run directory is in use.
    """
    before = None if resume is None else earlier(resume, config)
    if before is not None:
        config = before.config
    else:
        config = config or TrainConfig()
        if config.out is not None:
            check_free(Path(config.out))
        if config.data.source not in (*BUILTIN_NAMES, *KERAS_NAMES):
            check_apart(config.out, config.data.source)
    if config.xray:
        require("vl_convert", extra="train")  # now, and not when the training is over
    model, source = (None, None) if own is None else (own.model, own.source)
    _check_own(config, resume, model=model is not None, data=source is not None)
    weights = None if model or (before and before.state) else read_pretrained(config.model)
    if weights is not None:
        name = weights.architecture if config.model.name == "auto" else config.model.name
        config = with_pictures_of(config.updated({"model.name": name}), weights)
    begins = weights is not None or (before is not None and before.was.begins_with_weights)
    settings = config.data
    set_workers(settings.workers)
    dataset = (own.arrays(config) if own else None) or load_dataset(
        settings.source if source is None else source,
        target=settings.target,
        task=settings.task,
        image_size=settings.image_size,
        test_fraction=settings.test_fraction,
        drop=settings.drop,
        seed=config.seed,
        classes=settings.classes or None,
        features=settings.features or None,
        usual_size=usual_size(config, weights),
        memory=2**20 * settings.memory,
        most_broken=settings.most_broken,
    )
    learn, choose = split_validation(
        dataset.y_train,
        fraction=settings.validation_fraction,
        classes=len(dataset.classes),
        seed=config.seed,
        own=dataset.choose,
    )
    asked = model is not None and config.finetune.is_asked
    if model is not None and config.loss.class_weights:
        raise bad_argument(
            "TrainConfig", "loss.class_weights", "left out for a model of the caller's own", config.loss.class_weights,
            "Pass a loss that has them: kr.train(model=..., loss=...).",
        )  # fmt: skip
    if model is None:
        check_finetuning(config, dataset, begins=begins)
    config, now = resolve(config, dataset, examples=len(learn), pretrained=begins or asked), facts(dataset)
    trained_on = fingerprint(dataset, choose, digest_of_data(config))
    if before is not None:
        check_data(before, trained_on, now)
    if dataset.kind == "pictures":
        side = min(dataset.input_shape[:2])
        check_shift("TrainConfig", "augment.shift", settled(config.augment.shift), side=side)
    keras.utils.set_random_seed(config.seed)
    any_size = dataset.kind == "pictures" and bool(config.augment.sizes)
    # Unrolled, because batch norms of a scanned stack are no layers that could be frozen.
    assembled = own.assembled(dataset, config) if own and model else assemble(
        config.model, dataset, learn, any_size=any_size, execution="unrolled" if begins else None
    )  # fmt: skip
    about = ()
    if weights is not None and assembled.body is not None:
        begin_with(assembled.body, weights)
        about = said(config, weights, dataset)
    prepared = Prepared(
        config, dataset, learn, choose, assembled, now, trained_on, before, about, own if model else None
    )
    if prepared.tunes and assembled.body is not None:
        thaw(assembled.body, config)
    return prepared


def _check_own(config: TrainConfig, resume: str | Path | None, *, model: bool, data: bool) -> None:
    """Raises a ValueError where a run needs a model or data of the caller's own, and there are none."""
    settings = {"model": (config.model.name, model), "data": (config.data.source, data)}
    missing = [name for name, (setting, there) in settings.items() if setting == OWN and not there]
    if missing:
        call = ", ".join([f"{name}=..." for name in missing] + ([f"resume={str(resume)!r}"] if resume else []))
        raise ValueError(
            f"train: this run needs the caller's own {' and '.join(missing)}, which a configuration does not hold. "
            f"Pass what it was begun with in Python: kr.train({call})"
        )
