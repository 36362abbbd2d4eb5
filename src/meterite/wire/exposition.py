r"""The text formats in which programs expose metrics: Prometheus' 0.0.4 and OpenMetrics 1.0.

https://prometheus.io/docs/instrumenting/exposition_formats/ (with UTF-8 names in quotes, as Prometheus 3 writes
them) and https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md

What this file guarantees: a line that can't be read costs itself alone and is rejected with its number and column; any
bytes give columns or an error of ours, in time linear in them. A sample's name is its code, its labels are its labels:
``_bucket``, ``_sum``, ``_count``, ``_created`` are series of their own codes, so ``TYPE`` decides nothing. ``HELP`` and
``UNIT`` describe. Exemplars are skipped and counted.

The two differ little, and a body says which it is: OpenMetrics ends with ``# EOF``. There times are seconds, with
fractions, a backslash before any other character stands for itself, and exemplars may follow; in 0.0.4 times are
whole milliseconds. Taken though neither writes it: blank lines, ``\r\n``, no line break at the end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from meterite.model.check import check_description, check_unit
from meterite.model.columns import NO_TIME
from meterite.model.errors import InvalidInputError, MalformedError
from meterite.model.time import AT_FIRST_US, AT_LAST_US, check_range, check_seconds, excerpt
from meterite.wire.gather import Gathered, too_many
from meterite.wire.names import Names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meterite.model.columns import Decoded, SeriesKey
    from meterite.wire.names import Known

INVALID: Final = "exposition-invalid"
OPENMETRICS: Final = "application/openmetrics-text"

_LINES_FREE: Final = 1_000_000
_MS_US: Final = 1000
_EOF: Final = "# EOF"
_QUOTED: Final = r'"((?:[^"\\]++|\\.)*+)"'
_BLANK: Final = r"[ \t]*+"
_SERIES: Final = re.compile(rf"{_BLANK}([a-zA-Z_:][a-zA-Z0-9_:]*+)?{_BLANK}(\{{)?{_BLANK}")
_NAME_WITHIN: Final = re.compile(rf"{_QUOTED}{_BLANK}(,|(?=\}})){_BLANK}")
_LABEL: Final = re.compile(
    rf"(?:([a-zA-Z_][a-zA-Z0-9_]*+)|{_QUOTED}){_BLANK}={_BLANK}{_QUOTED}{_BLANK}(,|(?=\}})){_BLANK}"
)
_COMMENT: Final = re.compile(
    rf"{_BLANK}#{_BLANK}(HELP|UNIT)[ \t]++(?:([a-zA-Z_:][a-zA-Z0-9_:]*+)|{_QUOTED})(?:[ \t]++(.*+))?"
)
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n", '"': '"', "\\": "\\"}
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,19}")
_SECONDS: Final = re.compile(r"([+-]?)([0-9]{1,15})(?:\.([0-9]{0,100}))?")
_SUFFIX: Final = re.compile(r"(.+)_(?:bucket|sum|count|total|created|info|gsum|gcount)")
_IN_UNIT: Final = re.compile(r".+_(?:sum|total|gsum)")


class _UnreadableError(Exception):
    """A line that isn't what the format says. ``place`` counts its characters from 0."""

    def __init__(self, place: int, what: str) -> None:
        super().__init__(what)
        self.place = place
        self.what = what


def is_openmetrics(body: bytes, content_type: str = "") -> bool:
    """By its end, which 0.0.4 would take for a comment; or by what it is called."""
    return content_type == OPENMETRICS or body[-16:].rstrip().endswith(_EOF.encode())


def decode_exposition(
    body: bytes,
    *,
    readings_max: int,
    openmetrics: bool = False,
    labels: Mapping[str, str] | None = None,
    at_us: int = NO_TIME,
    names: Names | None = None,
) -> Decoded:
    """``labels`` stand above the body's own, an empty one takes one away; ``at_us`` is the time where none is said.

    ``names`` are what earlier requests left.
    """
    bound = 2 * max(readings_max, _LINES_FREE)
    if len(body) > bound and body.count(b"\n") > bound:
        raise too_many(readings_max)
    lines = _text(body).split("\n")
    if openmetrics:
        lines = _without_end(lines)
    known = (names or Names()).known()
    reader = _Reader(readings_max, known, openmetrics=openmetrics, labels=labels or {}, at_us=at_us)
    reader.read(lines)
    return reader.decoded()


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = body.count(b"\n", 0, exc.start) + 1
        raise MalformedError("not-utf-8", f"Line {line} is not UTF-8.") from exc


