"""Readings on their way out: JSON, NDJSON and CSV (RFC 4180), slice by slice.

What this file guarantees: ``head()``, any number of ``rows()`` and ``tail()`` joined are one well-formed
document, and columns are joined whole, not row by row in Python. Numbers and times are those of
``model/number`` and ``model/time``: NaN is ``null`` (in CSV nothing), infinities are ``+Inf`` and ``-Inf``. So is a
``recorded_at`` that isn't known any more (``NO_TIME``).
Labels are an object in JSON, missing where there are none, and the same JSON as one field in CSV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from meterite.model.columns import NO_TIME
from meterite.model.number import numbers_text
from meterite.model.time import format_many

if TYPE_CHECKING:
    from numpy.typing import NDArray

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
_RUNS_SHARE: Final = 4


class RowEncoder(Protocol):
    """One document. ``labels_json``: each row's labels as canonical JSON (``""`` or ``{}``: none).

    None instead of the list: no row has labels.
    """

    media_type: str

    def head(self) -> bytes: ...

    def rows(
        self,
        values: NDArray[np.float64],
        at_us: NDArray[np.int64],
        recorded_at_us: NDArray[np.int64],
        labels_json: list[str] | None,
    ) -> bytes: ...

    def tail(self) -> bytes: ...


def _times_text(us: NDArray[np.int64]) -> list[str]:
    """As :func:`format_many`; runs of one time, as commits leave them, are formatted once. Of ``NO_TIME`` nothing."""
    unknown = us == NO_TIME
    if unknown.any():
        texts = _times_text(np.where(unknown, 0, us))
        for row in np.flatnonzero(unknown).tolist():
            texts[row] = ""
        return texts
    starts = np.flatnonzero(np.diff(us, prepend=us[0] - 1))
    if len(starts) * _RUNS_SHARE > len(us):
        return format_many(us)
    texts = format_many(us[starts])
    lengths = np.diff(starts, append=len(us)).tolist()
    return [text for text, length in zip(texts, lengths, strict=True) for text in [text] * length]


def _lines(*columns: list[str] | str) -> str:
    """Row by row what stands in the columns; a lone text stands in every row."""
    count = len(next(column for column in columns if isinstance(column, list)))
    parts: list[Any] = [None] * (count * len(columns))
    for place, column in enumerate(columns):
        parts[place :: len(columns)] = column if isinstance(column, list) else [column] * count
    return "".join(parts)


class _JsonObjects:
    """Rows as JSON objects, each with ``between`` before it."""

    def __init__(self, between: str) -> None:
        self._between = between

    def objects(
        self,
        values: NDArray[np.float64],
        at_us: NDArray[np.int64],
        recorded_at_us: NDArray[np.int64],
        labels_json: list[str] | None,
    ) -> bytes:
        numbers, times, recorded = numbers_text(values), format_many(at_us), _times_text(recorded_at_us)
        opening, at, by, end = self._between + '{"reading":', ',"reading_at":"', '","recorded_at":"', '"'
        if (recorded_at_us == NO_TIME).any():
            by, end = '","recorded_at":', ""
            recorded = [f'"{text}"' if text else "null" for text in recorded]
        if labels_json is None:
            return _lines(opening, numbers, at, times, by, recorded, end + "}").encode("ascii")
        closings = {
            text: f'{end},"labels":{text}}}' if text not in {"", "{}"} else end + "}"
            for text in set(labels_json)
        }
        ends = [closings[text] for text in labels_json]
        return _lines(opening, numbers, at, times, by, recorded, ends).encode("utf-8")


class JsonRows:
    """One array."""

    media_type = JSON

    def __init__(self) -> None:
        self._objects = _JsonObjects(",\n")
        self._empty = True

    def head(self) -> bytes:
        return b"["

    def rows(
        self,
        values: NDArray[np.float64],
        at_us: NDArray[np.int64],
        recorded_at_us: NDArray[np.int64],
        labels_json: list[str] | None,
    ) -> bytes:
        if not len(values):
            return b""
        text = self._objects.objects(values, at_us, recorded_at_us, labels_json)
        first, self._empty = self._empty, False
        return text[1:] if first else text

    def tail(self) -> bytes:
        return b"]\n" if self._empty else b"\n]\n"


class NdjsonRows:
    """An object a line, the last with its line feed, too."""

    media_type = NDJSON

    def __init__(self) -> None:
        self._objects = _JsonObjects("\n")

    def head(self) -> bytes:
        return b""

    def rows(
        self,
        values: NDArray[np.float64],
        at_us: NDArray[np.int64],
        recorded_at_us: NDArray[np.int64],
        labels_json: list[str] | None,
    ) -> bytes:
        if not len(values):
            return b""
        return self._objects.objects(values, at_us, recorded_at_us, labels_json)[1:] + b"\n"

    def tail(self) -> bytes:
        return b""


class CsvRows:
    """A header and a line a row, ended by CR LF; only labels need quotes."""

    media_type = CSV

    def head(self) -> bytes:
        return b"reading,reading_at,recorded_at,labels\r\n"

    def rows(
        self,
        values: NDArray[np.float64],
        at_us: NDArray[np.int64],
        recorded_at_us: NDArray[np.int64],
        labels_json: list[str] | None,
    ) -> bytes:
        if not len(values):
            return b""
        numbers = numbers_text(values)
        for row in np.flatnonzero(~np.isfinite(values)).tolist():
            numbers[row] = numbers[row].strip('"').replace("null", "")
        times, recorded = format_many(at_us), _times_text(recorded_at_us)
        if labels_json is None:
            return _lines(numbers, ",", times, ",", recorded, ",\r\n").encode("ascii")
        endings = {text: f",{_quoted(text)}\r\n" for text in set(labels_json)}
        ends = [endings[text] for text in labels_json]
        return _lines(numbers, ",", times, ",", recorded, ends).encode("utf-8")

    def tail(self) -> bytes:
        return b""


def _quoted(labels: str) -> str:
    return "" if labels in {"", "{}"} else '"' + labels.replace('"', '""') + '"'


ENCODERS: Final[dict[str, type[JsonRows | NdjsonRows | CsvRows]]] = {
    JSON: JsonRows,
    NDJSON: NdjsonRows,
    CSV: CsvRows,
}
"""Each request makes its own encoder; where the client accepts all alike, the first is taken."""
