"""Graphite's two formats: lines of text, and pickles.

    line   = path SP value [SP time] LF          servers.a.load 0.5 1769860800
    path   = name *(";" tag "=" value)           disk.used;host=a;mount=/ 42 1769860800
    pickle = [(path, (time, value)), …]

Specifications: graphite.readthedocs.io "Feeding In Your Data" and "Graphite Tag Support"; carbon's protocols.py.

What this file guarantees: the name is the metric's code and tags are its labels, as they are. A time is seconds since
1970, whole or not; -1 or none is now. A value that isn't a number (NaN) is skipped, as carbon does. Whatever else can't
be taken is rejected, by line or by number, and costs nothing beside it; of a pickle that can't be read, itself.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from meterite.model.columns import NO_TIME
from meterite.model.errors import InvalidInputError, MalformedError
from meterite.model.time import SECOND_US, check_seconds, excerpt
from meterite.wire.gather import Gathered
from meterite.wire.readings_exact import exact_reading
from meterite.wire.unpickle import unpickle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.model.columns import Decoded, SeriesKey

_SECONDS: Final = re.compile(r"([+-]?)([0-9]{1,15})(?:\.([0-9]{0,100}))?", re.ASCII)
_NOT_A_NUMBER: Final = frozenset({"nan", "+nan", "-nan"})
_NOT_A_NUMBER_CHARACTERS: Final = 4
_SHAPE: Final = "A pickle must be a list of (path, (time, value))."


def decode_graphite(body: bytes, *, readings_max: int) -> Decoded:
    """The readings of lines of text."""
    rows = _Points(Gathered(readings_max, counted="line", unit="s"))
    row = start = 0
    while start < len(body):
        row += 1
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        line = body[start:end].strip()
        start = end + 1
        if line:
            rows.line(row, line)
    return rows.gathered.decoded()


def decode_pickles(bodies: Sequence[bytes], *, readings_max: int) -> Decoded:
    """The readings of pickles one after the other, counted through."""
    rows = _Points(Gathered(readings_max, unit="s"))
    row = 0
    for body in bodies:
        try:
            points = _list_of(body)
        except (MalformedError, InvalidInputError) as exc:
            points = []
            rows.gathered.reject(row, exc.code, exc.message)
            row += 1
        for point in points:
            rows.point(row, point)
            row += 1
    return rows.gathered.decoded()


def _list_of(body: bytes) -> list[Any]:
    points = unpickle(body)
    if not isinstance(points, list | tuple):
        raise InvalidInputError("shape-invalid", _SHAPE)
    return list(points)


class _Points:
    """Gathers points; a path is looked at once, however often it comes: points of a pickle may share a long one."""

    def __init__(self, gathered: Gathered) -> None:
        self.gathered = gathered
        self._keys: dict[str, SeriesKey | InvalidInputError] = {}

    def line(self, row: int, line: bytes) -> None:
        try:
            path, value, *time = line.decode("utf-8").split()
        except UnicodeDecodeError:
            self.gathered.reject(row, "not-utf-8", "The line must be UTF-8.")
        except ValueError:
            self.gathered.reject(row, "line-invalid", "Write a path, a value and a time.")
        else:
            if len(time) > 1:
                self.gathered.reject(row, "line-invalid", "Write a path, a value and a time, and no more.")
            else:
                self._add(row, path, time[0] if time else "-1", value)

    def point(self, row: int, point: object) -> None:
        match point:
            case (str() as path, (time, value)):
                self._add(row, path, time, value)
            case _:
                self.gathered.reject(row, "shape-invalid", _SHAPE)

    def _add(self, row: int, path: str, time: object, value: object) -> None:
        if _is_nan(value):
            self.gathered.skip()
            return
        try:
            self.gathered.add(self._key(path), _at_us(time), exact_reading(value), row)
        except InvalidInputError as exc:
            self.gathered.reject(row, exc.code, exc.message)

    def _key(self, path: str) -> SeriesKey:
        key = self._keys.get(path)
        if key is None:
            try:
                code, *tags = path.split(";")
                key = self.gathered.key(code, tags_of(tags))
            except InvalidInputError as exc:
                key = exc
            self._keys[path] = key
        if isinstance(key, InvalidInputError):
            raise InvalidInputError(key.code, key.message)
        return key


def _is_nan(value: object) -> bool:
    """Of texts and floats; what else a pickle brings isn't looked into, since many points may share it."""
    if isinstance(value, str):
        return len(value) <= _NOT_A_NUMBER_CHARACTERS and value.lower() in _NOT_A_NUMBER
    return isinstance(value, float) and math.isnan(value)


def tags_of(tags: Sequence[str]) -> dict[str, object]:
    """Labels of texts like ``name=value``. InvalidInputError."""
    labels: dict[str, object] = {}
    for tag in tags:
        name, sign, value = tag.partition("=")
        if not sign:
            raise InvalidInputError("label-invalid", f"{excerpt(tag)} is no tag: write name=value.")
        if labels.setdefault(name, value) != value:
            raise InvalidInputError("label-invalid", f"The tag {excerpt(name)} has two values.")
    return labels


def _at_us(time: object) -> int:
    """µs since 1970 of seconds, floored. InvalidInputError."""
    if isinstance(time, str):
        match = _SECONDS.fullmatch(time)
        if match is not None:
            sign, whole, fraction = match.groups()
            us = int(whole) * SECOND_US + int((fraction or "")[:6].ljust(6, "0"))
            return _checked(-us if sign == "-" else us)
        time = _in_other_words(time)
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise InvalidInputError("time-invalid", "A time must be seconds since 1970.")
    exact_us = time * SECOND_US
    if isinstance(exact_us, float) and not math.isfinite(exact_us):
        raise InvalidInputError("time-invalid", "A time must be finite, in seconds since 1970.")
    return _checked(math.floor(exact_us))


def _in_other_words(text: str) -> float:
    """Such as 1.7e9."""
    try:
        return exact_reading(text)
    except InvalidInputError as exc:
        raise InvalidInputError("time-invalid", f"{excerpt(text)} is not seconds since 1970.") from exc


def _checked(us: int) -> int:
    return NO_TIME if us == -SECOND_US else check_seconds(us)
