"""OTLP's metrics as JSON: proto3's mapping (https://protobuf.dev/programming-guides/json/), but for what OTLP changes.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding

What this file guarantees: any bytes give columns or an error of ours, in time linear in them; a message and the same as
protobuf become the same. Integers may be numbers or texts, numbers texts, too (``"NaN"``, ``"Infinity"``); ``null`` is
what isn't there; fields that aren't known are passed over. Fields may be named as in the protobuf (``data_points``),
which OTLP forbids to write and many write. A field that can't be what it must be makes the whole request malformed, as
it would be in protobuf. Of a key that stands twice the last counts.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode, b64encode
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from meterite.model.errors import InvalidInputError, MalformedError
from meterite.model.time import excerpt
from meterite.wire.json_exact import check_depth, load_exact
from meterite.wire.names import Names
from meterite.wire.otlp_points import Context, Pair, Pairs, Points, pair_of, scope_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from meterite.model.columns import Decoded
    from meterite.wire.otlp_points import Read

Message = dict[str, Any]

_CAPITAL: Final = re.compile(r"[A-Z]")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_NUMBER_CHARACTERS_MAX: Final = 400
_NO_NUMBERS: Final = {"NaN", "Infinity", "-Infinity"}
_FINITE: Final = range(-(10**308), 10**308)
_UINT64: Final = range(1 << 64)
_INT64: Final = range(-(1 << 63), 1 << 63)
_INT32: Final = range(-(1 << 31), 1 << 31)
_URL_SAFE: Final = str.maketrans("-_", "+/")


# What a field may be


@cache
def _snake(field: str) -> str:
    return _CAPITAL.sub(lambda match: "_" + match[0].lower(), field)


def _wrong(field: str, what: str) -> Any:
    raise MalformedError("shape-invalid", f"The body is not an export of metrics: {field} must be {what}.")


def _field(message: Message, field: str) -> Any:
    found = message.get(field)
    return message.get(_snake(field)) if found is None else found


def _message(found: object, field: str) -> Message:
    return found if isinstance(found, dict) else _wrong(field, "an object")


def _of(message: Message, field: str) -> Message:
    found = _field(message, field)
    return {} if found is None else _message(found, field)


def _list(message: Message, field: str) -> list[Any]:
    found = _field(message, field)
    if found is None:
        return []
    return found if isinstance(found, list) else _wrong(field, "an array")


def _messages(message: Message, field: str) -> list[Message]:
    return [_message(each, f"each of {field}") for each in _list(message, field)]


def _text(message: Message, field: str) -> str:
    found = _field(message, field)
    if found is None:
        return ""
    return found if isinstance(found, str) else _wrong(field, "a string")


def _integer(message: Message, field: str, within: range) -> int:
    """0 where there is none."""
    found = _field(message, field)
    return 0 if found is None else _as_integer(found, field, within)


def _as_integer(found: object, field: str, within: range) -> int:
    value = found
    if isinstance(value, str):
        value = int(value) if _INTEGER.fullmatch(value) else None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in within:
        return int(_wrong(field, f"an integer that fits, not {excerpt(str(found)[:100])}"))
    return value


def _double(message: Message, field: str) -> float | None:
    """None where there is none."""
    found = _field(message, field)
    return None if found is None else _as_double(found, field)


def _plain_double(message: Message, field: str) -> float:
    """0 where there is none; minus zero is there."""
    found = _double(message, field)
    return 0.0 if found is None else found


def _as_double(found: object, field: str) -> float:
    if isinstance(found, float) and math.isfinite(found):
        return found
    value = math.inf
    if isinstance(found, int) and not isinstance(found, bool):
        value = float(found) if found in _FINITE else value
    elif isinstance(found, str):
        if found in _NO_NUMBERS:
            return float(found)
        if len(found) <= _NUMBER_CHARACTERS_MAX and _NUMBER.fullmatch(found):
            value = float(found)
    return value if math.isfinite(value) else float(_wrong(field, "a number"))


# What messages are


def decode_otlp_json(body: bytes, *, readings_max: int, names: Names | None = None) -> Decoded:
    """The readings of an export. ``names`` are what earlier requests left."""
    reader = _Reader(Points(readings_max, (names or Names()).known()))
    export = _message(_load(body), "the body")
    for resource_metrics in _messages(export, "resourceMetrics"):
        pairs: Pairs = []
        error = None
        try:
            pairs = reader.pairs(_of(resource_metrics, "resource"))
        except InvalidInputError as exc:
            error = exc
        for scope_metrics in _messages(resource_metrics, "scopeMetrics"):
            reader.scope(pairs, error, _of(scope_metrics, "scope"))
            for metric in _messages(scope_metrics, "metrics"):
                reader.metric(metric)
    return reader.points.decoded()


def _load(body: bytes) -> Any:
    """The exact way is slow, and words what is wrong."""
    check_depth(body)
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return load_exact(body)


class _Reader:
    """An attribute that is a text, and all attributes of a point, are read once for each way they are written."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self._pairs: dict[Pair, Pair | None] = {}
        self._context = Context([], [])

    def scope(self, resource: Pairs, error: InvalidInputError | None, scope: Message) -> None:
        pairs: Pairs = []
        name, version = _text(scope, "name"), _text(scope, "version")
        try:
            pairs = scope_pairs(name, version, self.pairs(scope))
        except InvalidInputError as exc:
            error = error or exc
        self._context = Context(resource, pairs, error)
        self.points.within("otlp-json", tuple(resource), tuple(pairs), error is None)

    def metric(self, metric: Message) -> None:
        kind = next((kind for kind in _KINDS if _field(metric, kind) is not None), None)
        if kind is None:
            return
        points = self.points
        points.metric(
            _text(metric, "name"), unit=_text(metric, "unit"), description=_text(metric, "description")
        )
        take = _KINDS[kind]
        for point in _messages(_of(metric, kind), "dataPoints"):
            points.next()
            points.skip(len(_list(point, "exemplars")))
            try:
                take(points, *self._labels(point), point)
            except InvalidInputError as exc:
                points.reject(exc)

    def _labels(self, point: Message) -> tuple[Hashable, Read]:
        """A point's attributes, and how they become labels."""
        pairs = self.pairs(point)
        written = tuple(pairs)
        return written, lambda: self._context.labels_of(written, lambda: pairs)

    def pairs(self, message: Message) -> Pairs:
        """Its attributes as labels, without those that are empty. InvalidInputError."""
        pairs = []
        for each in _messages(message, "attributes"):
            name, value = _key_value(each)
            if isinstance(value, str):
                if (name, value) not in self._pairs:
                    self._pairs[name, value] = pair_of(name, value)
                pair = self._pairs[name, value]
            else:
                pair = pair_of(name, value)
            if pair is not None:
                pairs.append(pair)
        return pairs


