"""The single push, ``POST /metric/{code}``: ``MeterBase`` in, ``Meter`` out, as JSON.

What this file guarantees: any bytes whatever give a :class:`Push` or an error that leads to its place.
Fields that ``MeterBase`` doesn't have are ignored, as the original did, but for those that are nearly one of its own:
a slip in ``reading_at`` would be a reading of now. The typed decoder takes what is surely right (for duplicate keys see
``readings_json``); all else is decided the exact way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from meterite.model.check import check_labels, check_reading
from meterite.model.columns import NO_TIME
from meterite.model.errors import InvalidInputError
from meterite.model.near import refuse_slips
from meterite.model.number import number_text, numbers_text
from meterite.model.time import SECOND_US, format_many, format_rfc3339, parse_rfc3339
from meterite.wire.json_exact import load_exact
from meterite.wire.readings_exact import exact_reading, exact_time

if TYPE_CHECKING:
    from meterite.model.columns import Labels, type_f64, type_i64

UNSET: Final = msgspec.UNSET
_AT_PLACE: Final = ("body", "reading_at")
_FIELDS: Final = ("reading", "reading_at", "labels")
_KNOWN: Final = frozenset({*_FIELDS, "metric_id", "recorded_at"})
"""A ``Meter`` can be sent back as it was got."""
_FEW: Final = 16


class Push(NamedTuple):
    """One reading; without a time the server gives one. A tuple is made faster than a dataclass."""

    reading: float
    at_us: int | None
    labels: Labels = ()


class _MeterBase(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    reading: float
    reading_at: str | msgspec.UnsetType = UNSET
    labels: dict[str, str] | msgspec.UnsetType = UNSET


_METER_BASE: Final = msgspec.json.Decoder(_MeterBase)


def decode_push(body: bytes) -> Push:
    """The reading in a body of any content type."""
    try:
        meter = _METER_BASE.decode(body)
    except (ValueError, RecursionError):
        return _decode_exactly(body)
    at, labels = meter.reading_at, meter.labels
    keys = 1 if at is UNSET else 2
    if labels is not UNSET:
        keys += 1 + len(labels)
    if body.count(b'":') != keys or b" :" in body or b"\n:" in body or b"\t:" in body or b"\r:" in body:
        return _decode_exactly(body)
    return Push(
        meter.reading,
        None if at is UNSET else parse_rfc3339(at, place=_AT_PLACE),
        () if labels is UNSET else check_labels(labels),
    )


def _decode_exactly(body: bytes) -> Push:
    document = load_exact(body)
    if not isinstance(document, dict):
        raise InvalidInputError("shape-invalid", 'Send a JSON object like {"reading": 42.5}.')
    refuse_slips(document, _FIELDS, _KNOWN)
    if "reading" not in document:
        raise InvalidInputError("missing-field", "The field reading is missing.", place=("body", "reading"))
    reading = check_reading(exact_reading(document["reading"]))
    at = document.get("reading_at")
    if isinstance(at, int | float):
        raise InvalidInputError(
            "time-invalid", "A time must be a string like 2026-01-31T12:00:00Z.", place=_AT_PLACE
        )
    at_us = exact_time(at, None)
    labels = document.get("labels")
    if labels is not None and not isinstance(labels, dict):
        raise InvalidInputError(
            "label-invalid", "Labels must be an object of strings.", place=("body", "labels")
        )
    return Push(reading, None if at_us == NO_TIME else at_us, check_labels(labels or {}))


@lru_cache(maxsize=64)
def _second_text(second: int) -> str:
    """A server writes thousands of times within few seconds: each second is formatted once."""
    return format_rfc3339(second * SECOND_US)[:-1]


def _time_text(us: int) -> str:
    second, fraction = divmod(us, SECOND_US)
    return f"{_second_text(second)}.{fraction:06d}Z" if fraction else f"{_second_text(second)}Z"


def encode_meter(reading: float, at_us: int, metric_id: int, recorded_at_us: int) -> bytes:
    """The contract's ``Meter``; ``recorded_at`` is null for ``NO_TIME``."""
    recorded_at = "null" if recorded_at_us == NO_TIME else f'"{_time_text(recorded_at_us)}"'
    return (
        f'{{"reading":{number_text(reading)},"reading_at":"{_time_text(at_us)}",'
        f'"metric_id":{metric_id},"recorded_at":{recorded_at}}}'
    ).encode("ascii")


def encode_meters(reading: type_f64, at_us: type_i64, metric_id: int, recorded_at_us: type_i64) -> bytes:
    """A list of :func:`encode_meter` of each; of many by columns, in a sixth of the time."""
    if len(reading) < _FEW:
        rows = zip(reading.tolist(), at_us.tolist(), recorded_at_us.tolist(), strict=True)
        return b"[%b]" % b",".join(
            [encode_meter(value, at, metric_id, recorded) for value, at, recorded in rows]
        )
    known = recorded_at_us != NO_TIME
    quoted = [f'"{text}"' for text in format_many(np.where(known, recorded_at_us, 0))]
    for row in np.flatnonzero(~known).tolist():
        quoted[row] = "null"
    meters = [
        f'{{"reading":{number},"reading_at":"{at}","metric_id":{metric_id},"recorded_at":{recorded_at}}}'
        for number, at, recorded_at in zip(numbers_text(reading), format_many(at_us), quoted, strict=True)
    ]
    return f"[{','.join(meters)}]".encode("ascii")
