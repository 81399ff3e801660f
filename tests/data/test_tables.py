import re
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keras_residual.data import Fingerprint, csv_file, load_dataset
from keras_residual.data.lazy import LazyExamples

pytestmark = pytest.mark.any_backend


def refused(message, source, **arguments):
    with pytest.raises(ValueError, match=f"^{re.escape(f'Data {str(source)!r}: {message}')}$"):
        load_dataset(str(source), **arguments)


def refused_test(message, source, **arguments):
    with pytest.raises(ValueError, match=f"^{re.escape(f'Data {str(source)!r} (test): {message}')}$"):
        load_dataset(str(source), **arguments)


@pytest.fixture
def iris(write_csv, iris_rows):
    return write_csv("width,height,kind\n" + "\n".join(iris_rows) + "\n", "iris.csv")


def test_a_text_target_gives_classes_and_the_other_columns_features(iris, iris_rows):
    data = load_dataset(iris, target="kind")
    assert (data.name, data.kind, data.task) == ("iris", "table", "classification")
    assert (data.classes, data.features) == (("a", "b"), ("width", "height"))
    assert (data.x_train.shape, data.x_test.shape, data.x_train.dtype) == ((16, 2), (4, 2), np.float64)
    rows = {
        (f"{x[0]:.3f}", f"{x[1]:.3f}", data.classes[y])
        for part, labels in ((data.x_train, data.y_train), (data.x_test, data.y_test))
        for x, y in zip(part, labels, strict=True)
    }
    assert rows == {tuple(row.split(",")) for row in iris_rows}


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (["yes", "no"] * 15, "classification", ("no", "yes")),
        (["true", "false"] * 15, "classification", ("false", "true")),
        ([1, -1] * 15, "classification", ("-1", "1")),
        ([10, 9] * 15, "classification", ("9", "10")),
        ([row % 20 for row in range(60)], "classification", tuple(str(value) for value in range(20))),
        ([row % 21 for row in range(60)], "regression", ()),
        ([row / 2 for row in range(30)], "regression", ()),
    ],
)
def test_the_task_follows_from_the_target(write_csv, target, task, classes):
    path = write_csv("x,y\n" + "".join(f"{row},{value}\n" for row, value in enumerate(target)))
    data = load_dataset(path, target="y", test_fraction=0.4)
    assert (data.task, data.classes) == (task, classes)
    assert data.y_train.dtype == (np.int32 if task == "classification" else np.float64)
    for x, y in zip(data.x_train[:, 0], data.y_train, strict=True):
        assert str(target[int(x)]) == classes[y] if classes else target[int(x)] == y


def test_the_task_can_be_asked_for(write_csv):
    path = write_csv("x,y\n" + "1,0\n2,1\n" * 10)
    assert load_dataset(path, target="y", task="regression").y_train.dtype == np.float64
    path = write_csv("x,y\n" + "1,0.0\n2,1.0\n" * 10)
    assert load_dataset(path, target="y", task="classification").classes == ("0.0", "1.0")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["01", "007"], ("01", "007")),
        (["True", "False"], ("False", "True")),
        (['"007"', '"1"'], ("1", "007")),
        ([" 1", "2 "], ("1", "2")),
    ],
)
def test_classes_are_called_as_the_file_spells_them(write_csv, labels, classes):
    path = write_csv("x,y\n" + "".join(f"00{row},{labels[row % 2]}\n" for row in range(20)))
    data = load_dataset(path, target="y")
    assert (data.classes, data.notes) == (classes, ())
    for x, y in zip(data.x_train[:, 0], data.y_train, strict=True):
        assert labels[int(x) % 2].strip(' "') == classes[y]


ALIKE = "Classes are named as the data spells them, so these are different: "


def test_one_number_in_two_spellings_is_two_classes_and_said(write_csv):
    data = load_dataset(write_csv("x,y\n" + "1,1\n2,01\n3,2\n" * 10), target="y")
    assert data.classes == ("01", "1", "2")
    assert data.notes[0] == f"{ALIKE}'01' and '1'."


