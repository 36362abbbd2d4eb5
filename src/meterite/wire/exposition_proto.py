"""The delimited protobuf in which programs expose metrics: messages of io.prometheus.client.MetricFamily, each behind
its length as a varint.

https://github.com/prometheus/client_model/blob/v0.6.2/io/prometheus/client/metrics.proto

What this file guarantees: a family becomes the series that the text format would have had (``_bucket`` with ``le``,
``_sum``, ``_count``, ``quantile``; see ``exposition.py``), the bucket ``+Inf`` included where it was left out; any
bytes give columns or an error of ours, in time linear in them. Exemplars and the buckets of native histograms are
skipped and counted, times of creation aren't readings here. A place is a metric's number in the body, from 0.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from meterite.model.columns import NO_TIME
from meterite.model.errors import InvalidInputError
from meterite.model.time import excerpt, from_unit
from meterite.wire.exposition import describe
from meterite.wire.gather import Gathered
from meterite.wire.names import Names
from meterite.wire.protobuf import FIXED64, LENGTH, VARINT, double, fields, malformed, signed, text, varint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meterite.model.columns import Decoded, SeriesKey
    from meterite.wire.names import Known

MEDIA_TYPE: Final = "application/vnd.google.protobuf"

_NAME, _HELP, _METRIC, _UNIT = (n << 3 | LENGTH for n in (1, 2, 4, 5))
_LABEL: Final = 1 << 3 | LENGTH
_GAUGE, _COUNTER, _SUMMARY, _UNTYPED, _HISTOGRAM = (n << 3 | LENGTH for n in (2, 3, 4, 5, 7))
_TIMESTAMP_MS: Final = 6 << 3 | VARINT
_PAIR_NAME, _PAIR_VALUE = (n << 3 | LENGTH for n in (1, 2))
_VALUE: Final = 1 << 3 | FIXED64
_EXEMPLAR: Final = 2 << 3 | LENGTH
_COUNT, _SUM, _PART = 1 << 3 | VARINT, 2 << 3 | FIXED64, 3 << 3 | LENGTH
_COUNT_FLOAT: Final = 4 << 3 | FIXED64
_BOUND, _AMOUNT = 1 << 3 | FIXED64, 2 << 3 | FIXED64
_CUMULATIVE, _UPPER, _CUMULATIVE_FLOAT = 1 << 3 | VARINT, 2 << 3 | FIXED64, 4 << 3 | FIXED64
_BUCKET_EXEMPLAR: Final = 3 << 3 | LENGTH
_NATIVE: Final = frozenset(
    n << 3 | kind for n in (9, 10, 11, 12, 13, 14) for kind in (VARINT, LENGTH, FIXED64)
)
_HISTOGRAM_EXEMPLAR: Final = 16 << 3 | LENGTH
NUMBERS_KEPT: Final = 4096
"""As texts: most histograms have the same bounds."""
_EXPONENT_FIRST: Final = 6
_EXPONENT_LAST: Final = -4


def is_protobuf(content_type: str) -> bool:
    """No content tells it: a length may be any byte."""
    return content_type == MEDIA_TYPE


def decode_families(
    body: bytes,
    *,
    readings_max: int,
    labels: Mapping[str, str] | None = None,
    at_us: int = NO_TIME,
    names: Names | None = None,
) -> Decoded:
    """``labels``, ``at_us`` and ``names`` as in ``decode_exposition``."""
    reader = _Reader(readings_max, (names or Names()).known(), labels=labels or {}, at_us=at_us)
    at = 0
    while at < len(body):
        length, start = varint(body, at, len(body))
        if length > len(body) - start:
            raise malformed(at, "a message that is longer than the body")
        at = start + length
        reader.family(body, start, at)
    return reader.decoded()


class _Labels:
    """Of a metric, as they were written; they are read where a series isn't known by that."""

    def __init__(self, data: bytes, places: Sequence[tuple[int, int]]) -> None:
        self.written = tuple([data[start:end] for start, end in places])
        self._data = data
        self._places = places
        self._read: dict[str, str] | None = None

    def read(self) -> dict[str, str]:
        """InvalidInputError."""
        if self._read is None:
            labels: dict[str, str] = {}
            for start, end in self._places:
                name, value = self._pair(start, end)
                if name in labels or name == "__name__":
                    raise InvalidInputError(
                        "label-invalid", f"The label {excerpt(name)} can't stand here, or not twice."
                    )
                labels[name] = value
            self._read = labels
        return self._read

    def _pair(self, start: int, end: int) -> tuple[str, str]:
        name = value = ""
        for tag, first, last in fields(self._data, start, end):
            if tag == _PAIR_NAME:
                name = text(self._data, first, last)
            elif tag == _PAIR_VALUE:
                value = text(self._data, first, last)
        return name, value


