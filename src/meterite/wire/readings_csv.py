"""``POST /readings`` as CSV with a header line (RFC 4180).

    metric,reading,reading_at,labels.host
    M1,42.5,2026-01-31T12:00:00Z,a
    M1,43,,"b, the second"

    metric        the metric's code; the column may be missing where the request names one (``?metric=``)
    reading       a finite number; empty: there is no reading in this row, which is skipped
    reading_at    RFC 3339 or, with ``?precision``, an integer; empty or missing: now
    labels        a JSON object of strings, as answers in CSV have it; empty: none
    labels.NAME   the label NAME; empty: none. Beside ``labels``, where both have a name, they have to agree
    recorded_at   not looked at: an answer in CSV can be sent back as it is

What this file guarantees: the columns may stand in any order, and any other is refused, so that a misspelt one isn't a
label; a row that can't be taken is rejected by the line on which it begins, from 1, the header's; what isn't CSV at all
is a MalformedError. Lines end with LF or CR LF, empty ones don't count, a byte order mark is passed over. A row has as
many fields as the header. Infinite and other numbers that JSON lacks are rejected, here as there.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from meterite.model.check import LABELS_MAX
from meterite.model.errors import InvalidInputError, MalformedError, MeteriteError
from meterite.model.near import HINT, near
from meterite.model.time import excerpt, from_unit
from meterite.wire.gather import Gathered, too_many
from meterite.wire.json_exact import load_exact
from meterite.wire.readings_exact import exact_reading, text_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meterite.model.columns import Decoded, SeriesKey

COLUMNS: Final = ("metric", "reading", "reading_at", "labels", "recorded_at")
LABEL_COLUMN: Final = "labels."
_LINES_FREE: Final = 1000
_BOM: Final = b"\xef\xbb\xbf"


def decode_csv(
    body: bytes, *, precision: str | None, readings_max: int, metric: str | None = None
) -> Decoded:
    """The readings of a table; ``metric`` is that of rows without a column for it."""
    if precision is not None:
        from_unit(0, precision)
    if body.count(b"\n") > 2 * readings_max + _LINES_FREE:  # empty lines cost time, too
        raise too_many(readings_max)
    rows = _rows(_text(body))
    _, names = next(rows, (1, []))
    header = _header(names, metric)
    gathered = Gathered(readings_max, counted="line", unit=precision, unit_asked=True)
    table = _Table(header, gathered, precision)
    for line, fields in rows:
        try:
            table.add(line, fields)
        except InvalidInputError as exc:
            gathered.reject(line, exc.code, exc.message)
    return gathered.decoded()


def _text(body: bytes) -> str:
    try:
        return body.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as exc:
        line = body.count(b"\n", 0, exc.start) + 1
        raise MalformedError("not-utf-8", f"The body must be UTF-8; line {line} is not.") from exc


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that isn't empty, and the line on which it begins."""
    reader = csv.reader(_lines(text), strict=True)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as exc:
        raise MalformedError("csv-invalid", f"The body is not CSV: line {line}: {exc}.") from exc


def _lines(text: str) -> Iterator[str]:
    """Divided at LF alone, one by one."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


@dataclass(frozen=True, slots=True)
class _Header:
    """In which field what stands; ``named`` are the labels with columns of their own."""

    width: int
    code: str | None
    fields: dict[str, int]
    named: list[tuple[str, int]]


def _header(names: list[str], metric: str | None) -> _Header:
    names = [name.strip() for name in names]
    if len(names) > len(COLUMNS) + LABELS_MAX:
        raise InvalidInputError("labels-too-many", f"A reading has at most {LABELS_MAX} labels.")
    found: dict[str, int] = {}
    for place, name in enumerate(names):
        if name not in COLUMNS and not name.startswith(LABEL_COLUMN):
            raise _unknown(name, names)
        if found.setdefault(name, place) != place:
            raise InvalidInputError(
                "duplicate-key", f"The column {excerpt(name)} stands twice in the header."
            )
    if "reading" not in found:
        raise _missing("reading")
    if ("metric" in found) == (metric is not None):
        if metric is None:
            raise _missing("metric")
        raise InvalidInputError(
            "metric-twice", "Name the metric in a column or as ?metric=, not both.", place=("query", "metric")
        )
    named = [(name.removeprefix(LABEL_COLUMN), at) for name, at in found.items() if name not in COLUMNS]
    return _Header(len(names), metric, found, named)


def _unknown(name: str, names: list[str]) -> InvalidInputError:
    if len(names) == 1 and any(sign in name for sign in ";\t"):
        hint = "divide fields by commas."
    else:
        meant = near(name, COLUMNS, HINT)
        hint = f"did you mean {meant}?" if meant else f"a column of labels is {LABEL_COLUMN}NAME."
    return InvalidInputError("unknown-field", f"There is no column {excerpt(name)}: {hint}")


def _missing(name: str) -> InvalidInputError:
    hint = "; or say ?metric=" if name == "metric" else ""
    return InvalidInputError(
        "missing-field", f"The header has no column {name}; it opens the body, like metric,reading{hint}."
    )


class _Table:
    """Rows under one header; each way to write a series is looked at once."""

    def __init__(self, header: _Header, gathered: Gathered, precision: str | None) -> None:
        self._header = header
        self._gathered = gathered
        self._precision = precision
        self._reading = header.fields["reading"]
        self._at = header.fields.get("reading_at")
        places = [header.fields[name] for name in ("metric", "labels") if name in header.fields]
        places += [place for _, place in header.named]
        self._written: Callable[[list[str]], Any] = itemgetter(*places) if places else lambda _: ""
        self._keys: dict[Any, SeriesKey] = {}

    def add(self, line: int, fields: list[str]) -> None:
        """InvalidInputError says why a row is rejected."""
        if len(fields) != self._header.width:
            raise InvalidInputError(
                "row-invalid", f"The row has {len(fields)} fields and the header {self._header.width}."
            )
        reading = fields[self._reading]
        if not reading:
            self._gathered.skip()
            return
        written = self._written(fields)
        key = self._keys.get(written)
        if key is None:
            key = self._keys[written] = self._key(fields)
        at_us = text_time("" if self._at is None else fields[self._at], self._precision)
        self._gathered.add(key, at_us, exact_reading(reading), line)

    def _key(self, fields: list[str]) -> SeriesKey:
        header = self._header
        labels: dict[str, object] = {}
        place = header.fields.get("labels")
        if place is not None and fields[place]:
            labels |= _labels_json(fields[place])
        for name, at in header.named:
            if fields[at] and labels.setdefault(name, fields[at]) != fields[at]:
                raise InvalidInputError("label-invalid", f"The label {excerpt(name)} has two values.")
        return self._gathered.key(
            fields[header.fields["metric"]] if header.code is None else header.code, labels
        )


def _labels_json(text: str) -> dict[str, object]:
    try:
        found = load_exact(text.encode())
    except MeteriteError as exc:
        raise InvalidInputError("label-invalid", f"{excerpt(text)} are no labels: {exc.message}") from exc
    if not isinstance(found, dict):
        raise InvalidInputError("label-invalid", f'{excerpt(text)} are no labels: write {{"name": "value"}}.')
    return found