@pytest.mark.parametrize(
    ("labels", "alike"),
    [
        (["x", "x ", "z"], "'x' and 'x '"),
        (["Cat", "cat", "CAT", "dog"], "'CAT' and 'Cat' and 'cat'"),
        (["a b", "a  b", "a\u00a0b", "c"], r"'a  b' and 'a b' and 'a\xa0b'"),
        (["Straße", "STRASSE", "x"], "'STRASSE' and 'Straße'"),
        (["a", "\u200ba", "x"], r"'a' and '\u200ba'"),
        (["7 ", "007", "x"], "'007' and '7 '"),
        (["no", "No", "yes", "yes "], "'No' and 'no'; 'yes' and 'yes '"),
        ([f"{'cC'[row % 2]}{row // 2}" for row in range(14)], "; ".join(f"'C{n}' and 'c{n}'" for n in range(5))),
        (["x", "xx", "y"], None),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_classes_that_look_alike_are_said(tmp_path, write_csv, labels, alike, suffix):
    labels = labels * 10
    path = write_csv("x,y\n" + "".join(f'{row},"{label}"\n' for row, label in enumerate(labels)))
    if suffix == "parquet":
        path = str(tmp_path / "t.parquet")
        pq.write_table(pa.table({"x": range(len(labels)), "y": labels}), path)
    data = load_dataset(path, target="y")
    rest = "; and 2 more" if len(data.classes) == 14 else ""
    assert data.notes == (() if alike is None else (f"{ALIKE}{alike}{rest}.",))
    assert load_dataset(path, target="y", classes=data.classes).notes == ()


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        (["01", "007"], ("7", "1")),
        (["1", "7"], ("007", "01")),
        (["1.0", "7.0"], ("7", "1")),
        (["True", "FALSE"], ("false", "true")),
        (["1", "7"], ("7", "1", "01")),
    ],
)
def test_a_model_that_knows_another_spelling_of_its_classes_still_knows_them(write_csv, labels, known):
    path = write_csv("x,y\n" + "".join(f"{row},{labels[row % 2]}\n" for row in range(20)))
    data = load_dataset(path, target="y", task="classification", classes=known, test_fraction=1.0)
    np.testing.assert_array_equal(data.y_test, 1 - data.x_test[:, 0] % 2)


def test_a_spelling_that_may_be_either_of_two_classes_is_refused(write_csv):
    refused(
        "target column 'y': '001' (5 examples) is not one of the classes. Did you mean '01'? Known: 01, 1, 7.",
        path := write_csv("x,y\n" + "1,001\n2,7\n" * 5),
        target="y",
        classes=("01", "1", "7"),
    )
    data = load_dataset(path, target="y", classes=("1", "x001", "7"))
    assert set(data.y_train.tolist()) == {0, 2}


def test_own_test_labels_keep_their_spelling_too(tmp_path):
    # Of the training labels one is no number, so that pyarrow reads these as text and those of the test as numbers.
    (tmp_path / "train.csv").write_text("x,y\n" + "1,007\n2,x\n" * 5)
    (tmp_path / "test.csv").write_text("x,y\n5,007\n")
    assert load_dataset(str(tmp_path), target="y").y_test.tolist() == [0]


def test_text_cannot_be_regressed(iris):
    refused(
        "target column 'kind' holds text, for example 'a', and regression needs numbers. "
        "Set the task to 'classification' or name another column.",
        iris,
        target="kind",
        task="regression",
    )


def test_true_and_false_are_one_and_zero(write_csv):
    data = load_dataset(write_csv("x,y\n" + "true,a\nfalse,b\n" * 10), target="y")
    np.testing.assert_array_equal(data.x_train[:, 0], data.y_train == 0)


def test_without_a_target_the_columns_are_listed(iris):
    refused("a table needs the column to predict: give it with --target. The columns are: width, height, kind.", iris)


def test_a_target_that_is_not_there_is_suggested(iris):
    refused("there is no target column 'knid'. Did you mean 'kind'? Known: width, height, kind.", iris, target="knid")


def test_blanks_around_the_name_of_a_column_are_seen(write_csv):
    path = write_csv("width, target\n" + "1,a\n2,b\n" * 5)
    refused(
        "there is no target column 'target'. Did you mean ' target'? Known: width, ' target'.", path, target="target"
    )
    refused("a table needs the column to predict: give it with --target. The columns are: width, ' target'.", path)
    assert load_dataset(path, target=" target").features == ("width",)
    header = write_csv("x,y \n", "header.csv")
    refused(f"the file {header} has columns (x, 'y ') but no rows.", header, target="y")


