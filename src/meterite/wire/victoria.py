"""What VictoriaMetrics imports: series a line as JSON, and CSV whose columns the address describes.

https://docs.victoriametrics.com/victoriametrics/single-server-victoriametrics/, under "How to import data in JSON line
format" and "How to import CSV data".

What this file guarantees: a line that can't be read costs itself alone and is rejected with its number; any bytes give
columns or an error of ours, in time linear in them. A byte order mark is passed over. ``null`` is an unknown value, and
skipped; infinities, which an export writes as texts, are stored. A key that stands twice is an error, as in all JSON
here (``readings_json`` says how that is noticed). Labels given from without stand above a line's own, an empty one
takes one away.
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from meterite.model.columns import NO_TIME
from meterite.model.errors import InvalidInputError, MalformedError, TooLargeError
from meterite.model.time import excerpt, from_unit, parse_rfc3339
from meterite.wire.exposition import seconds_us
from meterite.wire.gather import Gathered
from meterite.wire.json_exact import BOM, load_exact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meterite.model.columns import Decoded, SeriesKey

_NAME: Final = "__name__"
_TEXTS: Final = {"Infinity": math.inf, "+Inf": math.inf, "-Infinity": -math.inf, "-Inf": -math.inf}
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,19}")
_COLUMN: Final = re.compile(r"([0-9]{1,4}):(metric|label|time):(.+)", re.DOTALL)
_COLUMNS_MAX: Final = 1000
_TIMES: Final = {"unix_s": "s", "unix_ms": "ms", "unix_us": "us", "unix_ns": "ns", "rfc3339": None}


class _Line(msgspec.Struct):
    metric: dict[str, str]
    values: list[float | str | None]
    timestamps: list[int]


_LINES: Final = msgspec.json.Decoder(_Line)
_KEYS: Final = len(_Line.__struct_fields__)
_KEYS_APART: Final = (b" :", b"\t:", b"\r:")


def decode_import(body: bytes, *, readings_max: int, labels: Mapping[str, str] | None = None) -> Decoded:
    """A series a line: ``{"metric": {"__name__": …}, "values": […], "timestamps": [ms…]}``."""
    gathered = Gathered(readings_max, counted="line", unit="ms")
    for number, line in _lines(body):
        try:
            _import(gathered, number, _decode_line(line), labels or {})
        except InvalidInputError as exc:
            gathered.reject(number, exc.code, exc.message)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as exc:
            gathered.reject(number, "json-invalid", f"The line is no series as JSON: {excerpt(str(exc))}.")
    return gathered.decoded()


def _decode_line(text: bytes) -> _Line:
    """MsgspecError, ValueError, RecursionError, or InvalidInputError where a key stands twice."""
    line = _LINES.decode(text)
    if text.count(b'":') != _KEYS + len(line.metric) or any(apart in text for apart in _KEYS_APART):
        try:
            load_exact(text)
        except (MalformedError, TooLargeError) as exc:
            raise InvalidInputError(exc.code, exc.message.replace("The body", "The line", 1)) from exc
    return line


def _import(gathered: Gathered, number: int, line: _Line, labels: Mapping[str, str]) -> None:
    if len(line.values) != len(line.timestamps):
        raise InvalidInputError("lengths-differ", "values and timestamps must have one length.")
    code = line.metric.pop(_NAME, "")
    key = gathered.key(code, {**line.metric, **labels})
    times = from_unit(np.array(line.timestamps, np.int64), "ms").tolist()
    known = [_value(value) for value in line.values]
    kept = [n for n, value in enumerate(known) if value is not None]
    gathered.skip(len(known) - len(kept))
    if kept:
        values = [value for value in known if value is not None]
        gathered.add_many(
            [gathered.place(key)] * len(kept), [times[n] for n in kept], values, [number] * len(kept)
        )


def _value(value: float | str | None) -> float | None:
    if not isinstance(value, str):
        return value
    if value not in _TEXTS:
        raise InvalidInputError("reading-invalid", f"{excerpt(value)} is no number.")
    return _TEXTS[value]


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Those that aren't blank, with their numbers, one after the other."""
    start, number = len(BOM) if body.startswith(BOM) else 0, 0
    while start < len(body):
        number += 1
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        line = body[start:end].strip(b" \t\r")
        start = end + 1
        if line:
            yield number, line


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """What stands in which column, from 0. ``time`` is column and unit (None: RFC 3339), where there is one."""

    metrics: Sequence[tuple[int, str]]
    labels: Sequence[tuple[int, str]]
    time: tuple[int, str | None] | None

    @property
    def columns(self) -> int:
        """As many as a line must have."""
        time = [] if self.time is None else [self.time[0]]
        return 1 + max(column for column in [*(n for n, _ in (*self.metrics, *self.labels)), *time])


