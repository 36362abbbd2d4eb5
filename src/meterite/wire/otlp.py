"""OTLP's metrics as protobuf: ``opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest``.

https://opentelemetry.io/docs/specs/otlp/ and the messages of
https://github.com/open-telemetry/opentelemetry-proto/tree/v1.9.0/opentelemetry/proto

What this file guarantees: any bytes give columns or an error of ours, in time linear in them; what points become is
said in ``otlp_points.py``. Exemplars are skipped and counted; fields that aren't known are passed over, known numbers
with another wire type included. Fields may come in any order; of a field that stands twice the last counts.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meterite.model.check import LABELS_MAX
from meterite.model.errors import InvalidInputError
from meterite.wire.gather import too_many
from meterite.wire.names import Names
from meterite.wire.otlp_points import Context, Pair, Pairs, Points, pair_of, scope_pairs, too_many_labels
from meterite.wire.protobuf import (
    FIXED64,
    LENGTH,
    VARINT,
    deeper,
    double,
    fields,
    fixed64,
    packed_doubles,
    packed_fixed64,
    packed_varints,
    signed,
    text,
    zigzag,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from meterite.model.columns import Decoded, Labels

_MORE: Final = 0x80
_SIGN: Final = 1 << 63
_VALUES: Final = 1 << 64
_ATTRIBUTES_MAX: Final = 4 * LABELS_MAX
"""Beyond it a place isn't looked into: most attributes would have to be empty for it to be taken."""

_RESOURCE_METRICS: Final = 1 << 3 | LENGTH
_RESOURCE, _SCOPE_METRICS = (n << 3 | LENGTH for n in (1, 2))
_RESOURCE_ATTRIBUTE: Final = 1 << 3 | LENGTH
_SCOPE, _METRIC = (n << 3 | LENGTH for n in (1, 2))
_SCOPE_NAME, _SCOPE_VERSION, _SCOPE_ATTRIBUTE = (n << 3 | LENGTH for n in (1, 2, 3))
_NAME, _DESCRIPTION, _UNIT = (n << 3 | LENGTH for n in (1, 2, 3))
_GAUGE, _SUM, _HISTOGRAM, _EXPONENTIAL, _SUMMARY = (n << 3 | LENGTH for n in (5, 7, 9, 10, 11))
_POINT: Final = 1 << 3 | LENGTH
_KEY, _VALUE = (n << 3 | LENGTH for n in (1, 2))
_STRING, _BOOL, _INT = 1 << 3 | LENGTH, 2 << 3 | VARINT, 3 << 3 | VARINT
_DOUBLE, _ARRAY, _MAP, _BYTES = 4 << 3 | FIXED64, *(n << 3 | LENGTH for n in (5, 6, 7))
_ITEM: Final = 1 << 3 | LENGTH

# Of data points
_TIME, _COUNT, _TOTAL = (n << 3 | FIXED64 for n in (3, 4, 5))
_AS_DOUBLE, _AS_INT = (n << 3 | FIXED64 for n in (4, 6))
_NUMBER_ATTRIBUTE, _NUMBER_EXEMPLAR, _NUMBER_FLAGS = 7 << 3 | LENGTH, 5 << 3 | LENGTH, 8 << 3 | VARINT
_COUNTS, _BOUNDS, _HISTOGRAM_EXEMPLAR, _HISTOGRAM_ATTRIBUTE = (n << 3 | LENGTH for n in (6, 7, 8, 9))
_COUNT_LONE, _BOUND_LONE = (n << 3 | FIXED64 for n in (6, 7))
_LATER_FLAGS: Final = 10 << 3 | VARINT
_HISTOGRAM_MIN, _HISTOGRAM_MAX = (n << 3 | FIXED64 for n in (11, 12))
_EXPONENTIAL_ATTRIBUTE, _POSITIVE, _NEGATIVE, _EXPONENTIAL_EXEMPLAR = (n << 3 | LENGTH for n in (1, 8, 9, 11))
_SCALE, _ZERO_COUNT = 6 << 3 | VARINT, 7 << 3 | FIXED64
_EXPONENTIAL_MIN, _EXPONENTIAL_MAX, _ZERO_THRESHOLD = (n << 3 | FIXED64 for n in (12, 13, 14))
_OFFSET, _BUCKETS, _BUCKET_LONE = 1 << 3 | VARINT, 2 << 3 | LENGTH, 2 << 3 | VARINT
_QUANTILE: Final = 6 << 3 | LENGTH
_QUANTILE_OF, _QUANTILE_VALUE = (n << 3 | FIXED64 for n in (1, 2))
_EXEMPLARS: Final = frozenset({_HISTOGRAM_EXEMPLAR, _EXPONENTIAL_EXEMPLAR})

