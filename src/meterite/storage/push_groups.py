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
    before, brought = _series_of(org_id, group.name, row), set(batch.series.tolist())
    left = before - brought
    if group.replaces == "metrics":
        left = _of_metrics(left, {id_ >> SERIES_ORDINAL_BITS for id_ in brought})
    after = (before - left) | brought
    if not after:
        raw.execute(_DELETE, (org_id, group.name))
    elif after != before:
        data = encode_group(org_id, group.name, np.array(sorted(after), np.int64))
        raw.execute(_UPSERT, (org_id, group.name, data))
    left = _of_metrics(left, _active(raw, {id_ >> SERIES_ORDINAL_BITS for id_ in left}))
    return _marked(batch, np.array(sorted(left), np.int64)) if left else batch


def _series_of(org_id: int, name: str, row: tuple[object] | None) -> set[int]:
    if row is None:
        return set()
    try:
        return set(decode_group(org_id, name, row[0]).tolist())
    except DamagedError:
        return set()


def _active(raw: sqlite3.Connection, metric_ids: set[int]) -> set[int]:
    """Those of the metrics that take readings."""
    wanted = sorted(metric_ids)
    found: set[int] = set()
    for start in range(0, len(wanted), _METRICS):
        some = wanted[start : start + _METRICS]
        query = f"SELECT id FROM metric WHERE active AND deleted_at IS NULL AND id IN ({', '.join('?' * len(some))})"  # noqa: S608 -- places for numbers alone
        found.update(row[0] for row in raw.execute(query, some))
    return found


def _of_metrics(series: set[int], metric_ids: set[int]) -> set[int]:
    return {id_ for id_ in series if id_ >> SERIES_ORDINAL_BITS in metric_ids}


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