class _Reader:
    """What the metric at hand brings is pending until all of it was read: all of a metric is taken, or nothing.

    Its series are known by its family's name, its labels as they were written, and suffix and bound.
    """

    def __init__(self, readings_max: int, known: Known, *, labels: Mapping[str, str], at_us: int) -> None:
        self._gathered = Gathered(readings_max, unit="ms")
        self._above = labels
        self._default_us = at_us
        self._row = -1
        self._known = known
        self._context = ("families", *labels.items())
        self._kept = known.within(self._context)
        self._name = ""
        self._labels = _Labels(b"", [])
        self._pending: list[tuple[SeriesKey, float]] = []
        self._skipped = 0

    def decoded(self) -> Decoded:
        return self._gathered.decoded()

    def family(self, data: bytes, start: int, end: int) -> None:
        """Its name may stand behind its metrics."""
        name = said = unit = ""
        metrics = []
        for tag, first, last in fields(data, start, end):
            if tag == _METRIC:
                metrics.append((first, last))
            elif tag == _NAME:
                name = text(data, first, last)
            elif tag == _HELP:
                said = text(data, first, last)
            elif tag == _UNIT:
                unit = text(data, first, last)
        codes = set()
        for bounds in metrics:
            self._row += 1
            self._pending.clear()
            self._skipped = 0
            try:
                self._name = name
                at_us = self._metric(data, *bounds)
            except InvalidInputError as exc:
                self._gathered.reject(self._row, exc.code, exc.message)
                continue
            for key, value in self._pending:
                self._gathered.append(self._gathered.place_one(key), at_us, value, self._row)
                codes.add(key.code)
            self._gathered.skip(self._skipped)
        for code in codes if said or unit else ():
            in_unit = code in {name, f"{name}_sum"}
            describe(self._gathered, code, unit=unit if in_unit else "", description=said)

    def _metric(self, data: bytes, start: int, end: int) -> int:
        """Answers the time of its readings."""
        at_us = self._default_us
        kinds, labels = [], []
        for tag, first, last in fields(data, start, end):
            if tag == _LABEL:
                labels.append((first, last))
            elif tag == _TIMESTAMP_MS:
                at_us = from_unit(signed(first), "ms")
            elif tag in _KINDS:
                kinds.append((tag, first, last))
        self._labels = _Labels(data, labels)
        if not kinds:
            self._skipped += 1
            self._labels.read()
        for tag, first, last in kinds:
            _KINDS[tag](self, data, first, last)
        return at_us

    def _add(self, suffix: str, value: float, bound: str = "") -> None:
        written = (self._name, self._labels.written, suffix, bound)
        key = self._kept.get(written)
        if key is None:
            more = {"le" if suffix else "quantile": bound} if bound else {}
            key = self._gathered.key(self._name + suffix, {**self._labels.read(), **more, **self._above})
            key = self._known.keep(self._context, written, key)
        self._pending.append((key, value))

    def _number(self, data: bytes, start: int, end: int) -> None:
        """Of a gauge, a counter, or what has no type."""
        value = 0.0
        for tag, first, _ in fields(data, start, end):
            if tag == _VALUE:
                value = double(data, first)
            elif tag == _EXEMPLAR:
                self._skipped += 1
        self._add("", value)

    def _summary(self, data: bytes, start: int, end: int) -> None:
        count = total = 0.0
        for tag, first, last in fields(data, start, end):
            if tag == _COUNT:
                count = float(first)
            elif tag == _SUM:
                total = double(data, first)
            elif tag == _PART:
                bound = amount = 0.0
                for part, at, _ in fields(data, first, last):
                    if part == _BOUND:
                        bound = double(data, at)
                    elif part == _AMOUNT:
                        amount = double(data, at)
                self._add("", amount, go_number(bound))
        self._add("_sum", total)
        self._add("_count", count)

    def _histogram(self, data: bytes, start: int, end: int) -> None:
        count = total = 0.0
        bounds = set()
        native = False
        for tag, first, last in fields(data, start, end):
            if tag == _COUNT:
                count = count or float(first)
            elif tag == _COUNT_FLOAT:
                count = double(data, first) or count
            elif tag == _SUM:
                total = double(data, first)
            elif tag == _PART:
                bounds.add(self._bucket(data, first, last))
            elif tag == _HISTOGRAM_EXEMPLAR:
                self._skipped += 1
            elif tag in _NATIVE:
                native = True
        self._skipped += native
        if math.inf not in bounds:
            self._add("_bucket", count, "+Inf")
        self._add("_sum", total)
        self._add("_count", count)

    def _bucket(self, data: bytes, start: int, end: int) -> float:
        """Answers its upper bound."""
        count = bound = 0.0
        for tag, first, _ in fields(data, start, end):
            if tag == _CUMULATIVE:
                count = count or float(first)
            elif tag == _CUMULATIVE_FLOAT:
                count = double(data, first) or count
            elif tag == _UPPER:
                bound = double(data, first)
            elif tag == _BUCKET_EXEMPLAR:
                self._skipped += 1
        self._add("_bucket", count, go_number(bound))
        return bound


_KINDS: Final = {
    _GAUGE: _Reader._number,  # noqa: SLF001 -- a table of the class above
    _COUNTER: _Reader._number,  # noqa: SLF001 -- as above
    _UNTYPED: _Reader._number,  # noqa: SLF001 -- as above
    _SUMMARY: _Reader._summary,  # noqa: SLF001 -- as above
    _HISTOGRAM: _Reader._histogram,  # noqa: SLF001 -- as above
}


def go_number(value: float) -> str:
    """As Go writes numbers, ``le`` and ``quantile`` among them, into the text format: 1e+06 from a million on."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return _go_number(value, math.copysign(1, value))


@lru_cache(NUMBERS_KEPT)
def _go_number(value: float, _sign: float) -> str:
    """Kept by its sign, too, which equal zeros may differ in."""
    sign, numbers, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int), "it is finite"
    digits, minus = "".join(map(str, numbers)), "-" if sign else ""
    scale = len(digits) + exponent - 1
    if digits == "0":
        return minus + "0"
    if not _EXPONENT_LAST <= scale < _EXPONENT_FIRST:
        mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
        return f"{minus}{mantissa}e{'-' if scale < 0 else '+'}{abs(scale):02}"
    if scale < 0:
        return f"{minus}0.{'0' * (-scale - 1)}{digits}"
    whole, fraction = digits[: scale + 1].ljust(scale + 1, "0"), digits[scale + 1 :]
    return minus + whole + (f".{fraction}" if fraction else "")
