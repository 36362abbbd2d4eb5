"""The pieces of which blobs are made: columns of numbers (sections), and packed rows behind a checksum.

What this file guarantees: what comes out is what went in, bit for bit, NaN payloads and negative zeros too;
decoding writes into memory whose size the caller named, whatever the bytes say, and answers
:class:`DamagedError` for bytes that are no section of that many numbers. The layout is in
docs/format/row-group.md.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pcodec import ChunkConfig, standalone

from meterite.model.errors import DamagedError

if TYPE_CHECKING:
    from numpy.typing import NDArray


RAW: Final = 0
PCODEC: Final = 1
CONSTANT: Final = 2
RUNS: Final = 3
INDEXED: Final = 4

_ROWS_HEADER: Final = struct.Struct("<4sII")
_PAIR: Final = struct.Struct("<II")
_U32: Final = np.dtype("<u4")
_RAW_BELOW: Final = 24
_NESTED: Final = 3
"""Sections lie in sections so deep at most."""
_CLEARLY: Final = 32
"""A column in less than this part of its numbers' bytes is small enough: nothing else is tried."""
_CONFIG: Final = ChunkConfig(compression_level=8)
_UNSIGNED: Final[dict[int, np.dtype[Any]]] = {4: np.dtype("<u4"), 8: np.dtype("<u8")}


def damaged(what: str) -> DamagedError:
    return DamagedError("damaged", f"Stored bytes are damaged: {what}.")


def bits_of(column: NDArray[Any]) -> NDArray[Any]:
    """To be compared instead of numbers: two NaNs may differ, and 0.0 equals -0.0."""
    bits: NDArray[Any] = column.view(_UNSIGNED[column.dtype.itemsize])
    return bits


def encode_section(array: NDArray[Any]) -> bytes:
    """The kind in one byte, then the numbers; the smallest of all kinds but ``INDEXED``."""
    column = np.ascontiguousarray(array)
    if len(column) < _RAW_BELOW:
        return _flat(column)
    bits = bits_of(column)
    starts = np.flatnonzero(bits[1:] != bits[:-1]) + 1
    if not len(starts) or len(starts) >= len(column) // 2:
        return _flat(column)
    runs = _encode_runs(column, starts)
    if len(runs) * _CLEARLY < column.nbytes:
        return runs
    return min(runs, _plain(column), key=len)


def _flat(column: NDArray[Any]) -> bytes:
    """A section in which no other lies."""
    bits = bits_of(column)
    if len(column) > 1 and bits[0] == bits[-1] and bool((bits == bits[0]).all()):
        return bytes((CONSTANT,)) + column[:1].tobytes()
    return _plain(column)


def _plain(column: NDArray[Any]) -> bytes:
    if len(column) >= _RAW_BELOW:
        packed: bytes = standalone.simple_compress(column, _CONFIG)
        if len(packed) < column.nbytes:
            return bytes((PCODEC,)) + packed
    return bytes((RAW,)) + column.tobytes()


def _encode_runs(column: NDArray[Any], starts: NDArray[np.intp]) -> bytes:
    """``starts``: where another number begins than the one before, but for the first."""
    edges = np.concatenate(([0], starts, [len(column)]))
    lengths = _flat(np.diff(edges).astype(_U32))
    return b"".join(
        [bytes((RUNS,)), _PAIR.pack(len(starts) + 1, len(lengths)), lengths, _plain(column[edges[:-1]])]
    )


def encode_indexed(column: NDArray[np.int64]) -> bytes:
    """For few distinct integers, each often: which of them comes when costs less where their steps are no matter."""
    table, index = _distinct(column)
    if not 1 < len(table) <= len(column) // 4:
        return encode_section(column)
    numbers = encode_section(table)
    return b"".join(
        [bytes((INDEXED,)), _PAIR.pack(len(table), len(numbers)), numbers, encode_section(index.astype(_U32))]
    )