def test_a_column_of_text_names_the_value_and_the_way_out(write_csv):
    path = write_csv("x,city,y\n" + "1,Bern,a\n2,Ulm,b\n" * 5)
    refused(
        "column 'city' must hold numbers, but row 1 has 'Bern' (string). Correct or convert it, "
        "or leave the column out with --set 'data.drop=[\"city\"]'.",
        path,
        target="y",
    )
    assert load_dataset(path, target="y", drop=("city",)).features == ("x",)


def test_one_word_in_a_column_of_numbers_is_found(write_csv):
    path = write_csv("x,y\n1,a\n2,b\nunknown,a\n4,b\n")
    refused(
        "column 'x' must hold numbers, but row 3 has 'unknown' (string). Correct or convert it, "
        "or leave the column out with --set 'data.drop=[\"x\"]'.",
        path,
        target="y",
    )


def test_a_column_of_dates_is_refused(write_csv):
    path = write_csv("day,x,y\n" + "2024-05-01,1,a\n2024-05-02,2,b\n" * 5)
    refused(
        "column 'day' must hold numbers, but row 1 has datetime.date(2024, 5, 1) (date32[day]). Correct or convert it, "
        "or leave the column out with --set 'data.drop=[\"day\"]'.",
        path,
        target="y",
    )


@pytest.mark.parametrize(
    ("gaps", "rows"), [([3], "row 3"), ([1, 4], "rows 1, 4"), ([1, 2, 3, 4, 5, 6], "rows 1, 2, 3, 4, 5, …")]
)
def test_missing_values_name_their_rows(write_csv, gaps, rows):
    lines = [f"{'' if row in gaps else row},{row},{'ab'[row % 2]}" for row in range(1, 21)]
    refused(
        f"column 'x' has no value in {rows}. Fill the gap or remove the row, "
        "or leave the column out with --set 'data.drop=[\"x\"]'.",
        write_csv("x,z,y\n" + "\n".join(lines)),
        target="y",
    )


def test_a_missing_target_is_refused(write_csv):
    refused(
        "column 'y' has no value in row 2. It is the target: fill the gap or remove the row. "
        "Of a CSV, NA, NaN, null and the like are gaps too.",
        write_csv("x,y\n1,a\n2,\n3,b\n4,b\n"),
        target="y",
    )


@pytest.mark.parametrize(("value", "shown"), [("inf", "inf"), ("-inf", "-inf"), ("1e999", "inf")])
def test_values_that_are_not_finite_are_refused(write_csv, value, shown):
    refused(
        f"column 'x' must hold finite numbers, but has {shown} in row 2. Correct the value or remove the row, "
        "or leave the column out with --set 'data.drop=[\"x\"]'.",
        write_csv(f"x,y\n1,a\n{value},b\n3,a\n4,b\n"),
        target="y",
    )


def test_nan_in_parquet_is_refused(tmp_path):
    pq.write_table(pa.table({"x": [1.0, float("nan"), 3.0, 4.0], "y": ["a", "b", "a", "b"]}), tmp_path / "t.parquet")
    refused(
        "column 'x' must hold finite numbers, but has nan in row 2. Correct the value or remove the row, "
        "or leave the column out with --set 'data.drop=[\"x\"]'.",
        tmp_path / "t.parquet",
        target="y",
    )


def test_a_number_that_is_not_finite_in_the_target_is_refused(write_csv):
    refused(
        "target column 'y' must hold finite numbers, but has inf in row 2. Correct the value or remove the row.",
        write_csv("x,y\n1,1.5\n2,inf\n3,2.5\n"),
        target="y",
    )


def test_one_class_only_is_refused(write_csv):
    refused(
        "there is only the class 'a', and telling classes apart needs two at least. "
        "Add rows of another class or name another target.",
        write_csv("x,y\n1,a\n2,a\n"),
        target="y",
    )


