"""What counts as test: never what the model was trained on, whatever it is called, and what a score is worth."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from keras import layers
from PIL import Image

from keras_residual.data import load_dataset
from keras_residual.models.outputs import as_logits, ending
from keras_residual.training import train as training
from keras_residual.training.config import TrainConfig
from keras_residual.training.evaluate import evaluate, load_test_data
from keras_residual.training.predict import load_prediction_inputs, predict
from keras_residual.training.saved import NoAnswerError, load_saved
from keras_residual.training.scores import log_probabilities

pytestmark = pytest.mark.any_backend

LEFT_OUT = "Left out of the test: {} of {} examples; the model was trained on {} of them, and {} chose its best epoch."
IN_BOTH = "Left out of the test: {} of {} examples, which the training part has too."
COUNTED = "Counted in the test, though equal to training examples in all that the model sees: {} of {} examples."


def run(folder, source, *settings):
    """Trains for an epoch, which is enough to tell one set of test examples from another."""
    told = [f"data.source={source}", "epochs=1", "xray=false", *settings]
    return training.train(TrainConfig(out=str(folder / "run")).with_overrides(told))


def found(saved, *arguments, **named):
    data = load_test_data(saved, *map(str, arguments), **named)
    return evaluate(saved, data), data


# Rows ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Random labels: 200 rows, of which 40 test."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    table = pa.table(
        {"a": rng.normal(size=200), "b": rng.integers(0, 50, 200), "kind": rng.choice(["x", "y", "z"], 200)}
    )
    pyarrow.csv.write_csv(table, folder / "noise.csv")
    return folder, table, run(folder, folder / "noise.csv", "data.target=kind", "epochs=30")


@pytest.fixture
def renamed(noise, tmp_path):
    """The same rows by other names, in other orders and formats."""
    folder, table, _ = noise
    order = np.random.default_rng(1).permutation(200)
    pyarrow.csv.write_csv(table.take(order), tmp_path / "reordered.csv")
    pyarrow.csv.write_csv(table.select(["kind", "b", "a"]), tmp_path / "columns.csv")
    pq.write_table(table, tmp_path / "noise.parquet")
    (tmp_path / "link.csv").symlink_to(folder / "noise.csv")
    text = (folder / "noise.csv").read_text().replace('"', "").replace(",", ";")
    (tmp_path / "copy.csv").write_text(text)
    floats = table.set_column(1, "b", table.column("b").cast(pa.float64()))
    pq.write_table(floats, tmp_path / "floats.parquet")
    return tmp_path


def test_the_training_rows_count_by_no_name(noise, renamed, monkeypatch):
    folder, _, result = noise
    saved = load_saved(folder / "run")
    monkeypatch.chdir(folder)
    assert result.metrics["test_accuracy"] < 0.6  # and 0.7 where the training rows count
    names = (None, "noise.csv", "./noise.csv", folder / "noise.csv", *sorted(renamed.iterdir()))
    for name in names:
        scores, data = found(saved, *([name] if name else []))
        assert scores == {**{key: result.metrics[key] for key in scores if key != "examples"}, "examples": 40}, name
        assert data.notes == (LEFT_OUT.format(160, 200, 144, 16),)


def test_rows_that_were_reordered_in_their_place(noise, tmp_path):
    folder, table, result = noise
    run_folder = shutil.copytree(folder, tmp_path / "moved")
    order = np.random.default_rng(2).permutation(200)
    pyarrow.csv.write_csv(table.take(order), folder / "noise.csv")
    try:
        scores, _ = found(load_saved(run_folder / "run"))
    finally:
        pyarrow.csv.write_csv(table, folder / "noise.csv")
    assert scores["test_accuracy"] == result.metrics["test_accuracy"]


def test_new_rows_all_count_and_old_ones_among_them_do_not(noise, tmp_path):
    folder, table, _ = noise
    saved = load_saved(folder / "run")
    rng = np.random.default_rng(3)
    new = pa.table({"a": rng.normal(size=50), "b": rng.integers(0, 50, 50), "kind": rng.choice(["x", "y", "z"], 50)})
    pq.write_table(new, tmp_path / "new.parquet")
    pq.write_table(pa.concat_tables([new, table]), tmp_path / "both.parquet")
    pq.write_table(table.slice(0, 100), tmp_path / "half.parquet")
    assert found(saved, tmp_path / "new.parquet")[0]["examples"] == 50
    assert load_test_data(saved, str(tmp_path / "new.parquet")).notes == ()
    assert found(saved, tmp_path / "both.parquet")[0]["examples"] == 90
    trained = len(load_test_data(saved, str(tmp_path / "half.parquet")).y_test)
    assert 10 < trained < 30  # about a fifth of 100


def test_other_labels_do_not_make_a_row_new(noise, tmp_path):
    folder, table, _ = noise
    turned = table.set_column(2, "kind", table.column("kind").take(np.arange(200)[::-1]))
    pq.write_table(turned, tmp_path / "turned.parquet")
    assert len(load_test_data(load_saved(folder / "run"), str(tmp_path / "turned.parquet")).y_test) == 40


def test_nothing_left_to_test_with(noise, tmp_path):
    folder, table, _ = noise
    saved = load_saved(folder / "run")
    test = load_test_data(saved)
    seen = {tuple(row) for row in test.x_test}
    trained = [row for row in range(200) if (table["a"][row].as_py(), float(table["b"][row].as_py())) not in seen]
    pq.write_table(table.take(trained), tmp_path / "trained.parquet")
    message = (
        "Data 'trained': the model was trained on all 160 examples or its best epoch was chosen by them, so that none "
        "is left to test with. Name other data."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_test_data(saved, str(tmp_path / "trained.parquet"))


def test_rows_may_be_equal_by_chance(tmp_path):
    # Four different rows in all, 60 times each.
    rows = [f"{row % 2},{row // 2 % 2},{'uv'[row % 2]}" for row in range(240)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    result = run(tmp_path, tmp_path / "t.csv", "data.target=y")
    saved = load_saved(tmp_path / "run")
    scores, data = found(saved)
    assert (scores["examples"], data.notes) == (48, (LEFT_OUT.format(192, 240, 173, 19), COUNTED.format(48, 48)))
    assert scores["test_loss"] == pytest.approx(result.metrics["test_loss"])
    assert COUNTED.format(48, 48) in (tmp_path / "run" / "log.txt").read_text()
    (tmp_path / "new.csv").write_text("\n".join(["a,b,y", *rows[:20]]))
    assert found(saved, tmp_path / "new.csv")[0]["examples"] == 20


def test_a_run_without_a_record_says_so(noise, tmp_path):
    folder, _, _ = noise
    copy = shutil.copytree(folder / "run", tmp_path / "run")
    (copy / "trained_on.npz").unlink()
    data = load_test_data(load_saved(copy))
    assert len(data.y_test) == 200
    assert data.notes == (
        "Nothing tells what the model was trained on, so there may be training examples in the test.",
    )
    (copy / "trained_on.npz").write_bytes(b"something else")
    with pytest.raises(
        ValueError, match=r"trained_on\.npz: the file .* cannot be read as npz .*\. Remove it, or train"
    ):
        load_saved(copy)


@pytest.mark.parametrize("edit", ["columns", "classes", "seed", "record", "moved"])
def test_a_record_and_a_configuration_are_of_one_run(edit, noise, houses, tmp_path):
    copy = shutil.copytree(noise[0] / "run", tmp_path / "run")
    config, record = copy / "config.toml", copy / "trained_on.npz"
    if edit == "record":
        shutil.copy(houses[0] / "run" / "trained_on.npz", record)
    else:
        old, new = {
            "columns": ('"a",\n    "b"', '"b",\n    "a"'),
            "classes": ('"x",\n    "y"', '"y",\n    "x"'),
            "seed": ("\nseed = 0", "\nseed = 1"),
            "moved": (str(noise[0]), "/elsewhere"),
        }[edit]
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))
    if edit == "moved":
        load_saved(copy)
        return
    with pytest.raises(
        ValueError, match=r"trained_on\.npz is not the record of config\.toml beside it: one of them is"
    ):
        load_saved(copy)
    with np.load(record) as arrays:  # as they were written before
        np.savez(record, **{name: arrays[name] for name in ("digests", "answers", "chose")})
    load_saved(copy)


@pytest.mark.parametrize(("size", "what"), [(0, "it is empty"), (3000, "its end is missing")])
def test_a_model_that_was_cut_off(size, what, noise, tmp_path):
    copy = shutil.copytree(noise[0] / "run", tmp_path / "run")
    (copy / "model.keras").write_bytes((copy / "model.keras").read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"model\.keras cannot be .* it is damaged: {what}\. Take another copy of it"):
        load_saved(copy)


# Pictures ------------------------------------------------------------------------------------------------------------


def draw(path, seed, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)).save(path)


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    for seed in range(40):
        draw(folder / "pets" / ("cat", "dog", "cow")[seed % 3] / f"{seed}.png", seed)
    return folder, run(folder, folder / "pets")


def test_a_folder_is_known_by_its_pictures(pets, tmp_path):
    folder, result = pets
    saved = load_saved(folder / "run")
    copy = tmp_path / "others"
    for number, file in enumerate(sorted((folder / "pets").rglob("*.png"))):
        target = copy / file.parent.name / f"renamed{number}.bmp"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(target)
    for source in (None, folder / "pets", copy):
        scores, _ = found(saved, *([source] if source else []))
        assert scores["examples"] == 8
        assert scores["test_loss"] == pytest.approx(result.metrics["test_loss"], rel=1e-12)  # rows in another order
    for seed in range(100, 110):
        draw(copy / "dog" / f"{seed}.png", seed)
    assert found(saved, copy)[0]["examples"] == 18


def test_all_of_a_new_folder_counts_whatever_classes_it_has_in_whatever_order(pets, tmp_path):
    saved = load_saved(pets[0] / "run")
    assert saved.classes == ("cat", "cow", "dog")
    for seed in range(200, 206):
        draw(tmp_path / "new" / ("dog", "cat")[seed % 2] / f"{seed}.png", seed)
    data = load_test_data(saved, str(tmp_path / "new"))
    assert (data.classes, np.bincount(data.y_test).tolist()) == (saved.classes, [3, 0, 3])
    assert data.notes == ("No example in the test is of class 'cow'.",)
    draw(tmp_path / "new" / "horse" / "1.png", 300)
    with pytest.raises(ValueError, match=r"sub-folder 'horse' \(1 example\) is not one of the classes"):
        load_test_data(saved, str(tmp_path / "new"))


def test_what_lies_in_train_and_in_test_is_left_out_and_said(tmp_path):
    for seed in range(12):
        draw(tmp_path / "own" / "train" / ("cat", "dog")[seed % 2] / f"{seed}.png", seed)
        draw(tmp_path / "own" / "test" / ("cat", "dog")[seed % 2] / f"other{seed}.png", seed if seed < 3 else 50 + seed)
    data = load_dataset(str(tmp_path / "own"))
    assert (len(data.y_train), len(data.y_test), data.notes) == (12, 9, (IN_BOTH.format(3, 12),))
    result = run(tmp_path, tmp_path / "own")
    assert IN_BOTH.format(3, 12) in (tmp_path / "run" / "log.txt").read_text()
    scores, again = found(load_saved(tmp_path / "run"))
    assert (scores["examples"], scores["test_loss"]) == (9, result.metrics["test_loss"])
    chose = load_saved(tmp_path / "run").trained_on.chose
    assert (chose.sum(), len(chose)) == (1, 12)
    (note,) = again.notes
    assert note in (LEFT_OUT.format(3, 12, 3, 0), LEFT_OUT.format(3, 12, 2, 1))


def test_a_record_that_does_not_tell_what_chose_the_epoch(noise, tmp_path):
    folder, _, _ = noise
    copy = shutil.copytree(folder / "run", tmp_path / "run")
    with np.load(copy / "trained_on.npz") as arrays:
        assert arrays["chose"].sum() == 16
        np.savez(copy / "trained_on.npz", digests=arrays["digests"], answers=arrays["answers"])
    data = load_test_data(load_saved(copy), str(folder / "noise.csv"))
    assert (len(data.y_test), data.notes) == (40, (IN_BOTH.format(160, 200),))


def test_class_names_in_the_metadata_of_the_test_part_are_its_own(tmp_path):
    import io
    import json

    def write(name, names, labels, first):
        pictures = []
        for row in range(len(labels)):
            file = io.BytesIO()
            Image.new("L", (8, 8), first + row).save(file, "PNG")
            pictures.append({"bytes": file.getvalue(), "path": None})
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(pictures, kind), "label": labels})
        text = json.dumps({"info": {"features": {"label": {"names": names}}}})
        pq.write_table(table.replace_schema_metadata({"huggingface": text}), tmp_path / f"{name}.parquet")

    write("train", ["cat", "dog"], [0, 1, 0, 1], 0)
    write("test", ["dog", "cat"], [0, 1], 50)
    data = load_dataset(str(tmp_path))
    assert (data.classes, data.y_test.tolist()) == (("cat", "dog"), [1, 0])


# What else makes a score lie -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    folder = tmp_path_factory.mktemp("houses")
    rng = np.random.default_rng(0)
    area, age = rng.normal(100, 20, 150), rng.uniform(0, 80, 150)
    table = pa.table({"area": area, "age": age, "price": 3000 * area - 500 * age})
    pyarrow.csv.write_csv(table, folder / "houses.csv")
    return folder, table, run(folder, folder / "houses.csv", "data.target=price")


@pytest.mark.parametrize(
    ("column", "factor", "named"),
    [("price", 1e-3, "the target"), ("price", 1e3, "the target"), ("area", 10.76 * 40, "column 'area'")],
)
def test_another_unit_is_said(houses, tmp_path, column, factor, named):
    folder, table, _ = houses
    rng = np.random.default_rng(1)
    values = {name: np.asarray(table[name]) + rng.normal(0, 1e-3, 150) for name in table.column_names}
    values[column] = values[column] * factor
    pq.write_table(pa.table(values), tmp_path / "new.parquet")
    notes = load_test_data(load_saved(folder / "run"), str(tmp_path / "new.parquet")).notes
    (note,) = notes
    assert re.fullmatch(
        rf"In {named} the values are \S+ ± \S+, in the training \S+ ± \S+: another unit, or another quantity\?", note
    )


def test_the_same_unit_is_no_doubt(houses, tmp_path):
    folder, table, _ = houses
    rng = np.random.default_rng(2)
    values = {name: np.asarray(table[name]) + rng.normal(0, 1e-3, 150) for name in table.column_names}
    pq.write_table(pa.table(values).slice(0, 60), tmp_path / "new.parquet")
    assert load_test_data(load_saved(folder / "run"), str(tmp_path / "new.parquet")).notes == ()


def test_a_column_that_is_missing(houses, tmp_path):
    folder, table, _ = houses
    pq.write_table(table.drop_columns(["age"]), tmp_path / "new.parquet")
    source = str(tmp_path / "new.parquet")
    message = f"Data {source!r}: the model needs the column 'age'. Known: area, price."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_test_data(load_saved(folder / "run"), source)


@pytest.mark.parametrize("source", ["digits", "mnist", "{}/pets", "{}/pictures.npz"])
def test_pictures_for_a_model_of_a_table(houses, tmp_path, source):
    folder, _, _ = houses
    Path(tmp_path, "pets").mkdir()
    np.savez(tmp_path / "pictures.npz", x=np.zeros((4, 8, 8)), y=[0, 1, 0, 1])
    source = source.format(tmp_path)
    message = f"Data {source!r}: the data is pictures, and the model takes a table of 2 columns."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_test_data(load_saved(folder / "run"), source)


@pytest.mark.parametrize("source", ["wine", "diabetes", "california_housing", "{}/t.csv", "{}/t.npz"])
def test_a_table_for_a_model_of_pictures(tmp_path, source):
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    (tmp_path / "t.csv").write_text("x,y\n1,a\n2,b\n")
    np.savez(tmp_path / "t.npz", x=np.zeros((4, 3)), y=[0, 1, 0, 1])
    source = source.format(tmp_path)
    message = f"Data {source!r}: the data is a table, and the model takes pictures of 8×8×1."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_test_data(load_saved(tmp_path / "model.keras"), source)


def test_the_target_of_the_run_is_not_asked_of_data_without_columns_to_choose_from(houses):
    folder, _, _ = houses
    saved = load_saved(folder / "run")
    with pytest.raises(ValueError, match=r"^Data 'diabetes': the model needs the column 'area'\. "):
        load_test_data(saved, "diabetes")
    with pytest.raises(ValueError, match=r"^Data 'diabetes': `target` must be left out, but received 'price' \(str\)"):
        load_test_data(saved, "diabetes", target="price")


def test_a_target_that_is_a_column_of_the_model(houses):
    folder, _, _ = houses
    with pytest.raises(ValueError, match="the target column 'area' is one of the columns that the model takes"):
        load_test_data(load_saved(folder / "run"), target="area")


# Models of others ----------------------------------------------------------------------------------------------------


def ends_in_softmax():
    return keras.Sequential([keras.Input((3,)), layers.Dense(4, activation="softmax")])


def ends_in_a_softmax_layer():
    return keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Softmax()])


def ends_in_an_activation():
    return keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Activation("softmax")])


def ends_in_an_operation():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.ops.softmax(layers.Dense(4)(inputs)))


def ends_in_a_model():
    inputs = keras.Input((3,))
    return keras.Model(inputs, ends_in_softmax()(inputs))


def ends_in_arithmetic():
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Rescaling(1.0)(ends_in_softmax()(inputs)))


def ends_in_sigmoids():
    return keras.Sequential([keras.Input((3,)), layers.Dense(4, activation="sigmoid")])


def ends_in_logits():
    return keras.Sequential([keras.Input((3,)), layers.Dense(4)])


ENDINGS = {
    ends_in_softmax: "softmax",
    ends_in_a_softmax_layer: "softmax",
    ends_in_an_activation: "softmax",
    ends_in_an_operation: "softmax",
    ends_in_a_model: "softmax",
    ends_in_arithmetic: "softmax",
    ends_in_sigmoids: "sigmoid",
    ends_in_logits: "logits",
}


@pytest.mark.parametrize("make", ENDINGS, ids=lambda make: make.__name__)
def test_probabilities_are_taken_for_what_they_are(make, tmp_path):
    rng = np.random.default_rng(0)
    make().save(tmp_path / "model.keras")
    saved = load_saved(tmp_path / "model.keras")
    weights = [5 * rng.normal(size=weight.shape) for weight in saved.model.get_weights()]
    saved.model.set_weights(weights)
    x = rng.normal(size=(30, 3))
    outputs = saved.model.predict(x, verbose=0)
    assert ending(saved.model, outputs) == ENDINGS[make]
    expected = np.exp(log_probabilities(outputs)) if ENDINGS[make] == "logits" else outputs
    answers = predict(saved, x, [str(row) for row in range(30)])
    np.testing.assert_allclose([answer.probability for answer in answers], expected.max(-1), rtol=1e-6)
    assert [answer.answer for answer in answers] == [str(index) for index in expected.argmax(-1)]
    np.savez(tmp_path / "d.npz", x=x, y=np.r_[np.arange(4), rng.integers(0, 4, 26)])
    scores, data = found(saved, tmp_path / "d.npz")
    normed = expected / expected.sum(-1, keepdims=True)
    loss = -np.mean(np.log(np.maximum(normed[np.arange(30), data.y_test], 1e-37)))
    assert scores["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert scores["test_accuracy"] == np.mean(expected.argmax(-1) == data.y_test)
    assert data.notes == (
        "Nothing tells what the model was trained on, so there may be training examples in the test.",
        "The model does not name its classes; they are taken in the order of the data: 0, 1, 2, 3.",
    )


@pytest.mark.parametrize(("activation", "chance"), [("sigmoid", lambda z: z), (None, lambda z: 1 / (1 + np.exp(-z)))])
def test_one_output_may_be_that_of_the_second_of_two_classes(activation, chance, tmp_path):
    rng = np.random.default_rng(0)
    keras.Sequential([keras.Input((3,)), layers.Dense(1, activation=activation)]).save(tmp_path / "model.keras")
    saved = load_saved(tmp_path / "model.keras")
    x, y = rng.normal(size=(30, 3)), rng.integers(0, 2, 30)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    scores, _ = found(saved, tmp_path / "d.npz")
    second = chance(saved.model.predict(x, verbose=0)[:, 0].astype(np.float64))
    assert scores["test_accuracy"] == np.mean((second > 0.5) == y)
    assert scores["test_loss"] == pytest.approx(-np.mean(np.log(np.where(y, second, 1 - second))), rel=1e-5)
    assert as_logits(np.array([[0.25]]), "sigmoid", classes=2) == pytest.approx(np.log([[0.75, 0.25]]))


def test_the_model_of_another_run_is_refused(noise, houses, tmp_path):
    copy = shutil.copytree(noise[0] / "run", tmp_path / "run")
    shutil.copy(houses[0] / "run" / "model.keras", copy)
    message = (
        f"{copy}/model.keras is not the model of the configuration beside it, which speaks of 3 classes, while the "
        "model has 1 outputs. Name the run directory as it was written, or the model in a folder of its own."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_saved(copy)
    keras.Sequential([keras.Input((5,)), layers.Dense(3)]).save(copy / "model.keras")
    with pytest.raises(ValueError, match="which speaks of 2 columns, while the model has 5 columns"):
        load_saved(copy)
    keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)]).save(copy / "model.keras")
    with pytest.raises(ValueError, match="which speaks of 2 columns, while the model has pictures"):
        load_saved(copy)


def test_outputs_that_are_no_row_are_refused(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Reshape((2, 2))]).save(path)
    message = (
        f"{path}: the model must give a row of outputs for an example, of shape (batch, outputs), but gives "
        "(None, 2, 2)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_saved(path)
    inputs = keras.Input((3,))
    keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(2)(inputs)]).save(path)
    with pytest.raises(ValueError, match=r"but gives \[\(None, 2\), \(None, 2\)\]\."):
        load_saved(path)


def test_answers_that_are_no_numbers_are_none(noise):
    saved = load_saved(noise[0] / "run")
    saved.model.set_weights([np.full_like(weight, np.nan) for weight in saved.model.get_weights()])
    x, names = load_prediction_inputs(saved, [str(noise[0] / "noise.csv")])
    message = (
        f"{saved.path} gives no finite numbers for 200 of 200 examples, the first of which is number 1. "
        "Its weights are damaged, or these examples are nothing like those that it was trained on."
    )
    for act in (lambda: predict(saved, x, names), lambda: evaluate(saved, load_test_data(saved))):
        with pytest.raises(NoAnswerError, match=f"^{re.escape(message[:40])}"):
            act()


def test_an_answer_keeps_the_precision_of_its_target(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    # 0.1 s, where 32-bit floats have steps of 128 s.
    rows = [f"{value:.6f},{1.7e9 + value / 10:.9f}" for value in x]
    (tmp_path / "t.csv").write_text("\n".join(["a,time", *rows]))
    run(tmp_path, tmp_path / "t.csv", "data.target=time", "epochs=20")
    saved = load_saved(tmp_path / "run")
    scores, data = found(saved)
    assert scores["test_r2"] > 0.5
    answers = [answer.answer for answer in predict(saved, data.x_test, ["x"] * len(data.x_test))]
    assert np.sqrt(np.mean((np.array(answers) - data.y_test) ** 2)) == pytest.approx(scores["test_rmse"], rel=1e-6)