_Bounds = tuple[int, int]


def decode_otlp(body: bytes, *, readings_max: int, names: Names | None = None) -> Decoded:
    """The readings of an export. ``names`` are what earlier requests left."""
    reader = _Reader(body, Points(readings_max, (names or Names()).known()), readings_max)
    for tag, start, end in fields(body):
        if tag == _RESOURCE_METRICS:
            reader.resource(start, end)
    return reader.points.decoded()


class _Reader:
    """An attribute, and all attributes of a point, are read once for each way they are written."""

    def __init__(self, data: bytes, points: Points, readings_max: int) -> None:
        self._data = data
        self._readings_max = readings_max
        self.points = points
        self._pairs: dict[bytes, Pair | None] = {}
        self._context = Context([], [])

    def resource(self, start: int, end: int) -> None:
        """ResourceMetrics: what its points share comes before or behind them."""
        attributes: list[_Bounds] = []
        scopes = []
        for tag, first, last in fields(self._data, start, end):
            if tag == _SCOPE_METRICS:
                scopes.append((first, last))
            elif tag == _RESOURCE:
                for inner, at, stop in fields(self._data, first, last):
                    if inner == _RESOURCE_ATTRIBUTE:
                        attributes.append((at, stop))
        pairs: Pairs = []
        error = None
        try:
            pairs = self._read(attributes)
        except InvalidInputError as exc:
            error = exc
        written = self._written(attributes)
        for bounds in scopes:
            self._scope(written, pairs, error, *bounds)

    def _scope(
        self, written: Hashable, resource: Pairs, error: InvalidInputError | None, start: int, end: int
    ) -> None:
        """``written`` is what the resource's attributes are written as."""
        data = self._data
        name = version = ""
        attributes: list[_Bounds] = []
        metrics = []
        for tag, first, last in fields(data, start, end):
            if tag == _METRIC:
                metrics.append((first, last))
            elif tag == _SCOPE:
                for inner, at, stop in fields(data, first, last):
                    if inner == _SCOPE_NAME:
                        name = text(data, at, stop)
                    elif inner == _SCOPE_VERSION:
                        version = text(data, at, stop)
                    elif inner == _SCOPE_ATTRIBUTE:
                        attributes.append((at, stop))
        pairs: Pairs = []
        try:
            pairs = scope_pairs(name, version, self._read(attributes))
        except InvalidInputError as exc:
            error = error or exc
        self._context = Context(resource, pairs, error)
        self.points.within("otlp", written, name, version, self._written(attributes))
        for bounds in metrics:
            self._metric(*bounds)

    def _metric(self, start: int, end: int) -> None:
        name = unit = description = ""
        found: tuple[Callable[[_Reader, int, int], None], _Bounds] | None = None
        for tag, first, last in fields(self._data, start, end):
            if tag == _NAME:
                name = text(self._data, first, last)
            elif tag == _DESCRIPTION:
                description = text(self._data, first, last)
            elif tag == _UNIT:
                unit = text(self._data, first, last)
            elif tag in _KINDS:
                found = _KINDS[tag], (first, last)
        if found is None:
            return
        self.points.metric(name, unit=unit, description=description)
        take, bounds = found
        for tag, first, last in fields(self._data, *bounds):
            if tag == _POINT:
                self.points.next()
                try:
                    take(self, first, last)
                except InvalidInputError as exc:
                    self.points.reject(exc)

    def _number(self, start: int, end: int) -> None:
        """Most points are numbers: their attributes are known by all the bytes from the first to the last."""
        data = self._data
        first_at = first_end = last_end = time_ns = flags = 0
        value = None
        for tag, at, stop in fields(data, start, end):
            if tag == _NUMBER_ATTRIBUTE:
                if not first_at:
                    first_at, first_end = at, stop
                last_end = stop
            elif tag == _TIME:
                time_ns = fixed64(data, at)
            elif tag == _AS_DOUBLE:
                value = double(data, at)
            elif tag == _AS_INT:
                value = float(_signed64(data, at))
            elif tag == _NUMBER_FLAGS:
                flags = at
            elif tag == _NUMBER_EXEMPLAR:
                self.points.skip()
        written = (first_end - first_at, data[first_at:last_end])

        def read() -> Labels:
            spans = [(at, stop) for tag, at, stop in fields(data, start, end) if tag == _NUMBER_ATTRIBUTE]
            return self._context.labels_of(written, lambda: self._read(spans))

        self.points.number(written, read, time_ns, value, flags)

    def _histogram(self, start: int, end: int) -> None:
        data = self._data
        attributes: list[_Bounds] = []
        time_ns = flags = 0
        parts: dict[str, float | None] = {"_count": 0.0}
        counts: list[int] = []
        bounds: list[float] = []
        for tag, first, last in fields(data, start, end):
            if tag == _HISTOGRAM_ATTRIBUTE:
                attributes.append((first, last))
            elif tag == _TIME:
                time_ns = fixed64(data, first)
            elif tag == _COUNTS:
                counts += packed_fixed64(data, first, last).tolist()
            elif tag == _COUNT_LONE:
                counts.append(fixed64(data, first))
            elif tag == _BOUNDS:
                bounds += packed_doubles(data, first, last).tolist()
            elif tag == _BOUND_LONE:
                bounds.append(double(data, first))
            elif tag == _LATER_FLAGS:
                flags = first
            else:
                self._part(parts, tag, first)
        written, read = self._labels(attributes)
        self.points.histogram(written, read, time_ns, parts, flags, counts=counts, bounds=bounds)

    def _exponential(self, start: int, end: int) -> None:
        data = self._data
        attributes: list[_Bounds] = []
        time_ns = flags = scale = zero_count = 0
        threshold = 0.0
        parts: dict[str, float | None] = {"_count": 0.0}
        negative: tuple[int, list[int]] = (0, [])
        positive: tuple[int, list[int]] = (0, [])
        for tag, first, last in fields(data, start, end):
            if tag == _EXPONENTIAL_ATTRIBUTE:
                attributes.append((first, last))
            elif tag == _TIME:
                time_ns = fixed64(data, first)
            elif tag == _SCALE:
                scale = zigzag(first)
            elif tag == _ZERO_COUNT:
                zero_count = fixed64(data, first)
            elif tag == _ZERO_THRESHOLD:
                threshold = double(data, first)
            elif tag == _POSITIVE:
                positive = self._buckets(first, last)
            elif tag == _NEGATIVE:
                negative = self._buckets(first, last)
            elif tag == _LATER_FLAGS:
                flags = first
            else:
                self._part(parts, _OF_EXPONENTIAL.get(tag, tag), first)
        self.points.exponential(
            *self._labels(attributes),
            time_ns,
            parts,
            flags,
            scale=scale,
            zero=(threshold, zero_count),
            negative=negative,
            positive=positive,
        )

    def _part(self, parts: dict[str, float | None], tag: int, at: int) -> None:
        """What both kinds of histogram have."""
        if tag == _COUNT:
            parts["_count"] = float(fixed64(self._data, at))
        elif tag in _PARTS:
            parts[_PARTS[tag]] = double(self._data, at)
        elif tag in _EXEMPLARS:
            self.points.skip()

    def _buckets(self, start: int, end: int) -> tuple[int, list[int]]:
        offset = 0
        counts: list[int] = []
        for tag, first, last in fields(self._data, start, end):
            if tag == _OFFSET:
                offset = zigzag(first)
            elif tag == _BUCKETS:
                self._check_count(first, last)
                counts += packed_varints(self._data, first, last)
            elif tag == _BUCKET_LONE:
                counts.append(first)
        return offset, counts

    def _check_count(self, start: int, end: int) -> None:
        """Before a list is made: a byte can be a bucket."""
        if end - start > self._readings_max:
            packed = np.frombuffer(self._data, np.uint8, end - start, start)
            if np.count_nonzero(packed < _MORE) > self._readings_max:
                raise too_many(self._readings_max)

    def _summary(self, start: int, end: int) -> None:
        data = self._data
        attributes: list[_Bounds] = []
        time_ns = flags = 0
        parts: dict[str, float | None] = {"_count": 0.0, "_sum": 0.0}
        quantiles = []
        for tag, first, last in fields(data, start, end):
            if tag == _NUMBER_ATTRIBUTE:
                attributes.append((first, last))
            elif tag == _TIME:
                time_ns = fixed64(data, first)
            elif tag == _QUANTILE:
                found = {
                    inner: double(data, at)
                    for inner, at, _ in fields(data, first, last)
                    if inner in _OF_QUANTILE
                }
                quantiles.append((found.get(_QUANTILE_OF, 0.0), found.get(_QUANTILE_VALUE, 0.0)))
            elif tag == _NUMBER_FLAGS:
                flags = first
            elif tag in _OF_SUMMARY:
                self._part(parts, tag, first)
        self.points.summary(*self._labels(attributes), time_ns, parts, flags, quantiles=quantiles)

    def _labels(self, attributes: list[_Bounds]) -> tuple[Hashable, Callable[[], Labels]]:
        """What a point's attributes are written as, and how they are read."""
        written = self._written(attributes)
        return written, lambda: self._context.labels_of(written, lambda: self._read(attributes))

    def _written(self, attributes: list[_Bounds]) -> tuple[bytes, ...]:
        return tuple([self._data[start:end] for start, end in attributes])

    def _read(self, attributes: list[_Bounds]) -> Pairs:
        """Attributes as labels, without those that are empty. InvalidInputError."""
        if len(attributes) > _ATTRIBUTES_MAX:
            raise too_many_labels(len(attributes))
        pairs = []
        for start, end in attributes:
            raw = self._data[start:end]
            if raw not in self._pairs:
                self._pairs[raw] = pair_of(*_key_value(self._data, start, end, 0))
            pair = self._pairs[raw]
            if pair is not None:
                pairs.append(pair)
        return pairs