def test_a_class_with_one_row_cannot_be_split(write_csv):
    refused(
        "classes 'c', 'd' have one example only, which cannot be in both training and test. "
        "Add examples or take the class out.",
        write_csv("x,y\n" + "1,a\n2,b\n" * 5 + "3,c\n4,d\n"),
        target="y",
    )


def test_an_empty_file_and_a_header_without_rows_are_refused(write_csv):
    empty = write_csv("", "empty.csv")
    refused(f"the file {empty} is empty.", empty, target="y")
    header = write_csv("x,y\n", "header.csv")
    refused(f"the file {header} has columns (x, y) but no rows.", header, target="y")


def test_two_columns_of_one_name_are_refused(write_csv):
    path = write_csv("x,x,y\n1,2,a\n")
    refused(f"the column name 'x' stands more than once in {path}. Rename one.", path, target="y")


def test_only_a_target_is_refused(write_csv):
    refused(
        "no column is left to learn from beside the target and the dropped ones.", write_csv("y\na\nb\n"), target="y"
    )


@pytest.mark.parametrize("name", ["x", "y"])
def test_names_to_drop_are_checked(write_csv, name):
    path = write_csv("length,y\n1,a\n2,b\n")
    message = (
        "`drop` names the target column 'y'. Take it out of `drop`."
        if name == "y"
        else "`drop` names 'x', which is not a column. Known: length, y."
    )
    refused(message, path, target="y", drop=(name,))


def test_row_numbers_of_pandas_are_refused_unless_dropped(write_csv):
    path = write_csv(",x,y\n" + "".join(f"{row},{row},{'ab'[row % 2]}\n" for row in range(20)))
    refused(
        "column 1 is called '': row numbers, probably, which a model must not see. Give it a name, "
        "or leave it out with --set 'data.drop=[\"\"]'.",
        path,
        target="y",
    )
    assert load_dataset(path, target="y", drop=("",)).features == ("x",)


def test_a_damaged_parquet_file_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"no parquet at all")
    with pytest.raises(
        ValueError, match=f"^{re.escape(f'Data {str(path)!r}: the file {path} cannot be read as parquet: ')}"
    ):
        load_dataset(str(path), target="y")


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_semicolons_and_tabs_separate_too(write_csv, sign):
    text = "x,z,y\n" + "1,2,a\n3,4,b\n" * 5
    assert load_dataset(write_csv(text.replace(",", sign)), target="y").features == ("x", "z")


def test_a_row_may_be_long(write_csv):
    path = write_csv("x,note,y\n" + "".join(f"{row},{'long ' * 1_000_000},{row % 2}\n" for row in range(4)))
    assert load_dataset(path, target="y", drop=("note",), test_fraction=0.5).x_train.shape == (2, 1)


def test_a_fraction_far_down_a_column_of_whole_numbers_is_read(write_csv):
    path = write_csv("x,y\n" + "1,0\n2,1\n" * 300_000 + "1.5,1\n")
    data = load_dataset(path, target="y")
    assert 1.5 in np.concatenate([data.x_train, data.x_test])


def test_parquet_gives_what_csv_gives(iris, tmp_path):
    import pyarrow.csv

    table = pyarrow.csv.read_csv(iris)
    table = table.set_column(2, "kind", table.column("kind").dictionary_encode())
    pq.write_table(table, tmp_path / "iris.parquet")
    first, second = load_dataset(iris, target="kind"), load_dataset(str(tmp_path / "iris.parquet"), target="kind")
    np.testing.assert_array_equal(first.x_train, second.x_train)
    np.testing.assert_array_equal(first.y_test, second.y_test)
    assert first.classes == second.classes


def test_train_and_test_tables_of_a_folder_are_taken_as_they_are(tmp_path):
    (tmp_path / "train.csv").write_text("x,y\n1,a\n2,b\n")
    (tmp_path / "test.csv").write_text("y,x\nb,5\n")
    data = load_dataset(str(tmp_path), target="y")
    assert (data.x_train.tolist(), data.x_test.tolist(), data.y_test.tolist()) == ([[1], [2]], [[5]], [1])
    (tmp_path / "test.csv").write_text("y,x\nc,5\n")
    refused_test("target column 'y': 'c' (1 example) is not one of the classes. Known: a, b.", tmp_path, target="y")
    (tmp_path / "test.csv").write_text("y,z\nb,5\n")
    refused_test("the model needs the column 'x'. Known: y, z.", tmp_path, target="y")


