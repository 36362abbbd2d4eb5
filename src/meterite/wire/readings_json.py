"""``POST /readings`` as JSON and NDJSON.

    row       {"metric": "M1", "reading": 1.5, "reading_at"?: "2026-01-31T12:00:00Z", "labels"?: {…}}
    columns   {"metric": "M1", "reading": [1.5, 2], "reading_at"?: [1, 2], "labels"?: {"host": "a"}}
    JSON      a row, columns, or an array of those; NDJSON: a row a line (empty lines don't count)

What this file guarantees: the fast way answers only what the exact way (``readings_exact``) would, and hands
over to it whatever it doubts, so that errors are worded and rows rejected in one place.

Duplicate keys, which the typed decoder lets the last win: every key is followed by ``":`` unless whitespace
stands between. So, without such whitespace, a document in which ``":`` occurs no more often than there are
distinct keys has none twice. A document where it does (in a string, say) goes the exact way.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from meterite.model.check import check_code, check_labels
from meterite.model.columns import NO_TIME, Decoded, SeriesKey
from meterite.model.errors import InvalidInputError, MalformedError, TooLargeError
from meterite.model.time import from_unit, parse_many
from meterite.wire.gather import too_many
from meterite.wire.json_exact import BOM, load_exact
from meterite.wire.mistaken import CSV_HINT, is_csv
from meterite.wire.readings_exact import ExactRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

UNSET: Final = msgspec.UNSET


class _Texts(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Times are texts, or the server's."""

    metric: str
    reading: float | list[float]
    reading_at: str | list[str] | msgspec.UnsetType | None = UNSET
    labels: msgspec.Raw | msgspec.UnsetType = UNSET


