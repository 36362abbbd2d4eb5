"""Reads the part of Python's pickle format in which Graphite's clients write: lists, tuples, texts, numbers.

What this file guarantees: nothing is ever called, imported or made but lists, tuples, strings, integers, floats,
booleans and None; any bytes give a value or a MalformedError that names the byte, in time and memory linear in them. An
object that the memo gives twice is one object, so a small pickle can't be a large value, and a walk to a bounded depth
ends. Opcodes: pickletools of Python, protocols 0 to 5; those that this table lacks are refused.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any, Final

from meterite.model.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

_INTEGER_BYTES_MAX: Final = 16
_NUMBER_CHARACTERS_MAX: Final = 64
_MARK: Final = object()
_ESCAPE: Final = re.compile(rb"\\(?:x[0-9a-f]{2}|[\\'\"nrt])")

# A pickle's own integers are little-endian, its float is not.
_U8, _U16, _I32 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<i")
_U32, _U64, _F64 = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct(">d")


class _BrokenError(Exception):
    """The bytes can't be read on from here."""


def unpickle(body: bytes) -> Any:
    """What the bytes say. MalformedError."""
    reader = _Reader(body)
    try:
        return reader.run()
    except (_BrokenError, IndexError, ValueError, struct.error, OverflowError) as exc:
        raise MalformedError(
            "pickle-invalid",
            f"The pickle can't be read at byte {reader.opcode_at}: only plain data is taken.",
        ) from exc


class _Reader:
    """A stack machine without the instructions that make anything but plain data."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.opcode_at = 0

    def run(self) -> Any:
        while True:
            self.opcode_at = self._at
            opcode = self._take(1)
            if opcode == b".":
                return self._pop()
            instruction = _INSTRUCTIONS.get(opcode)
            if instruction is None:
                raise _BrokenError
            instruction(self)

    # --- Reading

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._body):
            raise _BrokenError
        taken = self._body[self._at : end]
        self._at = end
        return taken

    def number(self, kind: struct.Struct) -> Any:
        return kind.unpack(self._take(kind.size))[0]

    def line(self) -> bytes:
        end = self._body.index(b"\n", self._at)
        taken = self._body[self._at : end]
        self._at = end + 1
        return taken

    def short_line(self) -> bytes:
        line = self.line()
        if len(line) > _NUMBER_CHARACTERS_MAX:
            raise _BrokenError
        return line

    def sized(self, kind: struct.Struct) -> bytes:
        return self._take(self.number(kind))

    def long(self, kind: struct.Struct) -> int:
        raw = self.sized(kind)
        if len(raw) > _INTEGER_BYTES_MAX:
            raise _BrokenError
        return int.from_bytes(raw, "little", signed=True)

    # --- The stack

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise _BrokenError
        return value

    def mark(self) -> None:
        self._stack.append(_MARK)

    def since_mark(self) -> list[Any]:
        """Each value is looked at once and taken off, so this is linear in all."""
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        values.reverse()
        return values

    def tuple_of(self, size: int) -> None:
        values = [self._pop() for _ in range(size)]
        self.push(tuple(reversed(values)))

    def append(self, values: list[Any]) -> None:
        top = self._stack[-1]
        if type(top) is not list:
            raise _BrokenError
        top.extend(values)

    def append_one(self) -> None:
        value = self._pop()
        self.append([value])

    def remember(self, place: int) -> None:
        value = self._pop()
        self._memo[place] = value
        self.push(value)

    def memoize(self) -> None:
        self.remember(len(self._memo))

    def recall(self, place: int) -> None:
        if place not in self._memo:
            raise _BrokenError
        self.push(self._memo[place])


def _integer(line: bytes) -> int | bool:
    """Protocol 0 writes booleans as 00 and 01."""
    if line in {b"00", b"01"}:
        return line == b"01"
    return int(line)


def _quoted(line: bytes) -> str:
    """A byte string as ``repr`` writes it, whose bytes are taken for UTF-8."""
    quote, text = line[:1], line[1:-1]
    if len(line) < 2 or quote not in b"'\"" or line[-1:] != quote or _ESCAPE.sub(b"", text).count(b"\\"):
        raise _BrokenError
    return text.decode("unicode_escape").encode("latin-1").decode("utf-8")


_INSTRUCTIONS: Final[dict[bytes, Callable[[_Reader], None]]] = {
    b"\x80": lambda r: _check_protocol(r.number(_U8)),
    b"\x95": lambda r: _check_frame(r.number(_U64)),
    b"(": lambda r: r.mark(),
    b"]": lambda r: r.push([]),
    b"l": lambda r: r.push(r.since_mark()),
    b"a": lambda r: r.append_one(),
    b"e": lambda r: r.append(r.since_mark()),
    b")": lambda r: r.push(()),
    b"t": lambda r: r.push(tuple(r.since_mark())),
    b"\x85": lambda r: r.tuple_of(1),
    b"\x86": lambda r: r.tuple_of(2),
    b"\x87": lambda r: r.tuple_of(3),
    b"N": lambda r: r.push(None),
    b"\x88": lambda r: r.push(True),
    b"\x89": lambda r: r.push(False),
    b"I": lambda r: r.push(_integer(r.short_line())),
    b"L": lambda r: r.push(int(r.short_line().removesuffix(b"L"))),
    b"J": lambda r: r.push(r.number(_I32)),
    b"K": lambda r: r.push(r.number(_U8)),
    b"M": lambda r: r.push(r.number(_U16)),
    b"\x8a": lambda r: r.push(r.long(_U8)),
    b"F": lambda r: r.push(float(r.short_line())),
    b"G": lambda r: r.push(r.number(_F64)),
    b"S": lambda r: r.push(_quoted(r.line())),
    b"T": lambda r: r.push(r.sized(_U32).decode("utf-8")),
    b"U": lambda r: r.push(r.sized(_U8).decode("utf-8")),
    b"B": lambda r: r.push(r.sized(_U32).decode("utf-8")),
    b"C": lambda r: r.push(r.sized(_U8).decode("utf-8")),
    b"V": lambda r: r.push(r.line().decode("raw_unicode_escape")),
    b"X": lambda r: r.push(r.sized(_U32).decode("utf-8", "surrogatepass")),
    b"\x8c": lambda r: r.push(r.sized(_U8).decode("utf-8", "surrogatepass")),
    b"\x8d": lambda r: r.push(r.sized(_U64).decode("utf-8", "surrogatepass")),
    b"p": lambda r: r.remember(int(r.short_line())),
    b"q": lambda r: r.remember(r.number(_U8)),
    b"r": lambda r: r.remember(r.number(_U32)),
    b"\x94": lambda r: r.memoize(),
    b"g": lambda r: r.recall(int(r.short_line())),
    b"h": lambda r: r.recall(r.number(_U8)),
    b"j": lambda r: r.recall(r.number(_U32)),
}


def _check_protocol(version: int) -> None:
    if version > 5:
        raise _BrokenError


def _check_frame(_size: int) -> None:
    """A frame is a hint of how much to read at once; all is read already."""