def test_fixed_features_take_their_columns_in_their_order(iris):
    fixed = load_dataset(iris, target="kind", features=("height",), classes=("b", "a"))
    free = load_dataset(iris, target="kind")
    np.testing.assert_array_equal(fixed.x_test[:, 0], free.x_test[:, 1])
    np.testing.assert_array_equal(fixed.y_test, 1 - free.y_test)
    refused(
        "the model needs the column 'depth'. Did you mean 'width'? Known: width, height, kind.",
        iris,
        target="kind",
        features=("depth",),
    )


def test_numbers_keep_the_precision_that_they_have(write_csv, tmp_path):
    seconds = [1_700_000_000 + row for row in range(100)]
    path = write_csv("t,y\n" + "".join(f"{second},{second / 10}\n" for second in seconds))
    data = load_dataset(path, target="y")
    assert sorted([*data.x_train[:, 0], *data.x_test[:, 0]]) == seconds
    assert sorted([*data.y_train, *data.y_test]) == [second / 10 for second in seconds]
    kinds = {
        "decimal": pa.array([f"{second}.25" for second in seconds]).cast(pa.decimal128(20, 2)),
        "unsigned": pa.array([second + 2**40 for second in seconds], pa.uint64()),
        "single": pa.array([row / 3 for row in range(100)], pa.float32()),
        "flag": pa.array([row % 2 == 0 for row in range(100)]),
    }
    pq.write_table(pa.table(kinds | {"y": [0.5, 1.5] * 50}), tmp_path / "t.parquet")
    data = load_dataset(str(tmp_path / "t.parquet"), target="y", test_fraction=1.0)
    expected = [
        [second + 0.25 for second in seconds],
        [second + 2.0**40 for second in seconds],
        [float(np.float32(row / 3)) for row in range(100)],
        [1.0, 0.0] * 50,
    ]
    np.testing.assert_array_equal(data.x_test.T, expected)


TWINS = {
    "2**53": [2**53, 2**53 + 1],
    "signed": [2**60 + 1, 2**60 + 2],
    "negative": [-(2**60) - 1, -(2**60) - 2],
    "unsigned": [2**63 + 1, 2**63 + 2],
    "beyond 64 bits": [10**19 + 1, 10**19 + 2],
    "far beyond": [10**25, 10**25 + 1],
}
"""Pairs of numbers that are one 64-bit float."""


@pytest.mark.parametrize("kind", ["csv", "csv with a float", "csv with blanks", "parquet", "decimals", "categories"])
@pytest.mark.parametrize("twins", TWINS.values(), ids=TWINS)
def test_numbers_that_are_one_64_bit_float_are_refused(tmp_path, write_csv, twins, kind):
    values = [*range(25), *twins, 5]
    if kind.startswith("csv"):
        mark = " " if kind == "csv with blanks" else ""
        cells = [f"{mark}{value}{mark}" for value in values]
        cells[0] += ".5" if kind == "csv with a float" else ""
        path = write_csv("id,y\n" + "".join(f"{cell},{row}\n" for row, cell in enumerate(cells)))
    else:
        path = str(tmp_path / "t.parquet")
        fits = max(map(abs, values)) < 2**63 + 9
        kinds = {"parquet": pa.uint64() if max(values) >= 2**63 else pa.int64(), "decimals": pa.decimal128(38, 2)}
        if kind != "decimals" and not fits:
            return
        column = pa.array(values, kinds.get(kind, kinds["parquet"]))
        column = column.dictionary_encode() if kind == "categories" else column
        pq.write_table(pa.table({"id": column, "y": range(len(values))}), path)
    cents = ".00" if kind == "decimals" else ""
    one, other = (f"{value}{cents}" for value in sorted(twins))
    told = f"has numbers beyond 2**53 that 64-bit floats do not tell apart, {one} and {other}. Subtract what they have "
    drop = "in common, or leave the column out with --set 'data.drop=[\"id\"]'."
    refused(f"column 'id' {told}{drop}", path, target="y")
    task = "in common, or set the task to 'classification'."
    refused(f"target column 'id' {told}{task}", path, target="id")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_labels_beyond_64_bits_are_classes_where_they_are_asked_to_be(tmp_path, write_csv, suffix):
    labels = [10**20 + row % 2 for row in range(20)]
    path = write_csv("x,y\n" + "".join(f"{row},{label}\n" for row, label in enumerate(labels)))
    if suffix == "parquet":
        path = str(tmp_path / "t.parquet")
        pq.write_table(pa.table({"x": range(20), "y": pa.array(labels, pa.decimal128(38, 0))}), path)
    data = load_dataset(path, target="y", task="classification")
    assert data.classes == (str(10**20), str(10**20 + 1))
    np.testing.assert_array_equal(data.y_train, data.x_train[:, 0] % 2)