def _distinct(column: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The distinct integers, ascending, and which of them each one is; without a sort where they lie close."""
    first = int(column.min())
    width = int(column.max()) - first + 1
    if width > 8 * len(column) + 1024:
        table, index = np.unique(column, return_inverse=True)
        return table, index
    offsets = column - first
    occurs = np.zeros(width, np.bool_)
    occurs[offsets] = True
    rank = np.cumsum(occurs, dtype=np.int32) - 1
    return np.flatnonzero(occurs) + first, rank[offsets]


def decode_section(
    section: memoryview, dtype: np.dtype[Any], count: int, nested: int = _NESTED
) -> NDArray[Any]:
    """The ``count`` numbers, as an array of its own that must not be written to."""
    kind = section[0] if len(section) else -1
    body = section[1:]
    column: NDArray[Any]
    if kind == PCODEC:
        column = _decode_pcodec(bytes(body), dtype, count)
    elif kind == RAW and len(body) == count * dtype.itemsize:
        column = np.frombuffer(bytes(body), dtype)
    elif kind == CONSTANT and len(body) == dtype.itemsize:
        column = np.empty(count, dtype)
        column[:] = np.frombuffer(body, dtype)
    elif kind in {RUNS, INDEXED} and len(body) >= _PAIR.size and nested:
        decode = _decode_runs if kind == RUNS else _decode_indexed
        column = decode(body, dtype, count, nested - 1)
    else:
        raise damaged(f"a section of kind {kind} with {len(body)} bytes can't hold {count} numbers")
    column.flags.writeable = False
    return column


def _decode_runs(body: memoryview, dtype: np.dtype[Any], count: int, nested: int) -> NDArray[Any]:
    runs, size = _PAIR.unpack_from(body)
    if not 0 < runs <= count:
        raise damaged("a section has more runs than numbers")
    lengths = decode_section(body[_PAIR.size : _PAIR.size + size], _U32, runs, nested)
    if int(lengths.sum(dtype=np.uint64)) != count:
        raise damaged("a section's runs don't fill it")
    return np.repeat(decode_section(body[_PAIR.size + size :], dtype, runs, nested), lengths)


def _decode_indexed(body: memoryview, dtype: np.dtype[Any], count: int, nested: int) -> NDArray[Any]:
    distinct, size = _PAIR.unpack_from(body)
    if not 0 < distinct <= count:
        raise damaged("a section's table is longer than its numbers")
    table = decode_section(body[_PAIR.size : _PAIR.size + size], dtype, distinct, nested)
    index = decode_section(body[_PAIR.size + size :], _U32, count, nested)
    if int(index.max()) >= distinct:
        raise damaged("a section names a number that its table doesn't have")
    column: NDArray[Any] = table[index]
    return column


def _decode_pcodec(body: bytes, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    column = np.empty(count, dtype)
    try:
        progress = standalone.simple_decompress_into(body, column)
    except (RuntimeError, TypeError, ValueError) as exc:
        raise damaged("a compressed section can't be read") from exc
    except BaseException as exc:
        # A panic in Rust arrives as a BaseException of a class that can't be imported.
        if type(exc).__name__ != "PanicException":
            raise
        raise damaged("a compressed section can't be read") from exc
    if progress.n_processed != count or not progress.finished:
        raise damaged(f"a compressed section holds other than {count} numbers")
    return column


def encode_rows(magic: bytes, rows: NDArray[np.void]) -> bytes:
    """Rows of a packed structured dtype behind a magic, a checksum and their number."""
    checked = struct.pack("<I", len(rows)) + rows.tobytes()
    return b"".join([magic, struct.pack("<I", zlib.crc32(checked)), checked])


def decode_rows(magic: bytes, blob: bytes, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """What :func:`encode_rows` was given."""
    view = memoryview(blob)
    name = magic.decode()
    if len(view) < _ROWS_HEADER.size or bytes(view[:4]) != magic:
        raise damaged(f"no {name} block begins here")
    _, crc, count = _ROWS_HEADER.unpack_from(view)
    if zlib.crc32(view[8:]) != crc:
        raise damaged(f"an {name} block fails its checksum")
    if len(view) != _ROWS_HEADER.size + count * dtype.itemsize:
        raise damaged(f"an {name} block's length doesn't fit its rows")
    return np.frombuffer(bytes(view[_ROWS_HEADER.size :]), dtype)
