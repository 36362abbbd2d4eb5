"""Groups of series that one source pushes together: which series each brought last.

What this file guarantees: a group changes in the transaction of the readings that change it, so every worker and every
restart knows the same; each series that leaves a group gets a stale marker, once, at the time of that commit. Where
its metric takes no readings any more it leaves without. A row that fails its checksum counts as an empty group, so
that pushes go on; ``meterite verify`` tells of it.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.columns import NO_TIME, STALE_BITS, Batch
from meterite.model.errors import DamagedError
from meterite.model.metric import SERIES_ORDINAL_BITS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from meterite.model.columns import type_i64
    from meterite.storage.interface import PushGroup

_MAGIC: Final = b"MPG1"
_SELECT: Final = "SELECT series FROM push_group WHERE org = ? AND name = ?"
_UPSERT: Final = (
    "INSERT INTO push_group (org, name, series) VALUES (?, ?, ?)"
    " ON CONFLICT (org, name) DO UPDATE SET series = excluded.series"
)
_DELETE: Final = "DELETE FROM push_group WHERE org = ? AND name = ?"
_METRICS: Final = 500


def encode_group(org_id: int, name: str, series: type_i64) -> bytes:
    """The series, ascending, behind a checksum over them and over what names the group."""
    ids = series.astype("<i8").tobytes()
    return _MAGIC + struct.pack("<I", _checksum(org_id, name, ids)) + ids


def decode_group(org_id: int, name: str, data: object) -> type_i64:
    """DamagedError."""
    if not isinstance(data, bytes) or data[:4] != _MAGIC or len(data) < 8 or len(data) % 8:
        raise DamagedError("damaged", "A push group is not in its format.")
    if struct.unpack_from("<I", data, 4)[0] != _checksum(org_id, name, data[8:]):
        raise DamagedError("damaged", "A push group's checksum doesn't hold.")
    return np.frombuffer(data, "<i8", offset=8).astype(np.int64)


def _checksum(org_id: int, name: str, ids: bytes) -> int:
    return zlib.crc32(ids, zlib.crc32(name.encode("utf-8"), zlib.crc32(struct.pack("<q", org_id))))


def regroup(raw: sqlite3.Connection, org_id: int, group: PushGroup, batch: Batch) -> Batch:
    """Let the group be what the batch makes of it; the batch, with a marker behind it for each series that left."""
    row = raw.execute(_SELECT, (org_id, group.name)).fetchone()
    if row is not None and row[0] == encode_group(org_id, group.name, batch.series):
        return batch  # as before, which most pushes are
    before, brought = _series_of(org_id, group.name, row), batch.series
    left = before[~_among(before, brought)]
    if group.replaces == "metrics":
        left = left[_among(left >> SERIES_ORDINAL_BITS, brought >> SERIES_ORDINAL_BITS)]
    kept = before[~_among(before, left)]
    after = np.sort(np.concatenate([kept, brought[~_among(brought, kept)]]))
    if not len(after):
        raw.execute(_DELETE, (org_id, group.name))
    elif not np.array_equal(after, before):
        raw.execute(_UPSERT, (org_id, group.name, encode_group(org_id, group.name, after)))
    if len(left):
        left = left[_among(left >> SERIES_ORDINAL_BITS, _active(raw, left >> SERIES_ORDINAL_BITS))]
    return _marked(batch, left) if len(left) else batch


def _series_of(org_id: int, name: str, row: tuple[object] | None) -> type_i64:
    if row is None:
        return np.empty(0, np.int64)
    try:
        return decode_group(org_id, name, row[0])
    except DamagedError:
        return np.empty(0, np.int64)


def _active(raw: sqlite3.Connection, metric_ids: type_i64) -> type_i64:
    """Those of the metrics that take readings, ascending."""
    wanted = sorted(set(metric_ids.tolist()))
    found: list[int] = []
    for start in range(0, len(wanted), _METRICS):
        some = wanted[start : start + _METRICS]
        query = f"SELECT id FROM metric WHERE active AND deleted_at IS NULL AND id IN ({', '.join('?' * len(some))})"  # noqa: S608 -- places for numbers alone
        found += [row[0] for row in raw.execute(query, some)]
    return np.array(sorted(found), np.int64)


def _among(values: type_i64, known: type_i64) -> NDArray[np.bool_]:
    """Which of the values are among those known, which ascend: a tenth of what ``np.isin`` costs few of them."""
    if not len(known):
        return np.zeros(len(values), bool)
    found: NDArray[np.bool_] = known[np.minimum(known.searchsorted(values), len(known) - 1)] == values
    return found


def _marked(batch: Batch, left: type_i64) -> Batch:
    """The commit gives the markers' time, as it does the readings'. No series is in both."""
    series = np.union1d(batch.series, left)
    index = [series.searchsorted(ids).astype(np.uint32) for ids in (batch.series, left)]
    return Batch(
        series,
        np.concatenate([index[0][batch.series_index], index[1]]),
        np.concatenate([batch.at_us, np.full(len(left), NO_TIME, np.int64)]),
        np.concatenate([batch.values, np.full(len(left), STALE_BITS, np.uint64).view(np.float64)]),
    )


def faults_of_groups(raw: sqlite3.Connection) -> Iterator[str]:
    """A sentence for each damaged row."""
    for row_id, org_id, name, data in raw.execute("SELECT rowid, org, name, series FROM push_group"):
        try:
            decode_group(org_id, str(name), data)
        except DamagedError as exc:
            yield f"push_group row {row_id}: {exc.message}"
