"""What a CSV that is none, or is written in another way, is told."""

import re

import pytest

from keras_residual.data import load_dataset

pytestmark = pytest.mark.any_backend

ROWS = "x,z,y\n" + "1,2,a\n3,4,b\n" * 10
FIRST = "The first line must name the columns, and comma, semicolon or tab separates them."
IN_QUOTES = "Correct the row; a value with a comma in it must be in quotes."
QUOTE = "Close or remove it; a quote within quotes is written twice."


def refused(message, path, **arguments):
    with pytest.raises(ValueError, match=f"^{re.escape(f'Data {path!r}: {message}')}$"):
        load_dataset(path, **({"target": "y"} | arguments))


@pytest.mark.parametrize("rows", [ROWS, ROWS.replace("z", "größe").replace("a", "日本")], ids=["ASCII", "others"])
@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("bits", ["16", "32"])
def test_another_unicode_encoding_is_named(write_csv, rows, mark, order, bits):
    path = write_csv((("\ufeff" if mark else "") + rows).encode(f"utf-{bits}-{order}"))
    refused(f"the file {path} is text in UTF-{bits}, and a CSV must be UTF-8. Save it as UTF-8.", path)


@pytest.mark.parametrize("text", ["größe,y\n1,a\n2,b\n", "x,y\n1,süß\n2,b\n", "größe\n1,a\n"])
def test_other_encodings_are_refused(write_csv, text):
    path = write_csv(text.encode("latin-1"))
    refused(f"the file {path} is not text in UTF-8. Save it as UTF-8.", path)


def test_zeros_in_utf_8_are_no_utf_16(write_csv):
    path = write_csv("x,y\n" + "1,a\0\n2,b\n" * 5)
    refused(r"the class 'a\x00' has characters in its name that cannot be shown. Rename the class.", path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('x,y\n1,"0\n2,1\n3,0\n4,1\n', 2),
        ('x,y\n1,0\n2,1\n3,0\n4,"1', 5),
        ('x,"y\n1,0\n2,1\n', 1),
        ('\ufeff"x,y\n1,0\n2,1\n', 1),
        ('x,y\n1,"a\n2,b\n3,"c\n4,d\n', 2),
        ('x,y\r\n1,"two\r\nlines"\r\n2,"b\r\n3,c\r\n', 4),
        ('x,y\r1,a\r2,"b\r', 3),
        ('x,y\n1,"say ""hi"""\n2,"b""\n3,c\n', 3),
        ('x;y\n1;"a,"\n2;"b\n', 3),
    ],
)
def test_a_quote_that_is_not_closed_is_found(write_csv, text, line):
    path = write_csv(text)
    refused(f"the quote that opens a value in line {line} of {path} is not closed. {QUOTE}", path)


@pytest.mark.parametrize(
    "cell", ['"two\nlines"', '"a, b"', '"say ""hi"""', '5" pipe', 'a "b', '"a\n" ', '""', '"a"b', '"""\n"']
)
def test_other_quotes_are_read(write_csv, cell):
    path = write_csv("note,x,y\n" + f"{cell},1,a\nplain,2,b\n" * 5 + "last,2,b")
    data = load_dataset(path, target="y", drop=("note",), test_fraction=1.0)
    assert len(data.x_test) == 11


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# made by hand\n" + ROWS, "names 1 column (# made by hand), but row 1 has 3 values: x,z,y. " + FIRST),
        ("# made\n# by hand\n" + ROWS, "names 1 column (# made), but row 2 has 3 values: x,z,y. " + FIRST),
        ("# hand, made\n" + ROWS, "names 2 columns (# hand, made), but row 1 has 3 values: x,z,y. " + FIRST),
        ("\ufefftitle\n\n" + ROWS, "names 1 column (title), but row 1 has 3 values: x,z,y. " + FIRST),
        (ROWS + "\n5,6\n", "names 3 columns (x,z,y), but row 21 has 2 values: 5,6. " + IN_QUOTES),
        (ROWS + "5\n", "names 3 columns (x,z,y), but row 21 has 1 value: 5. " + IN_QUOTES),
        ("x|y\n1,5|a\n", "names 1 column (x|y), but row 1 has 2 values: 1,5|a. " + FIRST),
    ],
)
def test_rows_that_do_not_fit_the_first_line(write_csv, text, message):
    path = write_csv(text)
    refused(f"the first line of {path} {message}", path)


@pytest.mark.parametrize("sign", [" ", "   ", "|", " | ", ":"])
def test_another_separator(write_csv, sign):
    path = write_csv(ROWS.replace(",", sign))
    name = f"x{sign}z{sign}y"
    refused(
        f"the first line of {path} names one column only, {name!r}. Separate the columns by comma, semicolon or tab.",
        path,
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_be_empty_before_the_names(write_csv, end):
    path = write_csv(("\n\n" + ROWS.replace(",", ";")).replace("\n", end))
    assert load_dataset(path, target="y").features == ("x", "z")
