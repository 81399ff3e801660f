"""Fine-tuning: a new head on weights that are there, pictures as these expect them, the head first and then all."""

import itertools
import json
import re

import keras
import numpy as np
import pytest

import keras_residual as kr
from keras_residual.data import Dataset
from keras_residual.models.freezing import parts
from keras_residual.training import train as training
from keras_residual.training.assemble import assemble
from keras_residual.training.config import TrainConfig
from keras_residual.training.defaults import resolve
from keras_residual.training.finetune import Pretrained, read_pretrained, with_pictures_of
from keras_residual.training.run_directory import RunDirectory
from keras_residual.training.stopped import TrainingStopped
from keras_residual_cli.app import run

any_backend = pytest.mark.any_backend

EPOCHS, HEAD, STEPS, SIDE = 3, 1, 3, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of a network for other classes, and pictures of four classes."""
    folder = tmp_path_factory.mktemp("finetune")
    keras.utils.set_random_seed(5)
    model = kr.create_model("cifar_resnet20", input_shape=(SIDE, SIDE, 3), num_classes=10)
    for weight in model.weights:  # as after a training no bias is 0, and no statistics are those of the beginning
        if len(weight.shape) == 1:
            weight.assign(weight + 0.1)
    kr.save_weights(model, folder / "weights.safetensors")
    rng = np.random.default_rng(0)
    y = np.arange(80) % 4
    x = np.clip(rng.normal(size=(80, SIDE, SIDE, 3)) * 40 + 60 * y[:, None, None, None], 0, 255).astype("uint8")
    np.savez(folder / "pictures.npz", x=x, y=y)
    return folder


def config(folder, out, *settings):
    start = [f"data.source={folder / 'pictures.npz'}", "model.name=cifar_resnet20", "xray=false", "batch_size=16"]
    start += [f"model.weights={folder / 'weights.safetensors'}", f"epochs={EPOCHS}", f"finetune.head_epochs={HEAD}"]
    return TrainConfig(out=str(out), recipe="finetune").with_overrides([*start, *settings])


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing the report takes as long as training."""
    monkeypatch.setattr(training, "write_report", lambda run, *_, **__: run.report.touch())


class Look(keras.callbacks.Callback):
    """Keeps the weights after each epoch, and the optimizer that made them."""

    def __init__(self):
        super().__init__()
        self.seen, self.optimizers = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append([np.array(weight) for weight in self.model.get_weights()])
        self.optimizers.append(self.model.optimizer)


def breaking(step):
    steps = itertools.count()

    def fail(batch, logs=None):
        if next(steps) == step:
            raise RuntimeError("broken")

    return keras.callbacks.LambdaCallback(on_train_batch_end=fail)


def by_part(body, weights):
    """Returns weights by part and kind, from a list in the order of `body.get_weights()`."""
    owners = {id(v): part for part, layers in parts(body).items() for layer in layers for v in layer.variables}
    found = {}
    for variable, value in zip(body.weights, weights, strict=True):
        found.setdefault((owners[id(variable)], "norm" if "norm" in variable.path else "map"), []).append(value)
    return found


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# --- What is trained when --------------------------------------------------------------------------------------------


