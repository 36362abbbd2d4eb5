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
from meterite.model.limits import QUIET, TRANSITION
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.storage.sections import damaged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

Name = tuple[str, str, str | None] | msgspec.Raw
"""A metric's code, name and unit: a :class:`MetricName`, a plain tuple, or what :func:`encode_name` made of one."""

_MAGIC: Final = b"MEV1"
_HEADER: Final = struct.Struct("<4sIII")
_CHECKED_COLUMNS: Final = struct.Struct("<7q")
_INSERT: Final = "INSERT INTO event_row VALUES (?,?,?,?,?,?,?,?,?)"
_SERIES: Final = struct.Struct("<q")
_SIZE: Final = TRANSITION.itemsize
_KIND, _FLAGS = (TRANSITION.fields[name][1] for name in ("kind", "flags"))  # type: ignore[index]  # structured
_ENCODER: Final = msgspec.json.Encoder()
_DOCUMENTS: Final = msgspec.json.Decoder(list[Document])
_NAMES: Final = msgspec.json.Decoder(dict[int, MetricName])


@dataclass(frozen=True, slots=True)
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


def encode_name(name: MetricName) -> msgspec.Raw:
    """For whoever has the same names in many rows."""
    return msgspec.Raw(_ENCODER.encode(name))


def insert_event_row(
    raw: sqlite3.Connection, row_id: int, org_id: int, row: EncodedEvents, recorded_at_us: int
) -> None:
    """As a row of its own; what readings raise lies in their journal row, if that has room."""
    *bounds, checksum, data = row.columns(row_id, org_id, recorded_at_us)
    raw.execute(_INSERT, (row_id, org_id, *bounds, recorded_at_us, checksum, data))


def encode_events(
    transitions: NDArray[np.void], documents: Sequence[Document], names: Mapping[int, Name]
) -> list[EncodedEvents]:
    """In rows of at most 65,536 events; nothing gives no row.

    ``transitions`` stand in the order of series; ``names`` has all metrics that the events are about.
    """
    return [_encode(*part) for part in _parts(transitions, documents, names)]


def _parts(
    transitions: NDArray[np.void], documents: Sequence[Document], names: Mapping[int, Name]
) -> Iterator[tuple[NDArray[np.void], Sequence[Document], Mapping[int, Name]]]:
    count = len(transitions) + len(documents)
    if 0 < count <= EVENT_ROW_EVENTS_MAX:
        yield transitions, documents, names
        return
    none = transitions[:0]
    for start in range(0, len(transitions), EVENT_ROW_EVENTS_MAX):
        some = transitions[start : start + EVENT_ROW_EVENTS_MAX]
        used = set((some["series"] >> SERIES_ORDINAL_BITS).tolist())
        yield some, (), {id_: name for id_, name in names.items() if id_ in used}
    for start in range(0, len(documents), EVENT_ROW_EVENTS_MAX):
        others = documents[start : start + EVENT_ROW_EVENTS_MAX]
        used = {document.metric_id for document in others}
        yield none, others, {id_: name for id_, name in names.items() if id_ in used}


def _encode(
    transitions: NDArray[np.void], documents: Sequence[Document], names: Mapping[int, Name]
) -> EncodedEvents:
    raw = transitions.tobytes()
    first, last, types = bounds_of(raw, documents)
    texts = _ENCODER.encode(documents) if documents else b"[]"
    header = _HEADER.pack(_MAGIC, len(transitions), len(texts), len(documents))
    data = b"".join((header, raw, texts, _ENCODER.encode(names)))
    return EncodedEvents(first, last, types, len(transitions) + len(documents), data)


def bounds_of(transitions: bytes, documents: Sequence[Document]) -> tuple[int, int, int]:
    """The first and the last metric (0 where there is none), and the sum of the bits of all types.

    Of transitions as they are in memory, in the order of series: calls of numpy for them take as long as their insert.
    """
    ids = [document.metric_id for document in documents]
    types = 0
    for document in documents:
        types |= TYPE_BITS[document.type]
    if transitions:
        for kind, flags in set(zip(transitions[_KIND::_SIZE], transitions[_FLAGS::_SIZE], strict=True)):
            types |= 0 if flags & QUIET else kind
        for at in (0, len(transitions) - _SIZE):
            (series,) = _SERIES.unpack_from(transitions, at)
            ids.append(series >> SERIES_ORDINAL_BITS)
    return min(ids, default=0), max(ids, default=0), types


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
