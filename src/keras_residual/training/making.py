"""From settings to a network that can be trained: the optimizer with its schedule, the loss, the augmentation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_residual.data import Augmentation
from keras_residual.stacks.variables import rank_in_block
from keras_residual.training.config import AugmentConfig, OptimizerConfig, TrainConfig, settled
from keras_residual.training.losses import Crossentropy, accuracy, crossentropy
from keras_residual.training.optimizers import SGD, Averaged, Discriminative, Lamb, Lars, schedules
from keras_residual.training.record import EXACT

_NORM = re.compile(r"Norm(?!ali[sz]ed|ed)")
_BIAS = re.compile(r"(^|_)bias($|_)")


def compile_learner(
    learner: keras.Model,
    config: TrainConfig,
    *,
    classes: int,
    epochs: int,
    steps_per_epoch: int,
    shares: Sequence[float] | None = None,
) -> None:
    """Compiles a network with what a resolved configuration says; the loss also as a metric, without smoothing.

    Args:
        learner: The network.
        config: Without "auto".
        classes: Number of classes; 0 for numbers.
        epochs: Passes over the training examples.
        steps_per_epoch: Steps in each.
        shares: Share of the learning rate of each trainable weight; None for all of it.
    """
    optimizer = make_optimizer(
        together(config), steps=epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch, shares=shares
    )
    optimizer.exclude_from_weight_decay(var_list=without_decay(learner, config.optimizer.decayed))
    if config.model.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    if classes:
        loss: Any = Crossentropy(
            "binary" if config.loss.name == "binary_crossentropy" else "softmax",
            config.loss.label_smoothing,
            [float(pair.rpartition("=")[2]) for pair in config.loss.class_weights] or None,
        )
        metrics = [
            keras.metrics.MeanMetricWrapper(accuracy, name="accuracy"),
            keras.metrics.MeanMetricWrapper(crossentropy, name=EXACT),
        ]
    else:
        loss, metrics = "mean_squared_error", [keras.metrics.MeanSquaredError(EXACT)]
    learner.compile(optimizer=optimizer, loss=loss, weighted_metrics=metrics)


def together(config: TrainConfig) -> OptimizerConfig:
    """Returns the settings of an optimizer that puts the gradients of the parts of a batch together too."""
    return config.optimizer.model_copy(update={"accumulate": config.optimizer.accumulate * config.split_batch})


def make_optimizer(
    config: OptimizerConfig, *, steps: int, steps_per_epoch: int = 1, shares: Sequence[float] | None = None
) -> Any:
    """Returns the optimizer over `steps` steps; `shares` are those of the learning rate, weight by weight."""
    options: dict[str, Any] = {"global_clipnorm": config.clipnorm or None}
    if config.accumulate > 1:
        options["gradient_accumulation_steps"] = config.accumulate
    rate, decay = _schedule(config, steps, steps_per_epoch), settled(config.weight_decay)
    momentum = {"momentum": config.momentum, "nesterov": config.nesterov}
    make: dict[str, Callable[[], Any]] = {
        "adam": lambda: keras.optimizers.Adam(rate, weight_decay=decay or None, **options),
        "adamw": lambda: keras.optimizers.AdamW(rate, weight_decay=decay, **options),
        "sgd": lambda: SGD(rate, weight_decay=decay, **momentum, **options),
        "sgdw": lambda: SGD(rate, weight_decay=decay, decoupled=True, **momentum, **options),
        "lars": lambda: Lars(rate, weight_decay=decay, **momentum, **options),
        "lamb": lambda: Lamb(rate, weight_decay=decay, **options),
    }
    optimizer = make[config.name]()
    if shares is not None:
        optimizer = Discriminative(optimizer, shares)
    return Averaged(optimizer, config.average, config.average_every) if config.average else optimizer


def _schedule(config: OptimizerConfig, steps: int, steps_per_epoch: int) -> Any:
    rate = settled(config.learning_rate)
    warmup = min(round(config.warmup * steps), steps - 1)
    if config.schedule == "plateau":
        return rate  # a number, which `watch_plateau` changes
    every = steps_per_epoch if config.by_epoch else 1
    if config.schedule == "one_cycle":
        return schedules.one_cycle(rate, steps, warmup=warmup, start=config.warmup_start or 0.04, every=every)
    rising: dict[str, Any] = {"warmup": warmup, "start": config.warmup_start, "every": every}
    if config.schedule == "step":
        milestones = sorted({max(1, round(share * steps)) for share in config.milestones})
        return schedules.step_decay(rate, steps, milestones, factor=config.factor, **rising)
    if config.schedule == "constant":
        return schedules.step_decay(rate, steps, (), **rising)
    return {"cosine": schedules.cosine, "linear": schedules.linear}[config.schedule](rate, steps, **rising)


def watch_plateau(config: OptimizerConfig) -> list[keras.callbacks.Callback]:
    """Returns the callback that lowers the learning rate where the training loss stays, if that is asked for."""
    if config.schedule != "plateau":
        return []
    return [
        keras.callbacks.ReduceLROnPlateau(
            "loss", factor=config.factor, patience=config.plateau_epochs, min_lr=config.lowest_rate, min_delta=1e-4
        )
    ]


def without_decay(learner: keras.Model, rule: str) -> list[Any]:
    """Returns the trainable weights of a model that are not drawn towards zero.

    Args:
        learner: The model.
        rule: `"kernels"`: those of norms, biases, and all with fewer than two axes, such as the scales of branches.
            `"but_norms"`: those of norms. `"all"`: none.
    """
    if rule == "all":
        return []
    norms = [weight for layer in learner._flatten_layers() if is_norm(layer) for weight in layer.trainable_variables]
    if rule == "but_norms":
        return norms
    of_norms = {id(variable) for variable in norms}
    return [
        variable
        for variable in learner.trainable_variables
        # Some biases have two axes: a head and its features, or the two halves of a GRU.
        if id(variable) in of_norms or rank_in_block(variable) < 2 or _BIAS.search(variable.name)
    ]


def is_norm(layer: keras.Layer) -> bool:
    """Returns whether a layer is a norm: one without layers inside whose class, or one it is made from, is called so.

    That holds for those of Keras and of this library, and for most that people write.
    """
    called = any(_NORM.search(kind.__name__) for kind in type(layer).mro())
    return called and not layer._flatten_layers(include_self=False)


def make_augmentation(config: AugmentConfig, *, classes: int, epochs: int = 1) -> Augmentation | None:
    """Returns what is done to training pictures in a training of so many epochs, None for nothing."""
    settings = config.model_dump(exclude={"repeats", "test_flip", "sizes"})
    shift, flip = settled(config.shift), settled(config.flip)
    # Of sizes that fall into one epoch, where there are few, the last holds.
    sizes = tuple({round(share * epochs): side for share, side in config.sizes}.items())
    wanted = Augmentation(**settings | {"shift": shift, "flip": flip, "sizes": sizes, "classes": classes})
    does = wanted.changes_pictures or wanted.mixup or wanted.cutmix
    return wanted if does else None
