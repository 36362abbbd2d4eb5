"""Readings out of plain data, one by one: says of each what is wrong with it, and keeps the rest.

What this file guarantees: whatever JSON came, each reading of it is either in the columns or in ``rejected``,
by its number in the request. It is the slow way (some µs a reading), taken where ``readings_json`` doubts.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any, Final

from meterite.model.check import check_code, check_labels
from meterite.model.columns import NO_TIME, SeriesKey
from meterite.model.errors import InvalidInputError
from meterite.model.time import excerpt, from_unit, parse_rfc3339
from meterite.wire.gather import Gathered, too_many
from meterite.wire.json_exact import NoNumber

if TYPE_CHECKING:
    from meterite.model.columns import Decoded

FIELDS: Final = ("metric", "reading", "reading_at", "labels")
_FIELDS: Final = frozenset(FIELDS)
_NUMBER: Final = re.compile(
    r"\s*+[+-]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+\s*+", re.ASCII
)  # possessive: what isn't a number takes no second try
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_NUMBER_CHARACTERS_MAX: Final = 400


def exact_reading(value: object) -> float:
    """A finite float64 of a JSON number or a numeric string."""
    if isinstance(value, str):
        if len(value) > _NUMBER_CHARACTERS_MAX or _NUMBER.fullmatch(value) is None:
            raise InvalidInputError(
                "reading-invalid", f"{excerpt(value)} is not a number.", place=("body", "reading")
            )
        value = float(value)
    elif isinstance(value, bool) or not isinstance(value, int | float | NoNumber):
        raise InvalidInputError("reading-invalid", "A reading must be a number.", place=("body", "reading"))
    try:
        number = math.inf if isinstance(value, NoNumber) else float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidInputError(
            "reading-invalid", "A reading must be a finite float64.", place=("body", "reading")
        )
    return number


def exact_time(value: object, precision: str | None) -> int:
    """µs since 1970; null is :data:`NO_TIME`."""
    place = ("body", "reading_at")
    if value is None:
        return NO_TIME
    if isinstance(value, str):
        return parse_rfc3339(value, place=place)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError(
            "time-invalid", "A time must be a string like 2026-01-31T12:00:00Z, or an integer.", place=place
        )
    if precision is None:
        raise InvalidInputError(
            "time-invalid", "For integer times say ?precision=s, ms, us or ns.", place=place
        )
    return from_unit(value, precision, asked=True)


def text_time(text: str, precision: str | None) -> int:
    """µs since 1970 of a time in a format of texts; an empty one is :data:`NO_TIME`."""
    if not text:
        return NO_TIME
    if _INTEGER.fullmatch(text) is None:
        return parse_rfc3339(text, place=("body", "reading_at"))
    return exact_time(int(text), precision)


def _check_fields(entry: dict[str, Any]) -> None:
    for name in entry:
        if name not in FIELDS:
            near = difflib.get_close_matches(name[:64], FIELDS, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else "a reading has " + ", ".join(FIELDS) + "."
            raise InvalidInputError(
                "unknown-field", f"There is no field {excerpt(name)}: {hint}", place=("body",)
            )
    for name in ("metric", "reading"):
        if name not in entry:
            raise InvalidInputError("missing-field", f"The field {name} is missing.", place=("body", name))


class ExactRows:
    """Gathers readings and rejections. ``count`` is the number of the next reading, ``where`` opens its reasons."""

    def __init__(self, precision: str | None, readings_max: int) -> None:
        self._precision = precision
        self._readings_max = readings_max
        self._written: dict[tuple[object, ...], SeriesKey] = {}
        self._gathered = Gathered(readings_max, unit=precision, unit_asked=True)
        self.count = 0
        self.where = ""

    def add(self, entry: object, *, columns: bool = True) -> None:
        """A row or, where they are allowed, columns."""
        readings = entry.get("reading") if isinstance(entry, dict) else None
        many = columns and isinstance(readings, list)
        count = len(readings) if many and isinstance(readings, list) else 1
        if self.count + count > self._readings_max:
            raise too_many(self._readings_max)
        try:
            if not isinstance(entry, dict):
                raise InvalidInputError("reading-invalid", "A reading must be a JSON object.")  # noqa: TRY301  # it becomes a rejection as all others do
            self._add_entry(entry, many)
        except InvalidInputError as exc:
            self._reject(exc, count)
        self.count += count

    def reject(self, code: str, reason: str) -> None:
        """The next reading is none."""
        self._gathered.reject(self.count, code, self.where + reason)
        self.count += 1

    def _reject(self, exc: InvalidInputError, count: int) -> None:
        reason = self.where + exc.message
        for row in range(self.count, self.count + count):
            self._gathered.reject(row, exc.code, reason)

    def _add_entry(self, entry: dict[str, Any], many: bool) -> None:
        if not entry.keys() <= _FIELDS or "metric" not in entry or "reading" not in entry:
            _check_fields(entry)
        key = self._key(entry["metric"], entry.get("labels"))
        if not many:
            at, value = exact_time(entry.get("reading_at"), self._precision), exact_reading(entry["reading"])
            self._gathered.add(key, at, value, self.count)
            return
        readings, times = entry["reading"], entry.get("reading_at")
        if times is None:
            times = [None] * len(readings)
        if not isinstance(times, list) or len(times) != len(readings):
            raise InvalidInputError(
                "lengths-differ", "The columns reading and reading_at must be arrays of one length."
            )
        for row, (value, time) in enumerate(zip(readings, times, strict=True), self.count):
            try:
                self._gathered.add(key, exact_time(time, self._precision), exact_reading(value), row)
            except InvalidInputError as exc:
                self._gathered.reject(row, exc.code, exc.message)

    def _key(self, metric: object, labels: object) -> SeriesKey:
        """Checked once for each way it is written."""
        if labels is not None and not isinstance(labels, dict):
            raise InvalidInputError("label-invalid", "Labels must be an object of strings.")
        written = (metric, *labels.items()) if labels else (metric,)
        try:
            return self._written[written]
        except (KeyError, TypeError):  # New, or holds what is no string and so can't be looked up.
            key = SeriesKey(
                check_code(metric, place=("body", "metric")), check_labels(labels) if labels else ()
            )
        self._written[written] = key
        return key

    def decoded(self) -> Decoded:
        return self._gathered.decoded()
