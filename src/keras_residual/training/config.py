"""What a training run is told: a frozen tree of settings, checked when it is made."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from keras_residual._errors import shown, unknown_name
from keras_residual._optional import require
from keras_residual.models.registry import resolve
from keras_residual.training.config_errors import ConfigError, explain, unknown_key
from keras_residual.training.recipes import RECIPES

try:
    from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
    from pydantic.fields import FieldInfo
    from pydantic_core import PydanticCustomError
except ModuleNotFoundError:
    require("pydantic", extra="train")
    raise

Auto = Literal["auto"]
Setting = TypeVar("Setting", bool, int, float, bool | str)
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**6)]
# From a share of the training on, the side of its pictures.
Size = Annotated[tuple[Share, Annotated[int, Field(ge=4, le=4096)]], Field(strict=False)]
OWN = "<own>"
"""The name of a model, and the source of data, that were not named but given to `train`."""
LARGEST = 10**38  # what float32 can hold
_MOST_DOTS = 100
_EVERY = re.compile(r"([1-9]\d{0,8}) ?steps?|(\d{1,6}(?:\.\d{1,6})?) ?min(?:utes?)?")


def _writable(text: str) -> str:
    # Half a character, as of a file name whose bytes are none, comes from the encoder as a question mark.
    if "\0" in text or text.encode(errors="replace").decode() != text:
        raise PydanticCustomError("text", "text without NUL that UTF-8 can hold")
    return text


def _filled(text: str | None) -> str | None:
    if text == "":
        raise PydanticCustomError("text", "text that is not empty")
    return text if text is None else _writable(text)


def _every(text: str) -> str:
    if not _EVERY.fullmatch(text):
        raise PydanticCustomError("text", "a number of steps or of minutes such as '500 steps' or '5 minutes'")
    return text


Text = Annotated[str, AfterValidator(_filled)]
TextOrNone = Annotated[str | None, AfterValidator(_filled)]
# TOML gives lists; every other field is strict, so that `epochs = "5"` or `seed = true` is refused and not guessed at.
# A bare name is a list of one: `--set data.drop=id` needs no brackets that the shell would want quoted.
Names = Annotated[
    tuple[Annotated[str, AfterValidator(_writable)], ...],
    Field(strict=False),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]


class Section(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """What to learn from.

    Args:
        source: A built-in name (`"digits"`), a folder of pictures or a table file.
        target: Column of a table to be predicted.
        task: `"classification"` or `"regression"`; `"auto"` looks at the target.
        image_size: Side in pixels to which pictures are scaled; left out, the data decide.
        test_fraction: Share of the examples kept for the final test, where the source has no test part of its own.
        validation_fraction: Share of the training examples by which the best epoch is chosen.
        drop: Columns of a table that are not to be used.
        classes: Names of the classes in index order; filled in by `resolve`.
        features: Columns of a table in the order the model takes them; filled in by `resolve`.
        memory: Megabytes (2**20 bytes) up to which the inputs stay in memory; of more, examples are read from the disk
            as they are needed.
        workers: Threads that read; left out, one a core. The batches are the same for any number.
        most_broken: Pictures that cannot be read and are skipped; where there are more, the run stops and names some.
    """

    source: Text = "digits"
    target: TextOrNone = None
    task: Literal["auto", "classification", "regression"] = "auto"
    image_size: Annotated[int, Field(ge=4, le=4096)] | None = None
    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.1
    drop: Names = ()
    classes: Names = ()
    features: Names = ()
    memory: Annotated[int, Field(ge=0, le=10**9)] = 512
    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    most_broken: Annotated[int, Field(ge=0, le=10**9)] = 100


HOW_IT_IS_READ = ("memory", "workers", "most_broken")
"""Settings of `data` that change nothing of what is read."""


class ModelConfig(Section):
    """Which network.

    Args:
        name: A name of `keras_residual.list_models()`; `"auto"` chooses by the kind of data. With a tag, as in
            `"resnet50.a1_in1k"`, it begins with pretrained weights.
        drop_path_rate: Probability in `[0, 1)` of dropping the last residual branch in training; it rises linearly from
            0 at the first.
        dropout_rate: Rate in `[0, 1)` of the dropout before the head.
        precision: What the network computes in: `"float32"`, `"bfloat16"` or `"float16"`, the last with its loss scaled
            so that no gradient is lost; weights are 32-bit floats with each.
        weights: Where the weights are that it begins with: a file, a folder or `"hf://owner/name"`; left out, those of
            the name's tag, else random ones. The head is always new.
        crop: Edge in pixels of the middle of a picture, which is all that the network sees; filled in with that of the
            weights, and left out it is the whole picture.
        mean: Mean of each channel, of values 0..1, by which pictures are standardised; filled in with that of the
            weights, and left out it is that of the training pictures.
        std: Deviation of each channel; likewise.
    """

    name: Text = "auto"
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    dropout_rate: Share = 0.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    weights: TextOrNone = None
    crop: Annotated[int, Field(ge=4, le=4096)] | None = None
    mean: Annotated[tuple[float, ...], Field(strict=False)] = ()
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False)] = ()


class FinetuneConfig(Section):
    """How weights that a network begins with are changed; without such weights these settings are of no use.

    Args:
        head_epochs: Epochs at the beginning in which the head is trained alone; `"auto"` is a fifth of all, one at
            least.
        thawed_rate: Share of `optimizer.learning_rate` that the head has afterwards, when everything is trained.
        stage_rate: Share of the head's learning rate that the last stage has, the stage before it of the last one's,
            and so on to the stem.
        batch_norm: `"frozen"` keeps batch norms, with their statistics, as they are; `"auto"` does so where less than
            5,000 pictures are learned from or a batch has less than 16.
    """

    head_epochs: Annotated[int, Field(ge=0, le=10**6)] | Auto = 0
    thawed_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    stage_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch_norm: Literal["frozen", "trained"] | Auto = "auto"

    @property
    def is_asked(self) -> bool:
        """Whether anything is frozen, or has a rate of its own."""
        return self.head_epochs != 0 or self.stage_rate < 1 or self.batch_norm == "frozen"


class OptimizerConfig(Section):
    """How the weights are changed: by default AdamW, whose rate rises linearly, then falls along a cosine to zero.

    What happens in the course of the training is told in shares of its steps.

    Args:
        name: `"adam"`, `"adamw"`, `"sgd"`, `"sgdw"`, `"lars"` or `"lamb"`; see `keras_residual.optimizers`.
        learning_rate: Highest learning rate.
        weight_decay: Weight decay: coupled in `"sgd"`, `"lars"` and `"lamb"`, decoupled in `"adamw"` and `"sgdw"`.
        decayed: Which weights it draws to zero: `"kernels"` (no biases, norms, scales), `"but_norms"` or `"all"`.
        momentum: Share of the running sum of steps that SGD and LARS keep.
        nesterov: Whether SGD and LARS look ahead along that sum.
        schedule: `"cosine"`, `"linear"` and `"one_cycle"` fall to zero, `"step"` by a factor at each milestone;
            `"constant"` stays; `"plateau"` falls by a factor when the training loss has not fallen for some epochs.
        warmup: Share of the steps in which the learning rate rises.
        warmup_start: Share of the learning rate that it rises from; for `"one_cycle"` 0 stands for 1/25.
        milestones: Shares of the steps at which `"step"` falls.
        factor: What `"step"` and `"plateau"` multiply the learning rate by.
        plateau_epochs: Epochs without a lower training loss after which `"plateau"` falls.
        lowest_rate: Learning rate below which `"plateau"` does not fall.
        by_epoch: Whether the learning rate changes only from epoch to epoch.
        clipnorm: Largest norm of all gradients together; 0 for any. LAMB has 1 in the papers.
        accumulate: Batches whose gradients are put together into one step.
        average: Share of a running mean of the weights that is kept at each step; 0 for no such mean. It is the mean
            that is validated and kept.
        average_every: Steps from one mean to the next.
    """

    name: Literal["adam", "adamw", "sgd", "sgdw", "lars", "lamb"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, le=LARGEST)] | Auto = "auto"
    weight_decay: Annotated[float, Field(ge=0, le=LARGEST)] | Auto = "auto"
    decayed: Literal["kernels", "but_norms", "all"] = "kernels"
    momentum: Share = 0.9
    nesterov: bool = False
    schedule: Literal["cosine", "linear", "step", "one_cycle", "constant", "plateau"] = "cosine"
    warmup: Share = 0.1
    warmup_start: Annotated[float, Field(ge=0, le=1)] = 0.0
    milestones: Annotated[tuple[Fraction, ...], Field(strict=False)] = ()
    factor: Fraction = 0.1
    plateau_epochs: Count = 10
    lowest_rate: Annotated[float, Field(ge=0, le=LARGEST)] = 0.0
    by_epoch: bool = False
    clipnorm: Annotated[float, Field(ge=0, le=LARGEST)] = 0.0
    accumulate: Count = 1
    average: Share = 0.0
    average_every: Count = 1


class LossConfig(Section):
    """What is made small where there are classes; for numbers it is the squared error.

    Args:
        name: `"crossentropy"`, or `"binary_crossentropy"` of each class by itself.
        label_smoothing: Share of a label that is spread over all classes.
        class_weights: What the loss of an example is multiplied by, class by class, as `["cat=2.0", "dog=0.5"]`; a
            class that is not named has 1. `"balanced"` is the number of training examples by that of classes times
            those of the class, so that each class counts alike.
    """

    name: Literal["crossentropy", "binary_crossentropy"] = "crossentropy"
    label_smoothing: Share = 0.0
    class_weights: Names = ()


class AugmentConfig(Section):
    """Random changes of the training pictures, in this order; tables have none.

    Args:
        sizes: `[share, side]`: from that share of the epochs on, training pictures have that side in pixels, where the
            test has `data.image_size`. Left out, both have that size.
        crop: Smallest share of a picture that is cut out and resized; 0 leaves pictures whole.
        shift: Largest shift in pixels along each side.
        border: What a shift brings in: `"zero"`, or the mirrored picture, `"reflect"`.
        flip: Whether pictures are mirrored left to right; only for pictures that mean the same in a mirror. With
            `"alternating"` each is mirrored in every other epoch.
        policy: `"randaugment"` (timm's), `"trivialaugment"` (torchvision's) or `"none"`.
        operations: Number of changes of RandAugment, each of which is made with probability 1/2.
        magnitude: Their strength, from 0 to 10.
        magnitude_spread: Standard deviation of the strength.
        jitter: By how much brightness, contrast, saturation and hue change, in this order.
        cutout: Side in pixels of a square that is blackened.
        erase: Probability that a box of a picture is blackened.
        mixup: Strength with which two pictures are put on top of each other; 0 for none.
        cutmix: Strength with which a box of a picture is that of another; 0 for none.
        repeats: Number of times that a batch has a picture, each time changed by itself; an epoch has as many fewer
            pictures.
        test_flip: Whether the answer to a picture is the mean of those to it and to its mirror image, in the test and
            in `evaluate` and `predict`.
    """

    sizes: Annotated[tuple[Size, ...], Field(strict=False)] = ()
    crop: Annotated[float, Field(ge=0, le=1)] = 0.0
    shift: Annotated[int, Field(ge=0, le=4096)] | Auto = "auto"
    border: Literal["zero", "reflect"] = "zero"
    flip: bool | Literal["alternating"] | Auto = "auto"
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    operations: Annotated[int, Field(ge=1, le=16)] = 2
    magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    magnitude_spread: Annotated[float, Field(ge=0, le=10)] = 0.5
    jitter: Annotated[tuple[Annotated[float, Field(ge=0, le=10)], ...], Field(strict=False, max_length=4)] = ()
    cutout: Annotated[int, Field(ge=0, le=4096)] = 0
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=100)] = 0.0
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    test_flip: bool = False


class TrainConfig(Section):
    """Everything that decides a training run.

    Args:
        recipe: A name of `keras_residual.recipes`: its settings hold for all that is not set otherwise.
        data: What to learn from.
        model: Which network.
        finetune: How weights that it begins with are changed.
        optimizer: How the weights are changed.
        loss: What is made small.
        augment: How training pictures are varied.
        epochs: Passes over the training examples.
        steps: Length of the training in steps, which `epochs` follows from; left out, `epochs` says it.
        batch_size: Examples per step.
        batch_share: Largest share of the training examples in a batch, where `batch_size` would be more.
        split_batch: Parts that a batch is computed in, one after the other, which takes less memory: the step is that
            of the mean of their gradients, and so of the whole batch, but batch norms take the statistics of a part. A
            run that has not enough memory in its first epoch begins anew with more parts by itself.
        seed: The one number from which every random choice follows.
        out: Run directory; left out, a fresh `runs/NAME-N`.
        patience: Epochs without a better one after which training ends early; left out, it never does.
        save_every: How often a checkpoint is written from which the run goes on after a power cut: `"5 minutes"`,
            `"500 steps"`.
        max_minutes: Minutes of training after which it stops, with a checkpoint and the report of what there is; the
            run can be gone on with. Left out, there is no limit.
        xray: Whether `report.html` shows the network block by block, before and after training. It costs two steps of
            training, and some seconds of compilation where programs are compiled.

    Raises:
        ConfigError: From `parse` and `with_overrides`, for an unknown key or a value that breaks a rule.

    Example:
        >>> TrainConfig().with_overrides(["optimizer.learning_rate=0.05"]).optimizer.learning_rate
        0.05
        >>> TrainConfig(recipe="he2015_cifar", epochs=8).optimizer.name
        'sgd'
    """

    recipe: TextOrNone = None
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    epochs: Count | Auto = "auto"
    steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    batch_size: Count | Auto = "auto"
    batch_share: Fraction | None = None
    split_batch: Count = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    out: TextOrNone = None
    patience: Count | None = None
    save_every: Annotated[str, AfterValidator(_every)] = "5 minutes"
    max_minutes: Annotated[float, Field(gt=0, le=LARGEST)] | None = None
    xray: bool = True

    @model_validator(mode="before")
    @classmethod
    def _begin_with_recipe(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("recipe"), str):
            return values
        if values["recipe"] not in RECIPES:
            raise unknown_name("TrainConfig", "recipe", values["recipe"], RECIPES)
        given = {
            key: value.model_dump(exclude_unset=True) if isinstance(value, Section) else copy.copy(value)
            for key, value in values.items()
        }
        for key, value in RECIPES[values["recipe"]].settings.items():
            section, _, name = key.rpartition(".")
            place = given.setdefault(section, {}) if section else given
            if isinstance(place, dict):  # what is no section is refused for what it is
                place.setdefault(name, value)
        return given

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Makes a configuration from nested dictionaries, with an error that names the key."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(explain(error, cls.dotted_keys())) from None

    @classmethod
    def dotted_keys(cls) -> dict[str, FieldInfo]:
        """Returns every setting by its dotted key, in order."""
        return dict(_leaves(cls))

    def updated(self, settings: Mapping[str, Any]) -> Self:
        """Returns a copy with values set by dotted key, for example `{"model.name": "small_resnet"}`."""
        if settings.get("recipe") is not None and self.recipe not in (None, settings["recipe"]):
            raise ConfigError(
                f"TrainConfig: `recipe` is {shown(self.recipe)} already, and its settings would stay. Begin with "
                "another configuration."
            )
        # What nobody has set is left to a recipe.
        values = self.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        for key, value in settings.items():
            place = values
            *sections, name = key.split(".")
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = value
        return self.parse(values)

    def with_overrides(self, assignments: Iterable[str]) -> Self:
        """Returns a copy with `"section.key=value"` assignments applied; values are TOML, else bare strings."""
        keys, settings = self.dotted_keys(), {}
        for assignment in assignments:
            key, text = _split(assignment)
            if key not in keys:
                raise ConfigError(unknown_key(key, keys))
            value = _toml_value(key, text)
            settings[key] = text if _is_text(keys[key]) and not isinstance(value, str) else value
        return self.updated(settings)

    @property
    def begins_with_weights(self) -> bool:
        """Whether the network begins with weights that were trained before."""
        named = self.model.name not in ("auto", OWN)
        return self.model.weights is not None or (named and resolve(self.model.name)[1] is not None)

    @property
    def checkpoint_every(self) -> tuple[int | None, float]:
        """Steps between two checkpoints, None for a number of seconds, which is the other."""
        found = _EVERY.fullmatch(self.save_every)
        steps, minutes = found.groups() if found else (None, None)
        return int(steps) if steps else None, 60 * float(minutes or 0)

    def flat(self) -> dict[str, Any]:
        """Returns the value of every setting by its dotted key."""
        return {
            ".".join(part for part in (section, name) if part): value
            for section, owner in [("", self), *((name, value) for name, value in self if isinstance(value, Section))]
            for name, value in owner
            if not isinstance(value, Section)
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as nested dictionaries of plain values, without those that are `None`."""
        return self.model_dump(mode="json", exclude_none=True)


