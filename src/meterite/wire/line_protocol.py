r"""InfluxDB's line protocol, as its versions 1, 2 and 3 and QuestDB's clients write it.

    line      measurement[,tag=value…] field=value[,field=value…] [time]
    value     1.5  -2e3  42i  42u  "a text"  t true F false  1760000000000000t (a time, as QuestDB's clients send it)
    series    code = measurement _ field, or the measurement alone where the field is called value; labels = tags

What this file guarantees: any bytes give columns or one of our errors; a line is taken whole or rejected, with its
number (from 1) and a column; nothing within quotes is ever read as a line, however broken what stands before it; the
time taken is linear in the input. The plain way takes only lines that the exact way would take alike: those without
quotes, escapes and surprises, of series that the exact way has already seen, in this request or an earlier one.

Grammar: docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol. Where that is silent, InfluxDB 1 and 2 decide
(models/points.go): a separator behind a backslash is no separator, a backslash before ``,``, ``=`` or a space is
dropped, and any other backslash is a character like others, within a text it escapes quote and backslash; white space
may stand before a measurement; a line feed ends a line but within a text; of tags no name comes twice. Beyond it: a tag
with an empty value is no tag, and a measurement may escape ``=``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from meterite.model.check import check_code, check_labels
from meterite.model.columns import NO_TIME, SeriesKey
from meterite.model.errors import InvalidInputError
from meterite.model.time import (
    AT_FIRST_US,
    AT_LAST_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    check_range,
    excerpt,
    from_unit,
)
from meterite.wire.gather import Gathered
from meterite.wire.names import Names

if TYPE_CHECKING:
    from meterite.model.columns import Decoded, Labels
    from meterite.wire.names import Known

NANOSECONDS: Final = "ns"
AUTO: Final = "auto"
"""Each time's magnitude says its unit, as InfluxDB 3 guesses it."""

_SCALES: Final = {
    "ns": (1, 1000),
    "us": (1, 1),
    "ms": (1000, 1),
    "s": (SECOND_US, 1),
    "m": (MINUTE_US, 1),
    "h": (HOUR_US, 1),
}
"""A unit's µs, as a factor and a divisor."""
_UNITS: Final = {unit: unit for unit in (*_SCALES, AUTO)} | {
    "n": "ns", "nanosecond": "ns", "u": "us", "µ": "us", "µs": "us", "microsecond": "us", "millisecond": "ms",
    "second": "s",
}  # fmt: skip
_MISTAKABLE: Final = frozenset({"s", "ms", "us", "ns"})
_AUTO_BELOW: Final = ((5 * 10**9, "s"), (5 * 10**12, "ms"), (5 * 10**15, "us"))
_OF_SUFFIX: Final = {b"t": "us", b"n": "ns"}

# The plain way. Numbers are short enough never to overflow; a run of characters is taken whole or not at all
# (possessive), so that no line is looked at twice.
_PLAIN_NUMBER: Final = (
    rb"([0-9]{1,18}+(?=[iu])|-[0-9]{1,18}+(?=i)"
    rb"|[-+]?+(?:[0-9]{1,30}+(?:\.[0-9]{0,30}+)?+|\.[0-9]{1,30}+)(?:[eE][-+]?+[0-9]{1,2}+)?+(?![iu]))[iu]?+"
)
_PLAIN_NAME: Final = rb'[^\x00-\x20\x7f"\\,=]++'
_PLAIN_MORE: Final = rb"," + rb"(" + _PLAIN_NAME + rb")=" + _PLAIN_NUMBER
_MORE: Final = re.compile(_PLAIN_MORE)
_PLAIN: Final = re.compile(
    rb'[ \t]*+(([^\x00-\x20\x7f"\\,=#][^\x00-\x20\x7f"\\]*+) '
    + _PLAIN_NAME
    + rb")="
    + _PLAIN_NUMBER
    + rb"((?:" + _PLAIN_MORE.replace(rb",(", rb",(?:").replace(rb"=(", rb"=(?:") + rb")*+)"
    rb"(?: ++(-?+[0-9]{1,19}+))?+[ \t]*+\r?+(?:\n|\Z)"
)  # fmt: skip