def _without_end(lines: list[str]) -> list[str]:
    """Those before ``# EOF``, which tells that the body wasn't cut short."""
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or lines[-1].rstrip() != _EOF:
        raise MalformedError(
            INVALID, f"Line {len(lines) + 1}: OpenMetrics ends with # EOF; the body is cut short."
        )
    lines.pop()
    return lines


class _Reader:
    """Series that were met are known by the text they were written in, up to its } or blank.

    A line that goes on otherwise than with a value and a time is read as if its series weren't known.
    """

    def __init__(
        self, readings_max: int, known: Known, *, openmetrics: bool, labels: Mapping[str, str], at_us: int
    ) -> None:
        self._gathered = Gathered(readings_max, counted="line", unit="s" if openmetrics else "ms")
        self._openmetrics = openmetrics
        self._labels = labels
        self._at_us = at_us
        self._known = known
        meaning = ("exposition", openmetrics, tuple(labels.items()))
        self._bare, self._braced = (*meaning, " "), (*meaning, "}")
        self._families: dict[str, list[str]] = {}

    def read(self, lines: Iterable[str]) -> None:
        bare, braced = self._known.within(self._bare).get, self._known.within(self._braced).get
        time_us, default_us = self._time_us, self._at_us
        keys: list[SeriesKey] = []
        at_us: list[int] = []
        values: list[float] = []
        rows: list[int] = []
        for number, line in enumerate(lines, 1):
            head, end, tail = line.rpartition("}")
            if end:
                key = braced(head)
            else:
                head, _, tail = line.partition(" ")
                key = bare(head)
            parts = tail.split()
            try:
                if key is None or not 0 < len(parts) < 3 or "_" in tail or not tail.isascii():
                    found = self._exactly(line)
                    if found is None:
                        continue
                    key, parts = found
                value = float(parts[0])
                time = default_us if len(parts) == 1 else time_us(parts[1])
            except (_UnreadableError, InvalidInputError, ValueError) as exc:
                self._reject(number, line, exc)
                continue
            keys.append(key)
            at_us.append(time)
            values.append(value)
            rows.append(number)
        self._gathered.add_each(keys, at_us, values, rows)

    def decoded(self) -> Decoded:
        self._describe()
        return self._gathered.decoded()

    def _reject(self, number: int, line: str, exc: Exception) -> None:
        if isinstance(exc, InvalidInputError):
            self._gathered.reject(number, exc.code, exc.message)
        elif isinstance(exc, _UnreadableError):
            self._gathered.reject(number, INVALID, f"Column {exc.place + 1}: {exc.what}.")
        else:
            self._gathered.reject(number, INVALID, f"The value is not a number: {excerpt(line[-60:])}.")

    def _exactly(self, line: str) -> tuple[SeriesKey, list[str]] | None:
        """A series' key, and the value and perhaps the time behind it. None where the line has no sample."""
        start = line.lstrip(" \t\r")[:1]
        if not start:
            return None
        if start == "#":
            self._comment(line)
            return None
        code, labels, end = _series(line, openmetrics=self._openmetrics)
        key = self._gathered.key(code, {**labels, **self._labels})
        tail = line[end:]
        if line[end - 1] == "}":
            key = self._known.keep(self._braced, line[: end - 1], key)
        elif tail.startswith(" "):
            key = self._known.keep(self._bare, line[:end], key)
        elif tail.startswith("\t"):
            key = self._known.one(key)
        else:
            raise _UnreadableError(end, "a name has letters, digits, _ and :, or quotes and braces around it")
        if self._openmetrics and "#" in tail:
            tail = self._without_exemplar(line, end)
        parts = tail.split()
        if not 0 < len(parts) < 3 or "_" in tail or not tail.isascii():
            place = len(line) - len(tail.lstrip(" \t"))
            raise _UnreadableError(place, "a value must stand here, and perhaps a time behind it")
        return key, parts

    def _without_exemplar(self, line: str, end: int) -> str:
        sign = line.index("#", end)
        head = _SERIES.match(line, sign + 1)
        if head is None or head[1] or not head[2]:
            raise _UnreadableError(sign + 1, "an exemplar begins with its labels")
        _, after = _labels(line, head.end(), openmetrics=True)
        parts = line[after:].split()
        if len(parts) not in {1, 2} or not all(part.isascii() and "_" not in part for part in parts):
            raise _UnreadableError(after, "an exemplar has a value, and perhaps a time")
        for part in parts:
            float(part)
        self._gathered.skip()
        return line[end:sign].ljust(len(line) - end)  # as long, so that places in it are places in the line

    def _time_us(self, text: str) -> int:
        if self._openmetrics:
            return seconds_us(text)
        if _WHOLE.fullmatch(text) is None:
            raise InvalidInputError("time-invalid", f"{excerpt(text)} is not a time in whole milliseconds.")
        at_us = int(text) * _MS_US
        return at_us if AT_FIRST_US <= at_us <= AT_LAST_US else check_range(at_us)

    # What describes

    def _comment(self, line: str) -> None:
        match = _COMMENT.match(line)
        if match is None:
            return
        what, name, quoted, text = match.groups()
        name = _unescape(quoted, 0, openmetrics=True) if name is None else name
        said = self._families.setdefault(name, ["", ""])
        place = 0 if what == "UNIT" else 1
        said[place] = said[place] or _unescape((text or "").rstrip("\r"), 0, openmetrics=True)

    def _describe(self) -> None:
        """A family's words are its samples'; of counts the unit is none."""
        if not self._families:
            return
        for code in self._gathered.codes():
            suffix = _SUFFIX.fullmatch(code)
            family = code if code in self._families or suffix is None else suffix[1]
            said = self._families.get(family)
            if said is None:
                continue
            in_unit = family == code or _IN_UNIT.fullmatch(code) is not None
            describe(self._gathered, code, unit=said[0] if in_unit else "", description=said[1])


