"""Decoders that are compiled, with the plain ones behind them.

What this file guarantees: a function here answers as the plain decoder of its name does, with the extension built or
without it. The extension says nothing of what is wrong with a body: that one is decoded again, plainly.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.columns import Decoded
from meterite.model.errors import MeteriteError
from meterite.model.time import AT_FIRST_US, AT_LAST_US
from meterite.wire import line_protocol, remote_write

if TYPE_CHECKING:
    from meterite.model.columns import Labels, SeriesKey
    from meterite.wire.names import Names

try:
    from meterite.wire import _line_protocol, _remote_write
except ImportError:  # no compiler was there
    COMPILED = False
else:
    COMPILED = True
"""Whether the extensions are in use."""

KEPT_BYTES_MAX: Final = 192 << 20
"""Of series, by the raw bytes that they were written in, a format: about 140,000 with three tags."""


def _parse_key(raw: bytes) -> tuple[str, Labels] | None:
    try:
        return line_protocol.parse_key(raw, 0)
    except line_protocol.LineError:
        return None


def _name_series(parsed: tuple[str, Labels], name: bytes) -> SeriesKey | None:
    try:
        return line_protocol.name_series(parsed, name, 0)
    except line_protocol.LineError:
        return None


class Lines:
    """A decoder of line protocol that keeps series from body to body, by at most so many bytes. Needs the extension."""

    def __init__(self, kept_bytes_max: int = KEPT_BYTES_MAX) -> None:
        seed = secrets.token_bytes(16)
        self._decoder = _line_protocol.Decoder(
            _parse_key, _name_series, seed, kept_bytes_max, AT_FIRST_US, AT_LAST_US
        )

    def decode(self, body: bytes, unit: str, readings_max: int) -> Decoded | None:
        """None where only the plain decoder knows."""
        found = self._decoder.decode(body, unit, readings_max)
        if found is None:
            return None
        keys, key_index, at_us, values, row, skipped = found
        return Decoded(
            keys,
            np.frombuffer(key_index, np.uint32),
            np.frombuffer(at_us, np.int64),
            np.frombuffer(values, np.float64),
            np.frombuffer(row, np.int64),
            skipped=skipped,
            counted="line",
            unit=line_protocol.told(unit),
            unit_asked=True,
        )

    def kept(self) -> tuple[int, int]:
        """How many series of how many bytes, Python's objects included, it keeps."""
        return self._decoder.kept()


def _parse_labels(raw: bytes) -> SeriesKey | None:
    try:
        return remote_write.parse_labels(raw)
    except MeteriteError:
        return None


class Writes:
    """A decoder of remote write 1.0, as :class:`Lines` is one of line protocol."""

    def __init__(self, kept_bytes_max: int = KEPT_BYTES_MAX) -> None:
        seed = secrets.token_bytes(16)
        self._decoder = _remote_write.Decoder(
            _parse_labels, None, seed, kept_bytes_max, AT_FIRST_US, AT_LAST_US
        )

    def decode(self, body: bytes, readings_max: int) -> Decoded | None:
        """None where only the plain decoder knows."""
        found = self._decoder.decode(body, readings_max)
        if found is None:
            return None
        keys, key_index, at_us, values = found
        index = np.frombuffer(key_index, np.uint32)
        return Decoded(
            keys,
            index,
            np.frombuffer(at_us, np.int64),
            np.frombuffer(values, np.float64),
            np.arange(len(index)),
            unit="ms",
        )

    def kept(self) -> tuple[int, int]:
        """How many series of how many bytes, Python's objects included, it keeps."""
        return self._decoder.kept()


_LINES: Final = Lines() if COMPILED else None
_WRITES: Final = Writes() if COMPILED else None


def decode_line_protocol(
    body: bytes, *, precision: str | None, readings_max: int, names: Names | None = None
) -> Decoded:
    """As :func:`meterite.wire.line_protocol.decode_line_protocol`, to which ``names`` are handed on."""
    if _LINES is not None:
        decoded = _LINES.decode(body, line_protocol.time_unit(precision), readings_max)
        if decoded is not None:
            return decoded
    return line_protocol.decode_line_protocol(
        body, precision=precision, readings_max=readings_max, names=names
    )


def decode_remote_write(body: bytes, *, message: str, names: Names, readings_max: int) -> Decoded:
    """As :func:`meterite.wire.remote_write.decode_remote_write`; 2.0 is decoded plainly."""
    if _WRITES is not None and message == remote_write.MESSAGE_1:
        decoded = _WRITES.decode(body, readings_max)
        if decoded is not None:
            return decoded
    return remote_write.decode_remote_write(body, message=message, names=names, readings_max=readings_max)