_KINDS: Final = {
    _GAUGE: _Reader._number,  # noqa: SLF001 - a table of the class above
    _SUM: _Reader._number,  # noqa: SLF001 - as above
    _HISTOGRAM: _Reader._histogram,  # noqa: SLF001 - as above
    _EXPONENTIAL: _Reader._exponential,  # noqa: SLF001 - as above
    _SUMMARY: _Reader._summary,  # noqa: SLF001 - as above
}
_PARTS: Final = {_TOTAL: "_sum", _HISTOGRAM_MIN: "_min", _HISTOGRAM_MAX: "_max"}
_OF_EXPONENTIAL: Final = {
    _EXPONENTIAL_MIN: _HISTOGRAM_MIN,
    _EXPONENTIAL_MAX: _HISTOGRAM_MAX,
    _HISTOGRAM_MIN: 0,
}
_OF_SUMMARY: Final = frozenset({_COUNT, _TOTAL})
_OF_QUANTILE: Final = frozenset({_QUANTILE_OF, _QUANTILE_VALUE})


def _signed64(data: bytes, at: int) -> int:
    """sfixed64."""
    value = fixed64(data, at)
    return value - _VALUES if value >= _SIGN else value


def _key_value(data: bytes, start: int, end: int, depth: int) -> tuple[str, Any]:
    name = ""
    value = None
    for tag, first, last in fields(data, start, end):
        if tag == _KEY:
            name = text(data, first, last)
        elif tag == _VALUE:
            value = _any_value(data, first, last, deeper(depth, first))
    return name, value


def _any_value(data: bytes, start: int, end: int, depth: int) -> Any:
    """As plain data; bytes as base64."""
    value: Any = None
    for tag, first, last in fields(data, start, end):
        if tag == _STRING:
            value = text(data, first, last)
        elif tag == _BOOL:
            value = first != 0
        elif tag == _INT:
            value = signed(first)
        elif tag == _DOUBLE:
            value = double(data, first)
        elif tag == _BYTES:
            value = b64encode(data[first:last]).decode("ascii")
        elif tag == _ARRAY:
            items = fields(data, first, last)
            value = [_any_value(data, at, to, deeper(depth, at)) for inner, at, to in items if inner == _ITEM]
        elif tag == _MAP:
            items = fields(data, first, last)
            value = dict(
                _key_value(data, at, to, deeper(depth, at)) for inner, at, to in items if inner == _ITEM
            )
    return value
