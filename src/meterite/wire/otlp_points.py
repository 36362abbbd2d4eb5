"""What OTLP's data points become, however they were written: names, labels, readings.

https://github.com/open-telemetry/opentelemetry-proto/blob/v1.9.0/opentelemetry/proto/metrics/v1/metrics.proto and
https://opentelemetry.io/docs/specs/otel/common/ (how a value that is no string is written as one)

What this file guarantees: a data point is taken whole or rejected, by its number in the request, from 0. Names of
metrics and attributes stay as they are. A number is a reading of its metric; of what has several numbers each is one
of a metric of its own, as in Prometheus' formats:

    histogram     NAME_bucket (label le; cumulative, +Inf last), NAME_count, NAME_sum, NAME_min, NAME_max
    exponential   the same; le are the bounds of the buckets that the point has, and of the zero bucket between them
    summary       NAME (label quantile), NAME_count, NAME_sum

Labels are the point's attributes, the resource's, and ``otel.scope.name``, ``otel.scope.version`` and
``otel.scope.ATTRIBUTE``. Of two with one name the point's stays before the scope's and the scope's before the
resource's; the other becomes ``resource.NAME``. Temporality and time of start decide nothing: what a delta counts is
true at its end, so a point that comes again is the same reading.
"""

from __future__ import annotations

import itertools
import math
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from meterite.model.check import LABELS_MAX, check_code, check_labels
from meterite.model.columns import STALE_BITS, SeriesKey
from meterite.model.errors import InvalidInputError
from meterite.model.number import number_text
from meterite.model.time import AT_LAST_US, excerpt, from_unit
from meterite.wire.exposition import describe
from meterite.wire.exposition_proto import go_number
from meterite.wire.gather import Gathered, too_many

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from meterite.model.columns import Decoded, Labels
    from meterite.wire.names import Kept, Known

    Read = Callable[[], Labels]

Pair = tuple[str, str]
Pairs = list[Pair]

NO_RECORDED_VALUE: Final = 1
"""The flag of a point that says only that its series has ended."""

STALE: Final[float] = struct.unpack("<d", struct.pack("<Q", STALE_BITS))[0]
_SCOPE: Final = "otel.scope."
_SCOPE_OWN: Final = frozenset({"name", "version", "schema_url"})
_RESOURCE: Final = "resource."
_LAST_NS: Final = AT_LAST_US * 1000 + 999
_EXPONENT_OVER: Final = 1024
_WITHOUT_UNIT: Final = ("_bucket", "_count")