def describe(gathered: Gathered, code: str, *, unit: str, description: str) -> None:
    """What can't be kept as it is tells nothing: no reading is lost for it."""
    try:
        check_unit(unit)
        check_description(description)
    except InvalidInputError:
        return
    if unit or description:
        gathered.describe(code, unit=unit, description=description)


def _series(line: str, *, openmetrics: bool) -> tuple[str, dict[str, str], int]:
    """Name, labels, and where they end."""
    head = _SERIES.match(line)
    assert head is not None, "all of it may be empty"
    code, brace = head.groups()
    if brace is None:
        if code is None:
            raise _UnreadableError(head.end(), "a name must stand here")
        return code, {}, head.end(1)
    at = head.end()
    if code is None:
        name = _NAME_WITHIN.match(line, at)
        if name is None:
            raise _UnreadableError(at, "a name in quotes must stand here")
        code = _unescape(name[1], name.start(1), openmetrics=openmetrics)
        at = name.end()
    labels, end = _labels(line, at, openmetrics=openmetrics)
    return code, labels, end


def _labels(line: str, at: int, *, openmetrics: bool) -> tuple[dict[str, str], int]:
    """From behind the brace to behind the one that closes it."""
    labels: dict[str, str] = {}
    while not line.startswith("}", at):
        match = _LABEL.match(line, at)
        if match is None:
            raise _UnreadableError(at, 'a label must stand here, as name="value", and } behind the last')
        name, quoted, value, _ = match.groups()
        if name is None:
            name = _unescape(quoted, match.start(2), openmetrics=openmetrics)
        if name in labels or name == "__name__":
            raise _UnreadableError(at, f"the label {excerpt(name)} can't stand here, or not twice")
        labels[name] = _unescape(value, match.start(3), openmetrics=openmetrics)
        at = match.end()
    return labels, at + 1


def _unescape(text: str, start: int, *, openmetrics: bool) -> str:
    if "\\" not in text:
        return text
    if not openmetrics:
        for match in _ESCAPE.finditer(text):
            if match[1] not in _ESCAPES:
                raise _UnreadableError(start + match.start(), f"{excerpt(match[0])} is no escape")
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[0]), text)


def seconds_us(text: str) -> int:
    """Digits below the microsecond are floored away."""
    match = _SECONDS.fullmatch(text)
    if match is None:
        return _real_seconds_us(text)
    sign, whole, fraction = match.groups(default="")
    digits = fraction[:6].ljust(6, "0")
    at_us = int(whole) * 1_000_000 + int(digits)
    if sign == "-":
        at_us = -at_us - bool(fraction[6:].strip("0"))
    return check_seconds(at_us)


def _real_seconds_us(text: str) -> int:
    """Written with an exponent."""
    try:
        return check_seconds(int(float(text) * 1e6))
    except (ValueError, OverflowError) as exc:
        raise InvalidInputError("time-invalid", f"{excerpt(text)} is not a time in seconds.") from exc