def settled(setting: Setting | Auto) -> Setting:
    """Returns a setting that `resolve` has made a value."""
    if setting == "auto":
        raise ValueError("TrainConfig: a setting is still 'auto'. Pass the configuration through `resolve`.")
    return setting


def _leaves(owner: type[Section], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in owner.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _leaves(field.annotation, f"{before}{name}.")
        else:
            yield before + name, field


def parse_toml(text: str) -> dict[str, Any]:
    """Returns what TOML holds, in a time that is bounded by its length.

    Raises:
        tomllib.TOMLDecodeError: If it is none.
        ValueError: If it has brackets in brackets, dots or digits by the thousand.
    """
    # Python's parser takes the square of the number of names in a dotted key, and we have two.
    words = re.findall(r"""[\w."'-]+""", text.replace(" ", "").replace("\t", ""))
    if any(word.count(".") > _MOST_DOTS for word in words):
        raise ValueError(f"a key has more than {_MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def _split(assignment: str) -> tuple[str, str]:
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"A setting must be written key=value, but received {shown(assignment)}. Example: epochs=20")
    return key.strip(), text.strip()


def _is_text(field: FieldInfo) -> bool:
    """Whether a field takes any text, so that a column named 2020 stays a name."""
    return field.annotation is str or set(get_args(field.annotation)) == {str, type(None)}


def _toml_value(key: str, text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except ValueError:
        raise ConfigError(f"TrainConfig: `{key}` must be shorter than what came: {shown(text)}.") from None