def parse_csv_format(text: str) -> CsvFormat:
    """``2:metric:ask,1:label:ticker,3:time:unix_s``. InvalidInputError."""
    metrics: list[tuple[int, str]] = []
    labels: list[tuple[int, str]] = []
    time: tuple[int, str | None] | None = None
    if not text:
        raise InvalidInputError(
            "csv-format-invalid",
            "The parameter format is missing: say which column is what, as in format=2:metric:ask,1:label:ticker.",
            place=("query", "format"),
        )
    for part in text.split(",", _COLUMNS_MAX):
        match = _COLUMN.fullmatch(part)
        if match is None or not int(match[1]):
            raise _format(
                f"{excerpt(part)} is no COLUMN:metric:NAME, COLUMN:label:NAME or COLUMN:time:FORMAT"
            )
        column, kind, name = int(match[1]) - 1, match[2], match[3]
        if kind == "metric":
            metrics.append((column, name))
        elif kind == "label":
            labels.append((column, name))
        elif name not in _TIMES or time is not None:
            raise _format(f"{excerpt(name)} can't be the time, which is one of {', '.join(_TIMES)}, once")
        else:
            time = column, _TIMES[name]
    if not metrics:
        raise _format("it names no metric's column")
    return CsvFormat(metrics, labels, time)


def _format(what: str) -> InvalidInputError:
    return InvalidInputError(
        "csv-format-invalid", f"The parameter format: {what}.", place=("query", "format")
    )


def decode_csv_columns(
    body: bytes,
    *,
    readings_max: int,
    columns: CsvFormat,
    delimiter: str = ",",
    labels: Mapping[str, str] | None = None,
) -> Decoded:
    """A line without header, by its columns; an empty value is unknown. Without a time it is the server's."""
    unit = None if columns.time is None else columns.time[1]
    reader = _CsvReader(Gathered(readings_max, counted="line", unit=unit), columns, delimiter, labels or {})
    for number, line in _lines(body):
        try:
            reader.read(number, line)
        except InvalidInputError as exc:
            reader.gathered.reject(number, exc.code, exc.message)
    return reader.gathered.decoded()


class _CsvReader:
    """Series are known by the texts of their labels. A line is taken whole, or not at all."""

    def __init__(
        self, gathered: Gathered, columns: CsvFormat, delimiter: str, labels: Mapping[str, str]
    ) -> None:
        self.gathered = gathered
        self._columns = columns
        self._least = columns.columns
        self._delimiter = delimiter
        self._above = labels
        self._known: dict[tuple[str, ...], list[SeriesKey]] = {}

    def read(self, number: int, line: bytes) -> None:
        fields = self._fields(line)
        if len(fields) < self._least:
            raise _line(f"it has {len(fields)} columns, not {self._least}")
        at_us = self._time(fields)
        texts = [(n, fields[column].strip()) for n, (column, _) in enumerate(self._columns.metrics)]
        values = [(n, _number(text)) for n, text in texts if text]
        keys = self._keys(tuple(fields[column] for column, _ in self._columns.labels))
        for n, value in values:
            self.gathered.add(keys[n], at_us, value, number)
        self.gathered.skip(len(texts) - len(values))

    def _fields(self, line: bytes) -> list[str]:
        try:
            text = line.decode("utf-8")
            if '"' not in text:
                return text.split(self._delimiter)
            return next(csv.reader([text], strict=True, delimiter=self._delimiter))
        except UnicodeDecodeError as exc:
            raise _line("it is not UTF-8") from exc
        except csv.Error as exc:
            raise _line(str(exc)) from exc

    def _keys(self, texts: tuple[str, ...]) -> list[SeriesKey]:
        keys = self._known.get(texts)
        if keys is None:
            names = [name for _, name in self._columns.labels]
            labels = {**dict(zip(names, texts, strict=True)), **self._above}
            keys = self._known[texts] = [self.gathered.key(code, labels) for _, code in self._columns.metrics]
        return keys

    def _time(self, fields: list[str]) -> int:
        if self._columns.time is None:
            return NO_TIME
        column, unit = self._columns.time
        text = fields[column].strip()
        if unit is None:
            return parse_rfc3339(text)
        if unit == "s":
            return seconds_us(text)
        if _WHOLE.fullmatch(text) is None:
            raise InvalidInputError("time-invalid", f"{excerpt(text)} is not a time in whole {unit}.")
        at_us: int = from_unit(int(text), unit)
        return at_us


def _line(what: str) -> InvalidInputError:
    return InvalidInputError("csv-invalid", f"The line can't be read: {excerpt(what)}.")


def _number(text: str) -> float:
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInputError("reading-invalid", f"{excerpt(text)} is no finite number.")
    return value