def test_large_numbers_that_are_told_apart_or_the_same_are_read(tmp_path, write_csv):
    # A number that stands for a gap, say, and floats in several spellings.
    cells = ["1e20", "100000000000000000000", "1.0E+20", "-1e20", "2.5e30", "1152921504606846976", "7"] * 3
    path = write_csv("x,y\n" + "".join(f"{cell},{cell}\n" for cell in cells))
    data = load_dataset(path, target="y", test_fraction=1.0)
    assert data.x_test[:, 0].tolist() == data.y_test.tolist() == [float(cell) for cell in cells]
    pq.write_table(pa.table({"x": [1e300 / 1e270] * 5, "y": [float(2**60)] * 5}), tmp_path / "t.parquet")
    assert load_dataset(str(tmp_path / "t.parquet"), target="y").task == "regression"


def test_a_file_is_read_again_only_for_numbers_beyond_2_to_the_53(write_csv, monkeypatch):
    import pyarrow.csv

    reads, read = [], pyarrow.csv.read_csv
    monkeypatch.setattr(pyarrow.csv, "read_csv", lambda *args, **options: reads.append(1) or read(*args, **options))
    names = [f"c{place}" for place in range(20)]
    rows = [[row / 7 for _ in names] for row in range(50)]
    for extra, expected in (([], 1), ([[1e20] * 20], 1), ([[1e20] * 20] * 2, 3)):
        reads.clear()
        lines = [",".join(map(str, row)) for row in [*rows, *extra]]
        load_dataset(write_csv(f"{','.join(names)}\n" + "\n".join(lines)), target="c0")
        assert len(reads) == expected


def test_hexadecimal_numbers_are_text(write_csv):
    path = write_csv("x,y\n" + "1,0x1f\n2, 0X20\n0x3,33\n" * 10)
    refused(
        "column 'x' must hold numbers, but row 3 has '0x3' (string). Correct or convert it, "
        "or leave the column out with --set 'data.drop=[\"x\"]'.",
        path,
        target="y",
    )
    path = write_csv("x,y,note\n" + "1,0x1f,0x1f\n2,32,7\n3,31,8\n" * 10)
    data = load_dataset(path, target="y", drop=("note",))
    assert data.classes == ("0x1f", "31", "32")


def test_times_in_nanoseconds_are_told_apart(write_csv):
    path = write_csv("ns,y\n" + "".join(f"{1_700_000_000_000_000_000 + 10**6 * row},{row % 2}\n" for row in range(20)))
    data = load_dataset(path, target="y")
    assert len({*data.x_train[:, 0], *data.x_test[:, 0]}) == 20


def test_numbers_beyond_the_floats_of_a_model_are_refused(write_csv):
    refused(
        "column 'x' must hold numbers up to 3.4e+38, but has 1e+300 in row 2. Correct the value or remove the row, "
        "or leave the column out with --set 'data.drop=[\"x\"]'.",
        write_csv("x,y\n1,a\n1e300,b\n3,a\n4,b\n"),
        target="y",
    )
    refused(
        "target column 'y' must hold numbers up to 3.4e+38, but has -1e+300 in row 1. "
        "Correct the value or remove the row.",
        write_csv("x,y\n1,-1e300\n2,2.5\n3,1.5\n"),
        target="y",
    )


