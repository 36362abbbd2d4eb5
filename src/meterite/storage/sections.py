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

_ROWS_HEADER: Final = struct.Struct("<4sII")
_RAW_BELOW: Final = 24
_CONFIG: Final = ChunkConfig(compression_level=8)
_UNSIGNED: Final[dict[int, np.dtype[Any]]] = {4: np.dtype("<u4"), 8: np.dtype("<u8")}


def damaged(what: str) -> DamagedError:
    return DamagedError("damaged", f"Stored bytes are damaged: {what}.")


def encode_section(array: NDArray[Any]) -> bytes:
    """The kind in one byte, then the numbers; the smallest of the three kinds."""
    column = np.ascontiguousarray(array)
    if len(column) > 1:
        # Bits are compared, not numbers: two NaNs may differ and 0.0 equals -0.0.
        bits = column.view(_UNSIGNED[column.dtype.itemsize])
        if bits[0] == bits[-1] and bool((bits == bits[0]).all()):
            return bytes((CONSTANT,)) + column[:1].tobytes()
        if len(column) >= _RAW_BELOW:
            packed: bytes = standalone.simple_compress(column, _CONFIG)
            if len(packed) < column.nbytes:
                return bytes((PCODEC,)) + packed
    return bytes((RAW,)) + column.tobytes()


def decode_section(section: memoryview, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
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
    else:
        raise damaged(f"a section of kind {kind} with {len(body)} bytes can't hold {count} numbers")
    column.flags.writeable = False
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
