"""Event rows: the transitions of a commit as they are in memory, and what else happened as JSON.

What this file guarantees: encoding copies columns and compresses nothing, since a writer waits for it; decoding takes
any bytes whatever and answers the row's parts or :class:`DamagedError`. Flipped bits are found by
:func:`event_checksum`, which lies in a column of its own and covers the row's other columns too.
docs/format/events.md has the layout.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from meterite.model.event import TYPE_BITS
from meterite.model.event_row import EVENT_ROW_EVENTS_MAX, Document, MetricName
from meterite.model.limits import TRANSITION
from meterite.model.standing import NOTHING, Judged
from meterite.storage.sections import damaged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_MAGIC: Final = b"MEV1"
_HEADER: Final = struct.Struct("<4sIII")
_CHECKED_COLUMNS: Final = struct.Struct("<7q")
_INSERT: Final = "INSERT INTO event_row VALUES (?,?,?,?,?,?,?,?,?)"
_NO_DOCUMENTS: Final = b"[]"
_NAMELESS: Final = MetricName("", "")
_ENCODER: Final = msgspec.json.Encoder()
_DOCUMENTS: Final = msgspec.json.Decoder(list[Document])
_NAMES: Final = msgspec.json.Decoder(dict[int, MetricName])


@dataclass(slots=True)
class EncodedEvents:
    """A row but for its id, org and time."""

    metric_first: int
    metric_last: int
    types: int
    count: int
    data: bytes

    def columns(self, row_id: int, org_id: int, recorded_at_us: int) -> tuple[int | bytes, ...]:
        """First and last metric, types, count, checksum, data."""
        bounds = self.metric_first, self.metric_last, self.types, self.count
        checksum = event_checksum(row_id, org_id, *bounds, recorded_at_us, self.data)
        return (*bounds, checksum, self.data)


def encode_name(metric_id: int, name: MetricName) -> bytes:
    """As it stands in a row: for whoever has the same names in many."""
    return b'"%d":%b' % (metric_id, _ENCODER.encode(name))


class Names(dict[int, bytes]):
    """What metrics are called, by id, as :func:`encode_name` writes it. Those that aren't in it have no name."""

    def __missing__(self, metric_id: int) -> bytes:
        return encode_name(metric_id, _NAMELESS)


def insert_event_row(
    raw: sqlite3.Connection, row_id: int, org_id: int, row: EncodedEvents, recorded_at_us: int
) -> None:
    """As a row of its own; what readings raise lies in their journal row, if that has room."""
    *bounds, checksum, data = row.columns(row_id, org_id, recorded_at_us)
    raw.execute(_INSERT, (row_id, org_id, *bounds, recorded_at_us, checksum, data))


def encode_events(found: Judged, documents: Sequence[Document], names: Names) -> list[EncodedEvents]:
    """In rows of at most 65,536 events; nothing gives no row. Each has the names of the metrics that it is about."""
    count = len(found) + len(documents)
    if 0 < count <= EVENT_ROW_EVENTS_MAX:
        return [_encode(found, documents, names)]
    return [_encode(*part, names) for part in _parts(found, documents)]


def _parts(found: Judged, documents: Sequence[Document]) -> Iterator[tuple[Judged, Sequence[Document]]]:
    rows = found.rows()
    for start in range(0, len(rows), EVENT_ROW_EVENTS_MAX):
        yield Judged.of(rows[start : start + EVENT_ROW_EVENTS_MAX]), ()
    for start in range(0, len(documents), EVENT_ROW_EVENTS_MAX):
        yield NOTHING, documents[start : start + EVENT_ROW_EVENTS_MAX]


def _encode(found: Judged, documents: Sequence[Document], names: Names) -> EncodedEvents:
    used, texts = found.metrics, _NO_DOCUMENTS
    if documents:
        used = sorted({*used, *(document.metric_id for document in documents)} - {0})
        texts = _ENCODER.encode(documents)
    count = len(found)
    header = _HEADER.pack(_MAGIC, count, len(texts), len(documents))
    called = b",".join([names[id_] for id_ in used])
    data = b"".join((header, found.transitions, texts, b"{", called, b"}"))
    return EncodedEvents(*bounds_of(found, documents), count + len(documents), data)


def bounds_of(found: Judged, documents: Sequence[Document]) -> tuple[int, int, int]:
    """The first and the last metric (0 where there is none), and the sum of the bits of all types."""
    metrics, types = found.metrics, found.types
    if documents:
        metrics = sorted({*metrics, *(document.metric_id for document in documents)})
        for document in documents:
            types |= TYPE_BITS[document.type]
    return (metrics[0], metrics[-1], types) if metrics else (0, 0, types)


def decode_events(data: bytes) -> tuple[NDArray[np.void], list[Document], dict[int, MetricName]]:
    """Transitions (a view of the bytes), documents and names."""
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise damaged("no event row begins here")
    _, count, size, documents_count = _HEADER.unpack_from(data)
    place = _HEADER.size + count * TRANSITION.itemsize
    if place + size > len(data):
        raise damaged("an event row's lengths don't fit")
    transitions: NDArray[Any] = np.frombuffer(data, TRANSITION, count, _HEADER.size)
    view = memoryview(data)
    try:
        documents = _DOCUMENTS.decode(view[place : place + size])
        names = _NAMES.decode(view[place + size :])
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise damaged("an event row's documents can't be read") from exc
    if len(documents) != documents_count or any(document.type not in TYPE_BITS for document in documents):
        raise damaged("an event row's documents aren't what it says")
    return transitions, documents, names


def is_whole(columns: Sequence[Any], checksum: Any) -> bool:
    """Whether a row is as it was written: its columns up to the data, of any type, since damage knows none."""
    try:
        return bool(event_checksum(*columns) == checksum)
    except (TypeError, struct.error):  # no number, or none that a column takes
        return False


def event_checksum(
    id: int,  # noqa: A002 -- the column's own name
    org: int,
    metric_first: int,
    metric_last: int,
    types: int,
    count: int,
    recorded_at: int,
    data: bytes,
) -> int:
    """What stands in the row's column ``checksum``: crc32 over the other columns, then the blob."""
    columns = _CHECKED_COLUMNS.pack(id, org, metric_first, metric_last, types, count, recorded_at)
    return zlib.crc32(data, zlib.crc32(columns))
