"""Decoders that are compiled, with the plain ones behind them.

What this file guarantees: a function here answers as the plain decoder of its name does, with the extension built or
without it. The extension says nothing of what is wrong with a body: that one is decoded again, plainly.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.columns import Decoded
from meterite.model.time import AT_FIRST_US, AT_LAST_US
from meterite.wire import line_protocol

if TYPE_CHECKING:
    from meterite.model.columns import Labels, SeriesKey
    from meterite.wire.names import Names

try:
    from meterite.wire._line_protocol import Decoder
except ImportError:  # no compiler was there
    Decoder = None  # type: ignore[assignment, misc]  # the stub knows no such case

KEPT_BYTES_MAX: Final = 128 << 20
"""Of series, by the raw bytes that they were written in: about 150,000 with three tags."""


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
        self._decoder = Decoder(_parse_key, _name_series, seed, kept_bytes_max, AT_FIRST_US, AT_LAST_US)

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
        )

    def kept(self) -> tuple[int, int]:
        """How many fields of how many bytes, Python's objects included, it keeps."""
        return self._decoder.kept()


_LINES: Final = None if Decoder is None else Lines()
COMPILED: Final = _LINES is not None
"""Whether the extension is in use."""


def kept() -> tuple[int, int]:
    """How many fields of line protocol this process keeps, and how many bytes that takes."""
    return (0, 0) if _LINES is None else _LINES.kept()


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