@pytest.mark.every("torch")
@pytest.mark.parametrize("norms", ["auto", "trained"])
def test_the_head_is_trained_first_then_all_but_frozen_norms(folder, tmp_path, norms):
    prepared = training.prepare(config(folder, tmp_path / "run", f"finetune.batch_norm={norms}"))
    body, look = prepared.assembled.body, Look()
    before = by_part(body, [np.array(w) for w in prepared.assembled.network.get_weights()])
    training.train(prepared, callbacks=[look])
    first, last = (by_part(body, seen) for seen in (look.seen[HEAD - 1], look.seen[-1]))
    frozen = norms == "auto"  # few pictures
    for (part, kind), values in before.items():
        assert same(values, first[part, kind]) is (part != "head"), (part, kind)
        assert same(values, last[part, kind]) is (kind == "norm" and frozen), (part, kind)
    # A rate for each stage, each with a schedule of its own length.
    head, whole = look.optimizers[0], look.optimizers[-1]
    assert head is not whole
    assert float(head._learning_rate(0.3 * HEAD * STEPS - 1)) == pytest.approx(2e-3, rel=0.3)
    shares = {
        part: {whole.shares[i] for i, v in enumerate(body.trainable_variables) if v.path.startswith(part)}
        for part in ("stem", "stage1", "stage2", "stage3", "head")
    }
    for place, found in enumerate(shares.values()):
        assert list(found) == pytest.approx([2.6 ** (place - 4)])
    pieces = whole.inner_optimizer._learning_rate.pieces
    assert max(rate for _, _, rate in pieces) == pytest.approx(1e-3)
    assert max(end for _, end, _ in pieces) == (EPOCHS - HEAD) * STEPS - 1


def test_the_body_begins_as_the_weights_and_the_head_is_new(folder, tmp_path):
    prepared = training.prepare(config(folder, tmp_path / "run"))
    body = prepared.assembled.body
    theirs = kr.create_model("cifar_resnet20", input_shape=(SIDE, SIDE, 3), num_classes=10)
    kr.load_weights(theirs, folder / "weights.safetensors")
    assert same(body.get_weights()[:-2], theirs.get_weights()[:-2])
    assert body.output_shape == (None, 4)
    # The same number of classes is not the same classes.
    x, y = np.zeros((60, SIDE, SIDE, 3), "uint8"), np.arange(60) % 10
    np.savez(tmp_path / "ten.npz", x=x, y=y)
    ten = training.prepare(config(folder, tmp_path / "ten", f"data.source={tmp_path / 'ten.npz'}", "batch_size=2"))
    assert ten.assembled.body.output_shape == (None, 10)
    assert same(ten.assembled.body.get_weights()[:-2], theirs.get_weights()[:-2])
    assert not same(ten.assembled.body.get_weights()[-2:-1], theirs.get_weights()[-2:-1])


@pytest.mark.parametrize(
    "fails",
    [
        HEAD * STEPS + 1,
        pytest.param(HEAD * STEPS, marks=any_backend),
        *(
            pytest.param(step, marks=[any_backend, pytest.mark.slow])
            for step in (1, HEAD * STEPS - 1, (HEAD + 1) * STEPS)
        ),
    ],
)
def test_a_run_goes_on_exactly_before_at_and_after_the_thaw(folder, tmp_path, fails, whole):
    settings = ["save_every=1 step", "model.drop_path_rate=0.2"]
    with pytest.raises(TrainingStopped, match="broken"):
        training.train(config(folder, tmp_path / "run", *settings), callbacks=[breaking(fails)])
    keras.utils.set_random_seed(99)
    result = training.train(resume=tmp_path / "run")
    assert left(result) == whole


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_report", lambda run, *_, **__: run.report.touch())
        out = tmp_path_factory.mktemp("whole") / "run"
        settings = ["save_every=1 step", "model.drop_path_rate=0.2"]
        return left(training.train(config(folder, out, *settings)))


def left(result):
    last = RunDirectory(result.run_directory).last / f"step-{EPOCHS * STEPS}.npz"
    with np.load(last) as file:
        arrays = [file[str(index)].tobytes() for index in range(len(file.files) - 1)]
    return (result.metrics["test_loss"], [{**row, "seconds": 0} for row in result.history], arrays)


@any_backend
def test_more_epochs_leave_the_thaw_where_it_was(folder, tmp_path):
    begun = config(folder, tmp_path / "run", "finetune.head_epochs=auto")
    with pytest.raises(TrainingStopped, match="broken"):
        training.train(begun, callbacks=[breaking(0)])
    longer = training.prepare(begun.updated({"epochs": 20}), resume=tmp_path / "run")
    assert (longer.config.epochs, longer.config.finetune.head_epochs) == (20, 1)


