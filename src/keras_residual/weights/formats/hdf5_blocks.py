"""The blocks that an HDF5 file is made of: what describes its objects, and the names that lead to them.

Each block is read once, so that the file bounds what reading takes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from keras_residual._errors import shown

UNDEFINED = 2**64 - 1
"""The address of what is not there."""

LINK_INFO, LINK, CONTINUATION, SYMBOL_TABLE = 0x2, 0x6, 0x10, 0x11
"""Kinds of messages, of which an object has some, that lead to other blocks."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LONGEST_NAME = 1000
# By how much what is read of the description of a file may be more than twice the file.
_SPARE = 1_000_000


class Hdf5Error(ValueError):
    """A fault in a file: a text without a full stop."""


class Piece:
    """A piece of the file, from which one thing after the other is taken."""

    def __init__(self, content: bytes):
        self.content, self.place = content, 0

    @property
    def left(self) -> int:
        """How many bytes are not taken yet."""
        return len(self.content) - self.place

    def take(self, size: int) -> bytes:
        """Returns the next bytes."""
        if size > self.left:
            raise Hdf5Error("the file is damaged (a block is too short)")
        self.place += size
        return self.content[self.place - size : self.place]

    def number(self, size: int) -> int:
        """Returns the next bytes as a number."""
        return int.from_bytes(self.take(size), "little")

    def expect(self, content: bytes) -> None:
        """Takes bytes that must be these."""
        if self.take(len(content)) != content:
            raise Hdf5Error(f"the file is damaged (no {shown(content)} where one must be)")

    def rest(self) -> bytes:
        """Returns all bytes that are left."""
        return self.take(self.left)


