"""What the bytes of a CSV say before anything parses them: encoding, separator, and a quote that nothing closes."""

from __future__ import annotations

import codecs
import io
import re
from pathlib import Path

from keras_residual._errors import bad_data

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
SEPARATORS_IN_WORDS = "comma, semicolon or tab"
_BYTE_ORDER_MARKS = (  # that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SAMPLE, _BLOCK = 4096, 2**22


def first_line(content: bytes) -> bytes:
    """Returns the first line that is not empty, which names the columns; b"" for none."""
    line = re.search(rb"[^\r\n]+", content)
    return line.group() if line else b""


def separator(header: bytes) -> str:
    """Returns the separator that the line has most of, outside of quoted names."""
    bare = b"".join(header.split(b'"')[::2])
    return max(SEPARATORS, key=lambda sign: bare.count(sign.encode()))


def check_encoding(content: bytes, path: Path, *, owner: str) -> None:
    """Raises a ValueError for text in UTF-16 or UTF-32, with or without a byte order mark."""
    encoding = _wide_encoding(content)
    if encoding:
        raise bad_data(owner, f"the file {path} is text in {encoding}, and a CSV must be UTF-8", "Save it as UTF-8.")


def check_quotes(content: bytes, sign: str, path: Path, *, owner: str) -> None:
    """Raises a ValueError for a quote that opens a value and takes the following lines into it.

    Such a value ends with the file, or with the next stray quote, in the middle of another value.
    """
    # A quote that is closed in its line has a partner there: most files are done with here.
    if b'"' not in content or not any(line.count(b'"') % 2 for line in io.BytesIO(content)):
        return
    content = content.removeprefix(codecs.BOM_UTF8)
    end = b"\r\n" + re.escape(sign.encode())
    value = re.compile(rb'"(?<![^%s]")[^"]*(?:""[^"]*)*(?:(?P<closed>" *(?![^%s]))|"|\Z)' % (end, end))
    for match in value.finditer(content):
        if match["closed"] is None and (match.end() == len(content) or re.search(rb"[\r\n]", match.group())):
            line = len((content[: match.start()] + b".").splitlines())
            raise bad_data(
                owner, f"the quote that opens a value in line {line} of {path} is not closed",
                "Close or remove it; a quote within quotes is written twice.",
            )  # fmt: skip


def quotes_and_hexadecimal(path: Path) -> tuple[bool, bool]:
    """Returns whether a file has a line with a quote and no other, and whether it has `0x` somewhere.

    It is read a block at a time.
    """
    quotes, hexadecimal, end = False, False, b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            quotes = quotes or b'"' in block
            hexadecimal = hexadecimal or b"0x" in end + block or b"0X" in end + block
            end = block[-1:]
    if quotes:
        with path.open("rb") as file:
            quotes = any(line.count(b'"') % 2 for line in file)
    return quotes, hexadecimal


def _wide_encoding(content: bytes) -> str | None:
    for mark, name in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return name
    sample = content[:_SAMPLE]
    if b"\0" not in sample:
        return None
    for name in ("UTF-32", "UTF-16"):
        for order in ("LE", "BE"):
            text = sample.decode(f"{name}-{order}", errors="replace")
            # Digits, separators and line ends are ASCII whatever the language; in the wrong order hardly any sign is.
            if 2 * sum(sign.isascii() and sign != "\0" for sign in text) > len(text):
                return name
    return None