# --- What is chosen --------------------------------------------------------------------------------------------------


def pictures(side, channels=3):
    x, y = np.full((2, side, side, channels), 7, np.uint8), np.array([0, 1], np.int32)
    return Dataset("p", "pictures", "classification", x, y, x, y, ("a", "b"), ())


@any_backend
@pytest.mark.parametrize(
    ("examples", "batch", "expected"),
    [(4_999, 64, "frozen"), (5_000, 64, "trained"), (5_000, 15, "frozen"), (5_000, 16, "trained")],
)
def test_norms_are_frozen_below_a_number_of_pictures_or_a_batch(examples, batch, expected):
    chosen = resolve(TrainConfig(batch_size=batch), pictures(32), examples=examples, pretrained=True)
    assert chosen.finetune.batch_norm == expected
    assert resolve(TrainConfig(batch_size=batch), pictures(32), examples=examples).finetune.batch_norm == "trained"
    set_by_user = TrainConfig(batch_size=batch).with_overrides(["finetune.batch_norm=trained"])
    assert resolve(set_by_user, pictures(32), examples=examples, pretrained=True).finetune.batch_norm == "trained"


@any_backend
@pytest.mark.parametrize(("examples", "epochs", "head"), [(20, 50, 10), (100, 34, 7), (1_600, 8, 2), (50_000, 5, 1)])
def test_epochs_make_enough_steps_and_a_fifth_of_them_is_the_heads(examples, epochs, head):
    chosen = resolve(TrainConfig(recipe="finetune"), pictures(32), examples=examples, pretrained=True)
    assert (chosen.epochs, chosen.finetune.head_epochs) == (epochs, head)
    single = resolve(TrainConfig(recipe="finetune", epochs=1), pictures(8), examples=99, pretrained=True)
    assert single.finetune.head_epochs == 0


@any_backend
@pytest.mark.parametrize(
    ("settings", "size", "crop", "mean"),
    [
        ([], 235, 224, (0.5, 0.4, 0.3)),
        (["data.image_size=160"], 160, None, (0.5, 0.4, 0.3)),
        (["data.image_size=160", "model.crop=128"], 160, 128, (0.5, 0.4, 0.3)),
        (["model.mean=[0.1, 0.1, 0.1]", "model.std=[1.0, 1.0, 1.0]"], 235, 224, (0.1, 0.1, 0.1)),
    ],
)
def test_pictures_are_as_the_weights_expect_unless_it_is_set(settings, size, crop, mean):
    weights = Pretrained("resnet50", {}, "w", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 224, 0.95)
    found = with_pictures_of(TrainConfig().with_overrides(settings), weights)
    assert (found.data.image_size, found.model.crop, found.model.mean) == (size, crop, mean)
    # What a run writes down is what it reads back.
    assert with_pictures_of(found, weights) == found


@any_backend
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_saved_model_cuts_and_standardises(data_format, channels):
    keras.config.set_image_data_format(data_format)
    settings = ["model.name=small_resnet", "model.drop_path_rate=0.0", "model.crop=8"]
    chosen = TrainConfig().with_overrides([*settings, "model.mean=[0.5, 0.4, 0.3]", "model.std=[0.2, 0.3, 0.4]"])
    built = assemble(chosen.model, pictures(11, channels), np.arange(2))
    x = np.random.default_rng(0).integers(0, 256, (2, 11, 11, channels)).astype("uint8")
    middle = x[:, 1:9, 1:9].astype("float32")
    mean, std = (np.array(v) if channels == 3 else np.mean(v) for v in (chosen.model.mean, chosen.model.std))
    given = ((middle / 255 - mean) / std).astype("float32")
    given = np.moveaxis(given, -1, 1) if data_format == "channels_first" else given
    expected = built.body.predict(given, verbose=0)
    np.testing.assert_allclose(built.raw.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)