# The exact way.
_NAME: Final = re.compile(rb"(?:[^\\,= \n]++|\\++[^\\\n]?+)*+")
_KEY: Final = re.compile(rb"(?:[^\\ \n]++|\\++[^\\\n]?+)*+")
_MEASUREMENT: Final = re.compile(rb"(?:[^\\,]++|\\++[^\\]?+)*+")
_TAG: Final = re.compile(rb",((?:[^\\,=]++|\\++[^\\]?+)*+)=((?:[^\\,=]++|\\++[^\\]?+)*+)")
_ESCAPED: Final = re.compile(rb"\\([,= ])")
_TEXT: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_TOKEN: Final = re.compile(rb"[^, \t\r\n]*+")
_LEADING: Final = re.compile(rb"[ \t\r\x00]*+")
_IDLE: Final = re.compile(rb"[ \t\r\x00]*+(?:#[^\n]*+)?+(?:\n|\Z)")
_TAIL: Final = re.compile(rb"[ \t]*+([^ \t\r\n]*+)[ \t]*+\r?+(?:\n|\Z)")
_BEHIND_TAG: Final = frozenset({b"", b","})
_BEHIND_TEXT: Final = frozenset({b"", b",", b" ", b"\t", b"\r", b"\n"})
_BOOLEANS: Final = dict.fromkeys((b"t", b"T", b"true", b"True", b"TRUE"), 1.0) | dict.fromkeys(
    (b"f", b"F", b"false", b"False", b"FALSE"), 0.0
)
_FLOAT: Final = re.compile(rb"[-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+")
_INTEGER: Final = re.compile(rb"([-+]?+[0-9]++)([iutn])")
_TIME: Final = re.compile(rb"([-+]?+[0-9]++)([tn]?+)")
_NO_NUMBER: Final = re.compile(rb"[-+]?(?:nan|inf|infinity)", re.IGNORECASE)
_SIGNED: Final = (-(2**63), 2**63 - 1)
_RANGES: Final = {b"i": _SIGNED, b"u": (0, 2**64 - 1), b"t": _SIGNED, b"n": _SIGNED}
_DIGITS_MAX: Final = 40
_SHOWN_BYTES: Final = 250
_REST: Final = re.compile(rb'(?:[^=\n]++|="(?:[^"\\]++|\\.)*+(?:"|\Z)|=)*+\n?+', re.DOTALL)
"""What is left of a broken line. A quote behind an ``=`` opens a text, even there."""
_CONTEXT: Final = "line protocol"
_BOM: Final = b"\xef\xbb\xbf"