def _number(points: Points, written: Hashable, read: Read, point: Message) -> None:
    value = _double(point, "asDouble")
    if value is None and _field(point, "asInt") is not None:
        value = float(_integer(point, "asInt", _INT64))
    points.number(written, read, _time(point), value, _flags(point))


def _histogram(points: Points, written: Hashable, read: Read, point: Message) -> None:
    counts = _counts(point, "bucketCounts")
    bounds = [_as_double(each, "explicitBounds") for each in _list(point, "explicitBounds")]
    points.histogram(written, read, _time(point), _parts(point), _flags(point), counts=counts, bounds=bounds)


def _exponential(points: Points, written: Hashable, read: Read, point: Message) -> None:
    def buckets(field: str) -> tuple[int, list[int]]:
        found = _of(point, field)
        return _integer(found, "offset", _INT32), _counts(found, "bucketCounts")

    points.exponential(
        written,
        read,
        _time(point),
        _parts(point),
        _flags(point),
        scale=_integer(point, "scale", _INT32),
        zero=(_plain_double(point, "zeroThreshold"), _integer(point, "zeroCount", _UINT64)),
        negative=buckets("negative"),
        positive=buckets("positive"),
    )


def _summary(points: Points, written: Hashable, read: Read, point: Message) -> None:
    quantiles = [
        (_plain_double(each, "quantile"), _plain_double(each, "value"))
        for each in _messages(point, "quantileValues")
    ]
    parts: dict[str, float | None] = {
        "_count": float(_integer(point, "count", _UINT64)),
        "_sum": _plain_double(point, "sum"),
    }
    points.summary(written, read, _time(point), parts, _flags(point), quantiles=quantiles)


_KINDS: Final[dict[str, Callable[[Points, Hashable, Read, Message], None]]] = {
    "gauge": _number,
    "sum": _number,
    "histogram": _histogram,
    "exponentialHistogram": _exponential,
    "summary": _summary,
}


def _time(point: Message) -> int:
    return _integer(point, "timeUnixNano", _UINT64)


def _flags(point: Message) -> int:
    return _integer(point, "flags", _UINT64)


def _parts(point: Message) -> dict[str, float | None]:
    """What both kinds of histogram have."""
    return {
        "_count": float(_integer(point, "count", _UINT64)),
        "_sum": _double(point, "sum"),
        "_min": _double(point, "min"),
        "_max": _double(point, "max"),
    }


def _counts(message: Message, field: str) -> list[int]:
    return [_as_integer(each, field, _UINT64) for each in _list(message, field)]


def _key_value(message: Message) -> tuple[str, Any]:
    return _text(message, "key"), _any_value(_of(message, "value"))


def _any_value(message: Message) -> Any:
    """As plain data; bytes as base64."""
    text = message.get("stringValue")
    if isinstance(text, str):  # nearly always
        return text
    kind = next((kind for kind in _VALUES if _field(message, kind) is not None), None)
    return None if kind is None else _VALUES[kind](message, kind)


def _boolean(message: Message, field: str) -> Any:
    found = _field(message, field)
    return found if isinstance(found, bool) else _wrong(field, "true or false")


_VALUES: Final[dict[str, Callable[[Message, str], Any]]] = {
    "stringValue": _text,
    "boolValue": _boolean,
    "intValue": lambda message, field: _integer(message, field, _INT64),
    "doubleValue": _double,
    "bytesValue": lambda message, field: _base64(_text(message, field)),
    "arrayValue": lambda message, field: [
        _any_value(each) for each in _messages(_of(message, field), "values")
    ],
    "kvlistValue": lambda message, field: dict(map(_key_value, _messages(_of(message, field), "values"))),
}


def _base64(text: str) -> str:
    """The same with the alphabet and the padding of RFC 4648, section 4."""
    plain = text.translate(_URL_SAFE).rstrip("=")
    try:
        return b64encode(b64decode(plain + "=" * (-len(plain) % 4), validate=True)).decode("ascii")
    except ValueError:
        return str(_wrong("bytesValue", "base64"))