def value_text(value: object) -> str:
    """An attribute's value as a label's: a string as it is, all else as JSON writes it, bytes in base64."""
    if isinstance(value, str):
        return value
    plain = _plain(value)
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode("utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return msgspec.Raw(number_text(value).encode("ascii"))
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value if value is not None else None


def pair_of(name: str, value: object) -> Pair | None:
    """An attribute as a checked label; None where its value is empty, which is no label. InvalidInputError."""
    checked = check_labels({name: "" if value is None else value_text(value)})
    return checked[0] if checked else None


def scope_pairs(name: str, version: str, attributes: Iterable[Pair]) -> Pairs:
    """The labels of a scope. What the specification names itself, an attribute can't."""
    own = [
        pair for key, said in (("name", name), ("version", version)) if (pair := pair_of(_SCOPE + key, said))
    ]
    return own + [
        (check_labels({_SCOPE + key: "x"})[0][0], said) for key, said in attributes if key not in _SCOPE_OWN
    ]


class Context:
    """The labels of a resource and a scope, and what is wrong with them: then none of their points can be taken."""

    def __init__(self, resource: Pairs, scope: Pairs, error: InvalidInputError | None = None) -> None:
        self._error = error
        self._base: dict[str, str] = {}
        if error is None:
            try:
                self._base = _laid_over(dict_of(resource), dict_of(scope))
            except InvalidInputError as exc:
                self._error = exc
        self._known: dict[Hashable, Labels] = {}

    def labels_of(self, attributes: Hashable, read: Callable[[], Sequence[Pair]]) -> Labels:
        """As :meth:`labels`; read once for each way they are written."""
        labels = self._known.get(attributes)
        if labels is None:
            labels = self._known[attributes] = self.labels(read())
        return labels

    def labels(self, pairs: Sequence[Pair]) -> Labels:
        """A point's labels, sorted. InvalidInputError."""
        if self._error is not None:
            raise self._error
        labels = _laid_over(self._base, dict_of(pairs))
        if len(labels) > LABELS_MAX:
            raise too_many_labels(len(labels))
        return tuple(sorted(labels.items()))


def too_many_labels(count: int) -> InvalidInputError:
    return InvalidInputError(
        "labels-too-many",
        f"A data point has at most {LABELS_MAX} labels, not {count}, its resource's included.",
    )


def dict_of(pairs: Sequence[Pair]) -> dict[str, str]:
    """InvalidInputError where a name stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # add() returns None, which is the point
        raise InvalidInputError("label-invalid", f"The attribute {excerpt(twice)} stands twice in one place.")
    return found


def _laid_over(below: dict[str, str], above: dict[str, str]) -> dict[str, str]:
    labels = below | above
    if len(labels) < len(below) + len(above):
        for name in above.keys() & below.keys():
            labels.setdefault(check_labels({_RESOURCE + name: "x"})[0][0], below[name])
    return labels


def _with(labels: Labels, more: Pair) -> Labels:
    """One label more, before which an attribute of that name gives way; none where it is empty."""
    name, value = more
    if not value:
        return labels
    if any(each == name for each, _ in labels):
        labels = tuple(sorted(_laid_over(dict(labels), {name: value}).items()))
    else:
        labels = tuple(sorted((*labels, more)))
    if len(labels) > LABELS_MAX:
        raise too_many_labels(len(labels))
    return labels


def point_time(time_ns: int) -> int:
    """µs since 1970. InvalidInputError where there is none."""
    if 0 < time_ns <= _LAST_NS:
        return time_ns // 1000
    if not time_ns:
        raise InvalidInputError("time-invalid", "A data point needs its time, timeUnixNano.")
    return from_unit(time_ns, "ns")


class _Several(NamedTuple):
    """A point of several numbers: what names it, and how its labels are read."""

    written: Hashable
    read: Read


class Points:
    """Takes points one by one: :meth:`within`, :meth:`metric`, then for each point :meth:`next`, and one that takes it.

    What raises InvalidInputError has taken nothing; :meth:`reject` then tells of the point. ``attributes`` are what a
    point's were written as, ``read`` reads the labels of one whose attributes aren't known, or says what is wrong.
    """

    def __init__(self, readings_max: int, known: Known) -> None:
        self._readings_max = readings_max
        self._gathered = Gathered(readings_max, unit="ns")
        self._row = -1
        self._name = self._unit = self._description = ""
        self._codes: dict[str, str] = {}
        self._pending: list[tuple[SeriesKey, float]] = []
        self._known = known
        self._context: Hashable = None
        self._kept: Kept = {}

    def decoded(self) -> Decoded:
        return self._gathered.decoded()

    def within(self, *context: Hashable) -> None:
        """All that labels of the next points depend on, beside their attributes, as it was written."""
        self._context = context
        self._kept = self._known.within(context)

    def metric(self, name: str, *, unit: str = "", description: str = "") -> None:
        self._name, self._unit, self._description = name, unit, description
        self._codes = {}

    def next(self) -> None:
        self._row += 1
        self._pending.clear()

    def reject(self, error: InvalidInputError) -> None:
        self._gathered.reject(self._row, error.code, error.message)

    def skip(self, count: int = 1) -> None:
        self._gathered.skip(count)

    def number(self, attributes: Hashable, read: Read, time_ns: int, value: float | None, flags: int) -> None:
        """A gauge's or a sum's. None is no value."""
        written = (self._name, attributes)
        key = self._kept.get(written)
        labels = read() if key is None else ()
        at_us = point_time(time_ns)
        if flags & NO_RECORDED_VALUE:
            value = STALE
        if value is None:
            raise InvalidInputError("reading-invalid", "A data point needs a value, asDouble or asInt.")
        code = self._code("")
        if key is None:
            key = self._known.keep(self._context, written, SeriesKey(code, labels))
        self._gathered.append(self._gathered.place_one(key), at_us, value, self._row)

    def histogram(
        self,
        attributes: Hashable,
        read: Read,
        time_ns: int,
        parts: dict[str, float | None],
        flags: int,
        *,
        counts: Sequence[int],
        bounds: Sequence[float],
    ) -> None:
        """``parts``: ``_count`` and, where they are known, ``_sum``, ``_min``, ``_max``."""
        point = self._several(attributes, read)
        if len(counts) != len(bounds) + 1 and (counts or bounds):
            raise InvalidInputError(
                "lengths-differ",
                f"A histogram with {len(bounds)} bounds has one bucket more, not {len(counts)}.",
            )
        if any(not low < high for low, high in itertools.pairwise(bounds)):
            raise InvalidInputError("shape-invalid", "A histogram's bounds must rise.")
        self._buckets(point, [*zip(bounds, counts, strict=False)], parts["_count"])
        self._parts(point, parts)
        self._take(point_time(time_ns), flags)

    def exponential(
        self,
        attributes: Hashable,
        read: Read,
        time_ns: int,
        parts: dict[str, float | None],
        flags: int,
        *,
        scale: int,
        zero: tuple[float, int],
        negative: tuple[int, Sequence[int]],
        positive: tuple[int, Sequence[int]],
    ) -> None:
        """``zero``: threshold and count; the others: offset of the first bucket, and counts."""
        point = self._several(attributes, read)
        offset, counts = negative
        last = offset + len(counts) - 1
        buckets = [(-_bound(scale, last - n), count) for n, count in enumerate(reversed(counts))]
        buckets.append(zero)
        offset, counts = positive
        buckets += [(_bound(scale, offset + n + 1), count) for n, count in enumerate(counts)]
        self._buckets(point, buckets, parts["_count"])
        self._parts(point, parts)
        self._take(point_time(time_ns), flags)

    def summary(
        self,
        attributes: Hashable,
        read: Read,
        time_ns: int,
        parts: dict[str, float | None],
        flags: int,
        *,
        quantiles: Sequence[tuple[float, float]],
    ) -> None:
        point = self._several(attributes, read)
        for quantile, value in quantiles:
            self._part(point, "", value, ("quantile", _limit(quantile)))
        self._parts(point, parts)
        self._take(point_time(time_ns), flags)

    def _several(self, attributes: Hashable, read: Read) -> _Several:
        """A point of several numbers. What is wrong with its attributes is said before all else."""
        point = _Several((self._name, attributes), read)
        if (point.written, "_count", "") not in self._kept:
            read()
        return point

    def _buckets(self, point: _Several, buckets: Iterable[tuple[float, int]], count: float | None) -> None:
        """Bounds that are written alike are one: the last says how many lie up to it."""
        total = 0
        cumulative: dict[str, int] = {}
        for bound, added in buckets:
            total += added
            if math.isfinite(bound):
                cumulative[_limit(bound)] = total
        if len(cumulative) > self._readings_max:
            raise too_many(self._readings_max)
        for le, upto in cumulative.items():
            self._part(point, "_bucket", float(upto), ("le", le))
        self._part(point, "_bucket", count or 0.0, ("le", "+Inf"))

    def _parts(self, point: _Several, parts: dict[str, float | None]) -> None:
        for suffix, value in parts.items():
            if value is not None:
                self._part(point, suffix, value)

    def _part(self, point: _Several, suffix: str, value: float, more: Pair = ("", "")) -> None:
        """``more`` is a label of its own."""
        written = (point.written, suffix, more[1])
        key = self._kept.get(written)
        labels = _with(point.read(), more) if key is None else ()
        code = self._code(suffix)
        if key is None:
            key = self._known.keep(self._context, written, SeriesKey(code, labels))
        self._pending.append((key, value))

    def _take(self, at_us: int, flags: int) -> None:
        ended = flags & NO_RECORDED_VALUE
        for key, value in self._pending:
            place = self._gathered.place_one(key)
            self._gathered.append(place, at_us, STALE if ended else value, self._row)

    def _code(self, suffix: str) -> str:
        code = self._codes.get(suffix)
        if code is None:
            code = self._codes[suffix] = check_code(self._name + suffix)
            unit = "" if suffix in _WITHOUT_UNIT else self._unit
            describe(self._gathered, code, unit=unit, description=self._description)
        return code


def _limit(value: float) -> str:
    """A bound or a quantile as a label's value; minus zero is zero."""
    return go_number(value + 0.0)


def _bound(scale: int, index: int) -> float:
    """2^(index · 2^−scale), which is a bucket's upper bound; infinite or 0 where no float64 is so large or small."""
    try:
        exponent = math.ldexp(index, -scale)
    except OverflowError:
        exponent = math.copysign(math.inf, index)
    if exponent >= _EXPONENT_OVER:
        return math.inf
    return 2.0**exponent if exponent > -math.inf else 0.0