class _Integers(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Times are integers, or the server's."""

    metric: str
    reading: float | list[float]
    reading_at: int | list[int] | msgspec.UnsetType | None = UNSET
    labels: msgspec.Raw | msgspec.UnsetType = UNSET


_DOCUMENTS: Final[dict[bool, msgspec.json.Decoder[Any]]] = {
    False: msgspec.json.Decoder(list[_Texts] | _Texts),
    True: msgspec.json.Decoder(list[_Integers] | _Integers),
}
_LINES: Final[dict[bool, msgspec.json.Decoder[Any]]] = {
    False: msgspec.json.Decoder(_Texts),
    True: msgspec.json.Decoder(_Integers),
}
_LABELS: Final = msgspec.json.Decoder(dict[str, str])
_LINES_HINT: Final = "For a reading a line, send Content-Type: application/x-ndjson."
_PIECE_BYTES: Final = 1 << 20
_ELEMENTS_FREE: Final = 1_000_000
_LABEL_BYTES_MIN: Final = 8  # "a":"b",


class _DoubtError(Exception):
    """The exact way shall decide."""


def decode_json(body: bytes, *, precision: str | None, readings_max: int) -> Decoded:
    """The readings of one JSON document; ``rejected`` has those that can't be taken."""
    _check_precision(precision)
    _check_elements(body, readings_max)
    try:
        entries = _DOCUMENTS[precision is not None].decode(body)
        if not isinstance(entries, list):
            entries = [entries]
        return _decode_entries(body, entries, precision, readings_max)
    except (_DoubtError, InvalidInputError, ValueError, OverflowError, RecursionError):
        return _decode_exactly(body, precision, readings_max)


def decode_ndjson(body: bytes, *, precision: str | None, readings_max: int) -> Decoded:
    """The readings of as many JSON objects as there are lines; a broken line is a rejected reading."""
    _check_precision(precision)
    _check_elements(body, readings_max)
    try:
        lines = body.replace(b"\r\n", b"\n") if b"\r" in body else body
        entries = _decode_lines(lines, _LINES[precision is not None])
        if _objects_in_lines(lines) != len(entries):
            raise _DoubtError  # noqa: TRY301  # the way to the except below, as from all the steps
        return _decode_entries(body, entries, precision, readings_max, columns=False)
    except (_DoubtError, InvalidInputError, ValueError, OverflowError, RecursionError):
        return _decode_lines_exactly(body, precision, readings_max)


def _decode_lines(lines: bytes, decoder: msgspec.json.Decoder[Any]) -> list[Any]:
    """In pieces, since no other thread runs while msgspec does."""
    entries: list[Any] = []
    start = 0
    while start < len(lines):
        end = lines.find(b"\n", start + _PIECE_BYTES) + 1 or len(lines)
        entries += decoder.decode_lines(lines[start:end])
        start = end
    return entries


def _check_precision(precision: str | None) -> None:
    if precision is not None:
        from_unit(0, precision)


def _check_elements(body: bytes, readings_max: int) -> None:
    """Refuses what would take much memory before it can be counted: an array of many millions."""
    bound = 2 * max(readings_max, _ELEMENTS_FREE) + len(body) // _LABEL_BYTES_MIN
    if len(body) > bound and body.count(b",") > bound:
        raise too_many(readings_max)


def _objects_in_lines(body: bytes) -> int:
    """How many lines there are, where each is surely one object.

    ``}`` newline ``{`` occurs between objects only: within one, ``,`` or ``}`` follows a ``}``.
    """
    lines = body.removesuffix(b"\n")
    breaks = lines.count(b"\n")
    if lines.count(b"}\n{") != breaks:
        raise _DoubtError
    return breaks + 1 if lines else 0


def _check_keys_distinct(body: bytes, keys: int) -> None:
    """Over arrays of bytes, which takes a tenth of the time that ``bytes.count`` does."""
    characters = np.frombuffer(body, np.uint8)
    colon, before = characters[1:] == ord(":"), characters[:-1]
    if np.count_nonzero(colon & (before == ord('"'))) != keys or (colon & (before <= ord(" "))).any():
        raise _DoubtError


def _decode_entries(
    body: bytes,
    entries: list[Any],
    precision: str | None,
    readings_max: int,
    *,
    columns: bool = True,
) -> Decoded:
    readings = [entry.reading for entry in entries]
    times = [entry.reading_at for entry in entries]
    keys, key_index, label_keys = _keys_of(entries)
    _check_keys_distinct(body, 2 * len(entries) + len(times) - times.count(UNSET) + label_keys)
    kinds = set(map(type, readings))
    if kinds == {list} and columns:
        counts = list(map(len, readings))
        if not all(counts):
            raise _DoubtError  # A series without readings is none.
        count = sum(counts)
        key_index = np.repeat(key_index, counts)
        flat: Sequence[Any] = readings[0] if len(readings) == 1 else list(chain.from_iterable(readings))
        flat_times: list[Any] = list(_times_of(times, counts))
    elif kinds <= {float}:
        count, flat, flat_times = len(entries), readings, times
        if list in set(map(type, times)):
            raise _DoubtError
    else:
        raise _DoubtError
    if count > readings_max:
        raise too_many(readings_max)
    at_us = _at_us(flat_times, precision)
    return Decoded(keys, key_index, at_us, np.array(flat, np.float64), unit=precision, unit_asked=True)


def _times_of(times: list[Any], counts: list[int]) -> Iterator[Any]:
    """The times of all columns, one after the other."""
    if all(type(column) is list for column in times):
        if list(map(len, times)) != counts:
            raise _DoubtError
        return chain.from_iterable(times)
    if any(column is not None and column is not UNSET for column in times):
        raise _DoubtError
    return iter([None] * sum(counts))


def _keys_of(entries: list[Any]) -> tuple[list[SeriesKey], NDArray[np.uint32], int]:
    """Distinct series keys, each entry's key, and how many keys of JSON the labels are."""
    found: dict[str | tuple[str, bytes], int] = {}
    index = [
        found.setdefault(
            entry.metric if entry.labels is UNSET else (entry.metric, bytes(entry.labels)), len(found)
        )
        for entry in entries
    ]
    keys: dict[SeriesKey, int] = {}
    final, json_keys = [], []
    for raw in found:
        if isinstance(raw, str):
            key = SeriesKey(check_code(raw))
            json_keys.append(0)
        else:
            labels = _LABELS.decode(raw[1])
            key = SeriesKey(check_code(raw[0]), check_labels(labels))
            json_keys.append(1 + len(labels))
        final.append(keys.setdefault(key, len(keys)))
    key_index = np.array(index, np.uint32)
    key_count = int(np.array(json_keys, np.int64)[key_index].sum())
    if len(keys) < len(found):  # The same labels came written in several ways, or empty.
        key_index = np.array(final, np.uint32)[key_index]
    return list(keys), key_index, key_count


def _at_us(times: list[Any], precision: str | None) -> NDArray[np.int64]:
    kinds = set(map(type, times))
    if kinds <= {int}:
        return (
            np.array(times, np.int64)
            if precision is None
            else from_unit(np.array(times, np.int64), precision, asked=True)
        )
    if kinds == {str}:
        return parse_many(times)
    given = np.array([time is not None and time is not UNSET for time in times], np.bool_)
    at_us = np.full(len(times), NO_TIME, np.int64)
    if given.any():
        at_us[given] = _at_us(
            [time for time, is_given in zip(times, given, strict=True) if is_given], precision
        )
    return at_us


def _decode_exactly(body: bytes, precision: str | None, readings_max: int) -> Decoded:
    try:
        document = load_exact(body)
    except MalformedError as exc:
        hint = _hint(body) if exc.code == "json-invalid" else ""
        if hint:
            raise MalformedError(exc.code, f"{exc.message} {hint}") from exc
        raise
    if not isinstance(document, list | dict):
        raise InvalidInputError("shape-invalid", "Send an array of readings, or one reading, as JSON.")
    rows = ExactRows(precision, readings_max)
    for entry in document if isinstance(document, list) else [document]:
        rows.add(entry)
    return rows.decoded()


def _hint(body: bytes) -> str:
    if is_csv(body):
        return CSV_HINT
    return _LINES_HINT if _looks_like_lines(body) else ""


def _looks_like_lines(body: bytes) -> bool:
    """Whether the first of several lines is an object by itself: NDJSON under another name."""
    first, _, rest = body.lstrip().partition(b"\n")
    if not (first.startswith(b"{") and rest.strip()):
        return False
    try:
        load_exact(first)
    except (MalformedError, InvalidInputError, TooLargeError):
        return False
    return True


def _decode_lines_exactly(body: bytes, precision: str | None, readings_max: int) -> Decoded:
    rows = ExactRows(precision, readings_max)
    start, number = len(BOM) if body.startswith(BOM) else 0, 0
    while start < len(body):
        number += 1
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        line = body[start:end].strip(b" \t\r")
        start = end + 1
        if not line:
            continue
        rows.where = f"Line {number}: "
        try:
            entry = load_exact(line, line=number)
        except (MalformedError, InvalidInputError, TooLargeError) as exc:
            rows.reject(exc.code, exc.message.replace("The body", "it", 1))
        else:
            rows.add(entry, columns=False)
    return rows.decoded()