def test_the_sign_that_the_first_line_has_most_of_separates(write_csv):
    path = write_csv('"Size, m²";Price, net;kind\n' + "1;2;a\n3;4;b\n" * 5)
    assert load_dataset(path, target="kind").features == ("Size, m²", "Price, net")


def test_a_first_line_of_numbers_names_no_columns(write_csv):
    path = write_csv("5.1,3.5,0\n" + "4.9,3.0,1\n6.2,3.4,0\n" * 5)
    refused(
        f"the first line of {path} has numbers (5.1, 3.5, 0). Put a line before it that names the columns.",
        path,
        target="0",
    )
    assert load_dataset(write_csv("2019,2020,y\n" + "1,2,a\n3,4,b\n" * 5), target="y").features == ("2019", "2020")


@pytest.mark.parametrize(
    ("label", "shown"),
    [("\x1b[31mred", r"'\x1b[31mred'"), ("two\nlines", r"'two\nlines'"), ("\u202egnp", r"'\u202egnp'")],
)
def test_a_class_must_be_called_what_can_be_shown(write_csv, label, shown):
    refused(
        f"the class {shown} has characters in its name that cannot be shown. Rename the class.",
        write_csv("x,y\n" + f'1,"{label}"\n2,b\n' * 5),
        target="y",
    )
    assert load_dataset(write_csv("x,y\n" + "1,日本\u3000語\n2,été\n" * 5), target="y", drop=()).classes


def test_text_takes_no_more_memory_than_it_has(write_csv):
    # As an array of NumPy's own text each of the rows would be as wide as the one long class.
    path = write_csv("x,y\n" + "1,a\n2,b\n" * 20_000 + ("3," + "c" * 10_000 + "\n") * 2)
    tracemalloc.start()
    try:
        data = load_dataset(path, target="y")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data.classes[2]) == 10_000
    assert most < 50e6  # and 1.6 GB


def test_only_the_columns_that_are_used_are_read(tmp_path):
    note = "x" * 500_000
    table = {"x": range(600), "y": ["a", "b"] * 300, "note": [note] * 600}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert load_dataset(str(tmp_path / "t.parquet"), target="y", drop=("note",)).features == ("x",)
    with pytest.raises(
        ValueError, match=r"the table .*t\.parquet would take .* MiB of memory, and 256\.0 MiB are allowed"
    ):
        load_dataset(str(tmp_path / "t.parquet"), target="y")


def test_a_table_of_one_number_is_not_unpacked(tmp_path):
    pq.write_table(
        pa.table({"x": np.zeros(40_000_000, np.int8), "y": np.zeros(40_000_000, np.int8)}), tmp_path / "t.parquet"
    )
    path = tmp_path / "t.parquet"
    size = path.stat().st_size / 1024
    with pytest.raises(
        ValueError, match=f"would take 305.2 MiB of memory, and 256.0 MiB are allowed for a file of {size:.1f} KiB"
    ):
        load_dataset(str(path), target="y", task="regression")


# --- Tables that do not fit into memory -------------------------------------------------------------------------------


def mixed_rows(count=3000):
    rng = np.random.default_rng(0)
    return {
        "whole": rng.integers(-9, 9, count),
        "number": rng.normal(size=count),
        "flag": rng.random(count) < 0.5,
        "kind": np.where(rng.random(count) < 0.3, "cat", "dog"),
        "code": np.char.zfill(rng.integers(0, 12, count).astype(str), 3),
    }


def write_table(path, columns):
    from pyarrow import csv, parquet, table

    if path.suffix == ".csv":
        csv.write_csv(table(columns), path)
    else:
        parquet.write_table(table(columns), path, row_group_size=700)
    return str(path)


def same(one, other):
    assert (one.classes, one.features, one.task) == (other.classes, other.features, other.task)
    for part in ("train", "test"):
        held, streamed = getattr(one, f"x_{part}"), getattr(other, f"x_{part}")
        assert isinstance(streamed, LazyExamples)
        np.testing.assert_array_equal(streamed[:], held)
        np.testing.assert_array_equal(getattr(other, f"y_{part}"), getattr(one, f"y_{part}"))
        y = getattr(one, f"y_{part}")
        np.testing.assert_array_equal(Fingerprint.of(streamed, y).digests, Fingerprint.of(held, y).digests)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("target", ["kind", "code", "number", "flag"])