@any_backend
def test_a_folder_says_which_network_and_which_pictures(folder, tmp_path):
    about = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "input_size": [3, 32, 32], "crop_pct": 0.875}
    content = (folder / "weights.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "cifar_resnet20", "pretrained_cfg": about}))
    found = read_pretrained(TrainConfig().with_overrides([f"model.weights={tmp_path}"]).model)
    assert (found.architecture, found.mean, found.size, found.crop_pct) == ("cifar_resnet20", (0.5,) * 3, 32, 0.875)
    assert found.told
    # What makes no sense is as if it were not there.
    for wrong in ({"mean": [1, "x"]}, {"std": [0, 0, 0]}, {"crop_pct": 7}, {"input_size": [3, -1, -1]}, {"std": 3}):
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "cifar_resnet20", "pretrained_cfg": wrong}))
        found = read_pretrained(TrainConfig().with_overrides([f"model.weights={tmp_path}"]).model)
        assert (found.mean[0], found.std[0], found.size, found.crop_pct) == (0.485, 0.229, None, 1.0)


@any_backend
def test_a_tag_names_a_repository_of_the_hub_and_its_pictures(monkeypatch):
    asked = []

    def opened(place):
        asked.append(place)
        raise ConnectionError("no network")

    monkeypatch.setattr("keras_residual.training.finetune.open_location", opened)
    for name in ("resnet50.a1_in1k", "resnet_50_imagenet"):  # KerasHub's name for the same
        with pytest.raises(ConnectionError):
            training.prepare(TrainConfig(recipe="finetune").with_overrides([f"model.name={name}"]))
    assert asked == ["hf://timm/resnet50.a1_in1k"] * 2


@any_backend
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.source=digits"], "TrainConfig: fine-tuning begins with weights, and there are none. Name a network"),
        (["data.source=wine", "WEIGHTS", "model.name=cifar_resnet20"], "Data 'wine': weights to begin with are those"),
        (["data.source=digits", "WEIGHTS"], "do not say which network they are of. Name it: --model NAME"),
        (
            ["data.source=digits", "WEIGHTS", "model.name=cifar_resnet20", "model.crop=99"],
            "TrainConfig: `model.crop` must be at most the pictures' edge, 8, but received 99",
        ),
        (
            ["data.source=digits", "WEIGHTS", "model.name=cifar_resnet20", "model.mean=[0.5, 0.5]", "model.std=[1.0]"],
            "",
        ),
        (["WEIGHTS", "model.name=cifar_resnet32"], "does not fit 'cifar_resnet32'"),
        (["model.weights=nowhere.th", "model.name=cifar_resnet20"], "Checkpoint 'nowhere.th': there is no such file"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(folder, tmp_path, settings, message):
    settings = [f"model.weights={folder / 'weights.safetensors'}" if s == "WEIGHTS" else s for s in settings]
    wrong = TrainConfig(recipe="finetune", xray=False).with_overrides(settings)
    if not message:  # two means for one channel are taken together
        training.prepare(wrong)
        return
    with pytest.raises((ValueError, kr.CheckpointError), match=re.escape(message)):
        training.prepare(wrong)


# --- On the command line ---------------------------------------------------------------------------------------------


@any_backend
def test_the_command_says_what_it_does(folder, tmp_path, capfd):
    call = ["train", str(folder / "pictures.npz"), "--model", "cifar_resnet20", "--recipe", "finetune"]
    call += ["--weights", str(folder / "weights.safetensors"), "--out", str(tmp_path / "run"), "--epochs", "2"]
    assert run([*call, "--set", "xray=false"]) == 0
    told = capfd.readouterr().out
    for words in (
        "with a new head for 4 classes.",
        "Pictures are scaled to 8×8, and standardised by mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225), as is",
        "Epoch 1 of 2: the head alone.",
        "Each stage has 0.385 of the learning rate",
        "Batch norms keep the statistics of the weights",
    ):
        assert words in told
    assert run(["evaluate", str(tmp_path / "run")]) == 0