class LineError(Exception):
    """A line that can't be taken, where that was seen, and from where on the rest of the line is looked for."""

    def __init__(
        self, message: str, at: int, code: str = "line-invalid", *, rest_at: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.at = at
        self.rest_at = at if rest_at is None else rest_at


def decode_line_protocol(
    body: bytes, *, precision: str | None, readings_max: int, names: Names | None = None
) -> Decoded:
    """The readings of a body; times are ``ns`` where no ``precision`` is said. InvalidInputError, TooLargeError.

    ``names`` are what earlier requests left.
    """
    return _Lines(body, time_unit(precision), readings_max, (names or Names()).known()).read()


def time_unit(precision: str | None) -> str:
    """Any version's word for a unit of time (``n``, ``nanosecond``, …) as ours. InvalidInputError."""
    unit = _UNITS.get(precision or NANOSECONDS)
    if unit is None:
        raise InvalidInputError(
            "precision-invalid",
            f"{excerpt(precision or '')} is not a precision: use ns, us, ms, s, m or h.",
            place=("query", "precision"),
        )
    return unit


def told(unit: str) -> str | None:
    """The unit, where another one could be labelled with it."""
    return unit if unit in _MISTAKABLE else None


def decode_plain_line(body: bytes, unit: str) -> tuple[bytes, int, float] | None:
    """The reading of a body that is one plain line of one field: its series as it was written, time and value.

    None: decode it as any other. ``unit`` is :func:`time_unit`'s, and not ``AUTO``. The series is the one that
    :func:`plain_line_series` says, if any.
    """
    found = _PLAIN.fullmatch(body)
    if found is None:
        return None
    series, _, number, more, time = found.groups()
    if more:
        return None
    times, per = _SCALES[unit]
    return series, NO_TIME if time is None else int(time) * times // per, float(number)


def plain_line_series(series: bytes) -> SeriesKey | None:
    """What :func:`decode_plain_line` found written, the exact way; None where that refuses it."""
    decoded = decode_line_protocol(series + b"=0", precision=None, readings_max=1)
    return decoded.keys[0] if decoded.keys and not decoded.rejected else None


class _Lines:
    """Line after line, the plain way where it goes. Series are kept by ``key field``, as they were written."""

    def __init__(self, body: bytes, unit: str, readings_max: int, known: Known) -> None:
        self._body = body
        self._unit = unit
        self._gathered = Gathered(readings_max, counted="line", unit=told(unit), unit_asked=True)
        self._places: dict[bytes, int] = {}
        self._wide: dict[tuple[bytes, tuple[bytes, ...]], list[int]] = {}
        self._known = known
        self._kept = known.within(_CONTEXT)
        self._keys: dict[bytes, tuple[str, Labels]] = {}
        self._time: bytes | None = None
        self._at_us = NO_TIME

    def read(self) -> Decoded:
        body, size, line = self._body, len(self._body), 1
        position = len(_BOM) if body.startswith(_BOM) else 0
        while position < size:
            found = _PLAIN.match(body, position)
            if found is not None and self._take(found, line):
                position = found.end()
                line += 1
            else:
                end = self._read_exactly(position, line)
                line += body.count(b"\n", position, end)
                position = end
        return self._gathered.decoded()

    def _take(self, found: re.Match[bytes], line: int) -> bool:
        """The readings of a plain line; False where only the exact way knows."""
        series, key, number, more, time = found.groups()
        if time != self._time and not self._moves_to(time):
            return False
        if series not in self._kept:
            return False
        place = self._place(series)
        if not more:
            self._gathered.append(place, self._at_us, float(number), line)
            return True
        names, numbers = zip(*_MORE.findall(more), strict=True)
        places = self._wide.get((series, names)) or self._learn(series, key, names)
        if places is None:
            return False
        self._gathered.extend(places, self._at_us, map(float, (number, *numbers)), line)
        return True

    def _learn(self, series: bytes, key: bytes, names: tuple[bytes, ...]) -> list[int] | None:
        raws = (series, *(key + b" " + name for name in names))
        if any(raw not in self._kept for raw in raws):
            return None
        places = self._wide[series, names] = [self._place(raw) for raw in raws]
        return places

    def _place(self, raw: bytes) -> int:
        """Of a series that is known."""
        place = self._places.get(raw)
        if place is None:
            place = self._places[raw] = self._gathered.place_one(self._kept[raw])
        return place

    def _moves_to(self, time: bytes | None) -> bool:
        """Whether the time can be kept: lines beside each other mostly have the same."""
        try:
            self._at_us = NO_TIME if time is None else self._scaled(int(time), self._unit)
        except InvalidInputError:
            self._time = None
            self._at_us = NO_TIME
            return False
        self._time = time
        return True

    def _scaled(self, time: int, unit: str) -> int:
        if unit == AUTO:
            size = abs(time)
            unit = next((each for below, each in _AUTO_BELOW if size < below), NANOSECONDS)
        times, per = _SCALES[unit]
        at_us = time * times // per
        if AT_FIRST_US <= at_us <= AT_LAST_US:
            return at_us
        return (
            from_unit(time, unit, asked=True) if unit in _MISTAKABLE else check_range(at_us)
        )  # and what it looks like

    # ------------------------------------------------------------------------------------------------
    # The exact way.

    def _read_exactly(self, start: int, line: int) -> int:
        """One line, which a text may make several; its end."""
        idle = _IDLE.match(self._body, start)
        if idle is not None:
            return idle.end()
        try:
            return self._read_line(start, line)
        except LineError as error:
            column = len(self._body[start : error.at].decode("utf-8", "replace")) + 1
            self._gathered.reject(line, error.code, f"Line {line}, column {column}: {error.message}")
            return _REST.match(self._body, error.rest_at).end()  # type: ignore[union-attr]  # it matches nothing, too

    def _read_line(self, start: int, line: int) -> int:
        body = self._body
        found = _KEY.match(body, _LEADING.match(body, start).end())  # type: ignore[union-attr]  # both match nothing, too
        assert found is not None
        key, at = found.group(), found.end()
        while body[at : at + 1] in {b" ", b"\t"}:
            at += 1
        if key + b" " + _NAME.match(body, at).group() not in self._kept:  # type: ignore[union-attr]  # it matches nothing, too
            self._check_key(key, found.start())
        names, values, texts = [], [], 0
        while True:
            name_at, name = at, _NAME.match(body, at).group()  # type: ignore[union-attr]  # it matches nothing, too
            at = self._value_at(name, at)
            value, end = self._value(at)
            if value is None:
                texts += 1
            else:
                names.append(self._series(key, name, name_at))
                values.append(value)
            if body[end : end + 1] != b",":
                break
            at = end + 1
        at_us, end = self._tail(end)
        # Only now: of a line that is rejected no series is left.
        places = [self._places.setdefault(raw, self._gathered.place_one(series)) for raw, series in names]
        self._gathered.extend(places, at_us, values, line)
        self._gathered.skip(texts)
        return end

    def _check_key(self, key: bytes, at: int) -> None:
        """Measurement and tags are well-formed; kept, since a key comes with many fields and lines."""
        if key in self._keys:
            return
        try:
            self._keys[key] = parse_key(key, at)
        except LineError as error:  # what looks like a text there is none
            raise LineError(error.message, error.at, error.code, rest_at=at + len(key)) from error

    def _series(self, key: bytes, name: bytes, at: int) -> tuple[bytes, SeriesKey]:
        raw = key + b" " + name
        series = self._kept.get(raw)
        if series is None:
            self._check_key(key, at)
            series = self._known.keep(_CONTEXT, raw, name_series(self._keys[key], name, at))
        return raw, series

    def _value_at(self, name: bytes, at: int) -> int:
        """Where a field's value begins."""
        end = at + len(name)
        if not name:
            raise LineError("a field is missing: name=value.", at)
        if self._body[end : end + 1] != b"=":
            raise LineError("a field needs a value: name=value.", end)
        return end + 1

    def _value(self, at: int) -> tuple[float | None, int]:
        """A field's value, None where it is a text, and its end."""
        body = self._body
        if body[at : at + 1] != b'"':
            found = _TOKEN.match(body, at)
            assert found is not None
            return _number(found.group(), at), found.end()
        text = _TEXT.match(body, at)
        if text is None:
            # All that follows may belong to it.
            raise LineError("a text has no end: a quote is missing.", at, rest_at=len(body))
        end = text.end()
        if body[end : end + 1] not in _BEHIND_TEXT:
            raise LineError("a text ends with its quote; a comma, a space or the line's end follows.", end)
        return None, end

    def _tail(self, at: int) -> tuple[int, int]:
        """The time behind the fields, and the line's end."""
        found = _TAIL.match(self._body, at)
        if found is None:
            raise LineError("nothing but a time follows the fields.", at)
        token = found.group(1)
        if not token:
            return NO_TIME, found.end()
        at = found.start(1)
        time = _TIME.fullmatch(token)
        if time is None:
            raise LineError(f"{_shown(token)} is no time: an integer since 1970.", at, "time-invalid")
        unit = _OF_SUFFIX.get(time.group(2), self._unit)
        try:
            return self._scaled(_integer(time.group(1), at, "time-out-of-range"), unit), found.end()
        except InvalidInputError as error:
            raise LineError(error.message, at, error.code) from error


def parse_key(key: bytes, at: int) -> tuple[str, Labels]:
    """Measurement and labels of what stands at a place before the fields. LineError."""
    measurement, tags = _measurement_and_tags(key, at)
    try:
        return measurement, check_labels(tags)
    except InvalidInputError as error:
        raise LineError(error.message, at, error.code) from error


def name_series(parsed: tuple[str, Labels], name: bytes, at: int) -> SeriesKey:
    """The series of a field whose name stands at a place. LineError."""
    measurement, labels = parsed
    field = _name(name, at)
    code = measurement if field == "value" else f"{measurement}_{field}"
    try:
        return SeriesKey(check_code(code), labels)
    except InvalidInputError as error:
        raise LineError(error.message, at, error.code) from error


def _measurement_and_tags(key: bytes, at: int) -> tuple[str, dict[str, object]]:
    measurement = _MEASUREMENT.match(key)
    if measurement is None or not measurement.group():
        raise LineError("the measurement is missing.", at)
    tags: dict[str, object] = {}
    place = measurement.end()
    while place < len(key):
        tag = _TAG.match(key, place)
        if tag is None or not tag.group(1):
            raise LineError("a tag is written name=value.", at + place)
        name = _name(tag.group(1), at + place)
        if name in tags:
            raise LineError(f"the tag {excerpt(name)} comes twice.", at + place, "label-invalid")
        tags[name] = _name(tag.group(2), at + place)
        place = tag.end()
        if key[place : place + 1] not in _BEHIND_TAG:
            raise LineError("an = within a tag's value is written \\=.", at + place)
    return _name(measurement.group(), at), tags


def _number(token: bytes, at: int) -> float:
    """What a value that is no text stands for: a switch is 1 or 0, a time the number of its µs."""
    if _FLOAT.fullmatch(token):
        value = float(token)
        if value in {float("inf"), float("-inf")}:
            raise LineError(f"{_shown(token)} is larger than a float64.", at, "reading-invalid")
        return value
    integer = _INTEGER.fullmatch(token)
    if integer is not None:
        suffix = integer.group(2)
        value = _integer(integer.group(1), at, "reading-invalid")
        first, last = _RANGES[suffix]
        if not first <= value <= last:
            raise LineError(f"{_shown(token)} is no 64-bit integer.", at, "reading-invalid")
        return float(value // 1000 if suffix == b"n" else value)
    if token in _BOOLEANS:
        return _BOOLEANS[token]
    if not token:
        raise LineError("a field needs a value: name=value.", at)
    if _NO_NUMBER.fullmatch(token):
        raise LineError(f"{_shown(token)} is not finite.", at, "reading-invalid")
    raise LineError(f"{_shown(token)} is no value: texts stand in quotes.", at)


def _integer(digits: bytes, at: int, code: str) -> int:
    """Python refuses to read very long ones, and takes its time for long ones."""
    if len(digits) > _DIGITS_MAX:
        raise LineError(f"{_shown(digits)} has too many digits.", at, code)
    return int(digits)


def _name(raw: bytes, at: int) -> str:
    try:
        return (_ESCAPED.sub(rb"\1", raw) if b"\\" in raw else raw).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise LineError("the line is not UTF-8.", at, "not-utf-8") from exc


def _shown(raw: bytes) -> str:
    return excerpt(raw[:_SHOWN_BYTES].decode("utf-8", "replace"))