def test_a_table_that_stays_on_the_disk_is_the_one_in_memory(tmp_path, monkeypatch, suffix, target):
    columns = mixed_rows()
    drop = tuple(name for name in ("kind", "code") if name != target)
    drop = drop if suffix == ".parquet" else tuple(name for name in drop if name != "code")
    path = write_table(tmp_path / f"t{suffix}", columns)
    held = load_dataset(path, target=target, drop=drop)
    monkeypatch.setattr(csv_file, "LARGEST_CSV_IN_MEMORY", 1000)
    monkeypatch.setattr(csv_file, "_CSV_BLOCK", 5000)
    streamed = load_dataset(path, target=target, drop=drop, memory=0)
    same(held, streamed)
    assert streamed.found[2].startswith("Read from a scratch file as they are needed, since ")


@pytest.mark.parametrize(
    ("late", "kind"),
    [("1.5", float), ("1e400", None), ("x", None), ("0x1f", None), ("", None)],
)
def test_what_turns_up_late_in_a_csv_decides_the_type_as_if_it_were_read_whole(write_csv, monkeypatch, late, kind):
    rows = [f"{row},{row % 2}" for row in range(2000)]
    rows[1700] = f"{late},1"
    path = write_csv("a,y\n" + "\n".join(rows) + "\n")

    def outcome():
        try:
            return load_dataset(path, target="y", memory=0).x_train[:].tolist()
        except ValueError as error:
            return str(error)

    whole = outcome()
    monkeypatch.setattr(csv_file, "LARGEST_CSV_IN_MEMORY", 1000)
    monkeypatch.setattr(csv_file, "_CSV_BLOCK", 3000)
    assert outcome() == whole
    assert isinstance(whole, list) == (kind is float)


def test_a_validation_table_chooses_and_what_is_not_there_is_drawn(tmp_path):
    columns = mixed_rows(600)
    for start, name in enumerate(("train", "Valid", "test")):
        part = {key: value[200 * start : 200 * (start + 1)] for key, value in columns.items()}
        write_table(tmp_path / f"{name}.parquet", part)
    arguments = {"target": "kind", "drop": ("code",)}
    held = load_dataset(str(tmp_path), **arguments)
    assert held.choose.tolist() == list(range(200, 400))
    np.testing.assert_array_equal(held.x_train[:, 0], columns["whole"][:400])
    np.testing.assert_array_equal(held.x_test[:, 0], columns["whole"][400:])
    assert held.found[1] == "Validation: Valid.parquet. Test: test.parquet."
    same(held, load_dataset(str(tmp_path), memory=0, **arguments))
    (tmp_path / "test.parquet").unlink()
    drawn = load_dataset(str(tmp_path), **arguments)
    assert (len(drawn.x_train), len(drawn.choose), len(drawn.x_test)) == (360, 200, 40)
    assert len(load_dataset(str(tmp_path), test_fraction=1.0, **arguments).x_test) == 400


def test_a_damaged_row_group_is_named_by_its_rows(tmp_path):
    from pyarrow import parquet

    path = write_table(
        tmp_path / "t.parquet", {"a": np.random.default_rng(0).normal(size=2100), "y": np.arange(2100.0)}
    )
    group = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    start = group.dictionary_page_offset or group.data_page_offset
    content[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    (tmp_path / "t.parquet").write_bytes(bytes(content))
    with pytest.raises(
        ValueError, match=r"rows 701 to 1400 of .* cannot be read \(row group 2 is damaged: .*\)\. Corr"
    ):
        load_dataset(path, target="y", memory=0)
    with pytest.raises(ValueError, match=r"the file .* cannot be read as parquet: "):
        load_dataset(path, target="y")


def test_a_gap_in_a_later_block_is_named_by_its_row(tmp_path):
    values = np.arange(140_000.0)
    values[100_000] = np.inf
    path = write_table(tmp_path / "t.parquet", {"a": values, "y": np.arange(140_000.0)})
    with pytest.raises(ValueError, match="must hold finite numbers, but has inf in row 100001"):
        load_dataset(path, target="y", memory=0)