class DataBlocks:
    """The blocks of a file.

    Args:
        file: The file, open for reading.
        size: How many bytes it has.
    """

    def __init__(self, file: BinaryIO, size: int):
        self._file, self.size = file, size
        self._left = 2 * size + _SPARE
        self._texts: dict[int, dict[int, bytes]] = {}

    def at(self, address: int, size: int) -> Piece:
        """Returns bytes of the file."""
        if address + size > self.size:
            raise Hdf5Error(f"the file is damaged, or cut off after {self.size} bytes")
        self.spend(size)
        self._file.seek(address)
        return Piece(self._file.read(size))

    def spend(self, size: int) -> None:
        """Counts what is read, which is more than the file has where blocks lie over each other."""
        self._left -= size
        if self._left < 0:
            raise Hdf5Error("the file is damaged (blocks lie over each other)")

    def checked(self, address: int, size: int) -> Piece:
        """Returns bytes without the checksum at their end, which holds."""
        block = self.at(address, size)
        content, checksum = block.content[:-4], block.content[-4:]
        if _checksum(content) != int.from_bytes(checksum, "little"):
            raise Hdf5Error("the file is damaged (a checksum is wrong)")
        return Piece(content)

    def root(self) -> int:
        """Returns the address of the outermost group."""
        head = self.at(0, 16)
        head.expect(_SIGNATURE)
        version = head.number(1)
        if version in (0, 1):
            block = self.at(0, 96 if version == 0 else 100)
            block.take(13)
            widths = block.number(1), block.number(1)
            block.take(9 if version == 0 else 13)
            base, _, _, driver = (block.number(8) for _ in range(4))
            block.take(8)
            root = block.number(8)
        elif version in (2, 3):
            block = self.checked(0, 48)
            block.take(9)
            widths = block.number(1), block.number(1)
            block.take(1)
            base, driver, _, root = (block.number(8) for _ in range(4))
        else:
            raise Hdf5Error(f"the file is damaged, or of the version {version}")
        if widths != (8, 8) or base != 0:
            raise Hdf5Error("it has other widths than Keras writes, or does not begin at its beginning")
        # The driver in an old file, all unusual settings in a new one.
        if driver != UNDEFINED:
            raise Hdf5Error("it is part of several files, or has settings that Keras does not write")
        return root

    def messages(self, address: int, name: str) -> Iterator[tuple[int, bytes]]:
        """Yields kind and content of each message of an object."""
        new = self.at(address, 4).content == b"OHDR"
        if new:
            head = self.at(address, 6)
            flags = head.content[5]
            before = 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
            width = 1 << (flags & 3)
            size = int.from_bytes(self.at(address + before, width).content, "little")
            block = self.checked(address, before + width + size + 4)
            block.expect(b"OHDR\x02")
            block.take(before + width - 5)
        else:
            head = self.at(address, 16)
            head.expect(b"\x01")
            block, flags = self.at(address + 16, int.from_bytes(head.content[8:12], "little")), 0
        blocks, seen = [block], {address}
        while blocks:
            block = blocks.pop(0)
            extra = 2 * bool(flags & 4)
            while block.left >= (4 + extra if new else 8):
                kind, size, how = (block.number(width) for width in ((1, 2, 1) if new else (2, 2, 1)))
                block.take(extra if new else 3)
                content = block.take(size)
                if how & 2:
                    raise Hdf5Error(f"{shown(name)} shares what describes it, which Keras does not write")
                if kind != CONTINUATION:
                    yield kind, content
                    continue
                place, length = struct.unpack("<QQ", content[:16])
                if place in seen:
                    raise Hdf5Error("the file is damaged (an object goes on where it began)")
                seen.add(place)
                more = self.checked(place, length) if new else self.at(place, length)
                if new:
                    more.expect(b"OCHK")
                blocks.append(more)

    def links(self, found: dict[int, list[bytes]], name: str) -> Iterator[tuple[str, int]]:
        """Yields name and address of each member of a group."""
        for content in found.get(LINK, ()):
            yield _link(Piece(content), name)
        for content in found.get(LINK_INFO, ()):
            block = Piece(content)
            block.expect(b"\x00")
            block.take(1 + 8 * (content[1] & 1))
            heap, tree = block.number(8), block.number(8)
            if heap != UNDEFINED:
                read = self._fractal_heap(heap)
                for record in self._new_tree(tree):
                    yield _link(Piece(read(record[4:])), name)
        for content in found.get(SYMBOL_TABLE, ()):
            tree, heap = struct.unpack("<QQ", content[:16])
            head = self.at(heap, 32)
            head.expect(b"HEAP\x00")
            head.take(3)
            size, _, start = (head.number(8) for _ in range(3))
            names = self.at(start, size).content
            yield from self._old_tree(tree, names, name, level=None)

    def _old_tree(self, address: int, names: bytes, name: str, level: int | None) -> Iterator[tuple[str, int]]:
        head = self.at(address, 24)
        head.expect(b"TREE\x00")
        found, entries = head.number(1), head.number(2)
        if (level is not None and found != level) or found > 8:
            raise Hdf5Error("the file is damaged (a tree has no end)")
        block = self.at(address + 24, 16 * entries + 8)
        for _ in range(entries):
            block.take(8)
            child = block.number(8)
            if found:
                yield from self._old_tree(child, names, name, found - 1)
                continue
            node = self.at(child, 8)
            node.expect(b"SNOD\x01")
            node.take(1)
            symbols = self.at(child + 8, 40 * node.number(2))
            while symbols.left:
                start, place, kind = symbols.number(8), symbols.number(8), symbols.number(4)
                symbols.take(20)
                end = names.find(b"\0", start)
                if not 0 <= end - start <= _LONGEST_NAME:
                    raise Hdf5Error("the file is damaged (a name has no end)")
                member = names[start:end].decode()
                if kind not in (0, 1):
                    raise Hdf5Error(f"{shown(member)} in {shown(name)} is a link to another place")
                yield member, place

    def _new_tree(self, address: int) -> Iterator[bytes]:
        """Yields the records of a tree of links by name."""
        head = self.checked(address, 38)
        head.expect(b"BTHD\x00\x05")
        size, width, depth = head.number(4), head.number(2), head.number(2)
        head.take(2)
        root, count = head.number(8), head.number(2)
        if not (width == 11 and size >= 64 and depth <= 8):
            raise Hdf5Error("the file is damaged (a tree makes no sense)")
        # How many records a node of each depth holds, and in how many bytes their numbers are.
        most = [(size - 10) // width]
        of_all, widths = most[0], [0]
        of_one = _bytes_for(most[0])
        for _ in range(depth):
            pointer = 8 + of_one + widths[-1]
            most.append((size - 10 - pointer) // (width + pointer))
            of_all = (most[-1] + 1) * of_all + most[-1]
            widths.append(_bytes_for(of_all))

        def node(address: int, count: int, depth: int) -> Iterator[bytes]:
            if count > most[depth]:
                raise Hdf5Error("the file is damaged (a node has too many records)")
            pointer = 8 + of_one + widths[depth - 1] if depth else 0
            block = self.checked(address, 6 + width * count + (count + 1) * pointer + 4)
            block.expect(b"BTIN\x00\x05" if depth else b"BTLF\x00\x05")
            for _ in range(count):
                yield block.take(width)
            while depth and block.left:
                child, below = block.number(8), block.number(of_one)
                block.take(widths[depth - 1])
                yield from node(child, below, depth - 1)

        yield from node(root, count, depth)

    def _fractal_heap(self, address: int) -> Callable[[bytes], bytes]:
        """Returns a function that reads the object of an identifier."""
        head = self.checked(address, 146)
        head.expect(b"FRHP\x00")
        head.take(2)
        filters, flags = head.number(2), head.number(1)
        head.take(4 + 12 * 8)
        columns, first, largest, bits = head.number(2), head.number(8), head.number(8), head.number(2)
        head.take(2)
        root, rows = head.number(8), head.number(2)
        width = (bits + 7) // 8
        if filters or not (columns and first and 0 < width <= 8):
            raise Hdf5Error("the file is damaged (a heap makes no sense)")
        blocks = [(0, first, root)]
        if rows:
            block = self.checked(root, 5 + 8 + width + 8 * rows * columns + 4)
            block.expect(b"FHIB\x00")
            block.take(8 + width)
            blocks, start = [], 0
            for row in range(rows):
                size = first << max(0, row - 1)
                if size > largest:
                    raise Hdf5Error("a group in it has more members than are read")
                for _ in range(columns):
                    blocks.append((start, size, block.number(8)))
                    start += size
        contents: dict[int, bytes] = {}

        def read(identifier: bytes) -> bytes:
            if identifier[0] & 0x30:
                raise Hdf5Error("the file is damaged (a heap has objects that are not in it)")
            place, length = (
                int.from_bytes(part, "little") for part in (identifier[1 : 1 + width], identifier[1 + width :])
            )
            for start, size, at in blocks:
                if start <= place and place + length <= start + size and at != UNDEFINED:
                    if at not in contents:
                        contents[at] = self._heap_block(at, size, 5 + 8 + width, bool(flags & 2))
                    return contents[at][place - start : place - start + length]
            raise Hdf5Error("the file is damaged (a heap lacks an object)")

        return read

    def _heap_block(self, address: int, size: int, before: int, checked: bool) -> bytes:
        content = self.at(address, size).content
        Piece(content).expect(b"FHDB\x00")
        if checked:
            blank = content[:before] + bytes(4) + content[before + 4 :]
            if _checksum(blank) != int.from_bytes(content[before : before + 4], "little"):
                raise Hdf5Error("the file is damaged (a checksum is wrong)")
        return content

    def text(self, reference: bytes) -> str:
        """Returns a text of variable length, which lies in a heap of the file."""
        length, heap, index = struct.unpack("<IQI", reference)
        if length == 0:
            return ""
        self.spend(length)
        if heap not in self._texts:
            self._texts[heap] = self._global_heap(heap)
        text = self._texts[heap].get(index, b"")
        if len(text) < length:
            raise Hdf5Error("the file is damaged (a text is not where it must be)")
        return text[:length].rstrip(b"\0").decode()

    def _global_heap(self, address: int) -> dict[int, bytes]:
        head = self.at(address, 16)
        head.expect(b"GCOL\x01")
        head.take(3)
        block = self.at(address, head.number(8))
        block.take(16)
        found = {}
        while block.left >= 16:
            index, _, _, size = block.number(2), block.number(2), block.number(4), block.number(8)
            if index == 0:  # what is free, to the end
                break
            found[index] = block.take(size)
            block.take(min(-size % 8, block.left))
        return found


def _link(block: Piece, name: str) -> tuple[str, int]:
    block.expect(b"\x01")
    flags = block.number(1)
    kind = block.number(1) if flags & 8 else 0
    block.take(8 * bool(flags & 4) + bool(flags & 0x10))
    member = block.take(block.number(1 << (flags & 3))).decode()
    if kind:
        raise Hdf5Error(f"{shown(member)} in {shown(name)} is a link to another place")
    return member, block.number(8)


def _bytes_for(number: int) -> int:
    return (max(number, 1).bit_length() - 1) // 8 + 1


def _checksum(content: bytes) -> int:
    """Returns Bob Jenkins's lookup3, the checksum of the format."""
    mask = 0xFFFFFFFF
    a = b = c = 0xDEADBEEF + len(content) & mask
    if not content:
        return c
    words = struct.unpack(f"<{-(-len(content) // 12) * 3}I", content + bytes(-len(content) % 12))
    for place in range(0, len(words), 3):
        a, b, c = a + words[place] & mask, b + words[place + 1] & mask, c + words[place + 2] & mask
        if place + 3 == len(words):
            break
        for turn in (4, 6, 8, 16, 19, 4):
            a = (a - c & mask) ^ (c << turn & mask | c >> 32 - turn)
            a, b, c = b, c + b & mask, a
    for turn in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - (b << turn & mask | b >> 32 - turn) & mask
        a, b, c = b, c, a
    return b
