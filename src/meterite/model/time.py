"""Times: µs since 1970 UTC as an int inside, RFC 3339 outside.

What this file guarantees: every time it lets in lies within :data:`AT_FIRST_US` … :data:`AT_LAST_US` (what
int64 nanoseconds can hold, so that ns and µs are both safe), is floored to the microsecond, and comes out of
:func:`format_rfc3339` as the same text whoever formats it. A whole array costs no Python step per element.

Grammar: RFC 3339 section 5.6, and beside it what clients send: no offset is UTC, a space for the ``T``, no
seconds, a date alone, an offset without its colon. A leap second is refused: µs since 1970 can't name it.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, overload

import numpy as np

from meterite.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
WEEK_US: Final = 7 * DAY_US

UNITS_US: Final = {
    "us": 1,
    "ms": 1000,
    "s": SECOND_US,
    "m": MINUTE_US,
    "h": HOUR_US,
    "d": DAY_US,
    "w": WEEK_US,
}
"""The units of durations in queries."""

AT_FIRST_US: Final = (date(1677, 9, 22).toordinal() - date(1970, 1, 1).toordinal()) * DAY_US
AT_LAST_US: Final = (2**63 - 1) // 1000
"""2262-04-11T23:47:16.854775Z."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Place = tuple[str | int, ...]

_ORDINAL_1970: Final = date(1970, 1, 1).toordinal()
_RFC3339: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?)?"
)
_EPOCH_SECONDS: Final = re.compile(r"([+-]?)([0-9]{1,15})(?:\.([0-9]{1,100}))?")
_RELATIVE: Final = re.compile(r"(?:now)?(?:([+ -])([0-9]{1,18})(us|ms|s|m|h|d|w))|now")
_LOST_PLUS: Final = re.compile(r"(:[0-9]{2}(?:\.[0-9]+)?) ([0-9]{2}:?[0-9]{2})\Z")
_PRECISION: Final = {"s": (SECOND_US, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}


def excerpt(text: str) -> str:
    """What came from outside, escaped and short enough to repeat in an error."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _invalid(text: str, place: Place, why: str = "") -> InvalidInputError:
    hint = why or "write it as 2026-01-31T12:00:00Z"
    return InvalidInputError("time-invalid", f"{excerpt(text)} is not a time: {hint}.", place=place)


def check_range(us: int, *, place: Place = ("body",)) -> int:
    """The time itself, where it lies within what can be kept."""
    if AT_FIRST_US <= us <= AT_LAST_US:
        return us
    raise InvalidInputError(
        "time-out-of-range", "A time must lie between 1677-09-22 and 2262-04-11T23:47:16Z.", place=place
    )


def parse_rfc3339(text: str, *, place: Place = ("body",)) -> int:
    """µs since 1970 UTC of an RFC 3339 time; digits below the microsecond are floored away."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise _invalid(text, place)
    year, month, day, hour, minute, second, fraction, sign, off_hour, off_minute = match.groups()
    clock = (int(hour or 0), int(minute or 0), int(second or 0))
    offset = (int(off_hour or 0), int(off_minute or 0))
    if clock[2] == 60:
        raise _invalid(text, place, "a leap second can't be recorded, use second 59")
    if clock[0] > 23 or clock[1] > 59 or clock[2] > 59 or offset[0] > 23 or offset[1] > 59:
        raise _invalid(text, place, "hours go to 23, minutes and seconds to 59")
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _ORDINAL_1970
    except ValueError as exc:
        raise _invalid(text, place, "there is no such date") from exc
    us = days * DAY_US + clock[0] * HOUR_US + clock[1] * MINUTE_US + clock[2] * SECOND_US
    # The fraction counts forward from the second, before 1970 too: cutting its digits is flooring.
    us += int((fraction or "0")[:6].ljust(6, "0"))
    shift = offset[0] * HOUR_US + offset[1] * MINUTE_US
    return check_range(us + shift if sign == "-" else us - shift, place=place)


def format_rfc3339(us: int) -> str:
    """``2026-01-01T00:00:00Z``, with six digits of fraction where it is not zero."""
    return (EPOCH + timedelta(microseconds=us)).isoformat()[:-6] + "Z"


# ----------------------------------------------------------------------------------------------------
# Many at once: texts become a matrix of bytes, a row each, and digits are computed column by column.

_PAIRS: Final = np.array([divmod(n, 10) for n in range(100)], np.uint8) + np.uint8(ord("0"))
_ROW: Final = np.frombuffer(b"0000-00-00T00:00:00.000000Z\n", np.uint8)
_DATES_SPAN: Final = 4096


def _date_texts(days: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Each day's ``YYYY-MM-DD`` as ten bytes; each distinct day is formatted once."""
    first, last = int(days.min()), int(days.max())
    if last - first < _DATES_SPAN:
        distinct, which = np.arange(first, last + 1), days - first
    else:
        distinct, which = np.unique(days, return_inverse=True)
    texts = np.datetime_as_string(distinct.astype("M8[D]")).astype("S10")
    rows: NDArray[np.uint8] = texts.view(np.uint8).reshape(-1, 10)[which]
    return rows


def format_many(us: NDArray[np.int64]) -> list[str]:
    """:func:`format_rfc3339` of each."""
    if not len(us):
        return []
    days = us // DAY_US
    micros = us - days * DAY_US
    seconds = (micros // SECOND_US).astype(np.int32)
    fraction = (micros - seconds.astype(np.int64) * SECOND_US).astype(np.int32)
    rows = np.empty((len(us), len(_ROW)), np.uint8)
    rows[:] = _ROW
    rows[:, :10] = _date_texts(days)
    rows[:, 11:13] = _PAIRS[seconds // 3600]
    rows[:, 14:16] = _PAIRS[seconds // 60 % 60]
    rows[:, 17:19] = _PAIRS[seconds % 60]
    whole = fraction == 0
    if whole.all():
        flat = np.delete(rows, np.s_[19:26], axis=1).tobytes()
    else:
        rows[:, 20:22] = _PAIRS[fraction // 10_000]
        rows[:, 22:24] = _PAIRS[fraction // 100 % 100]
        rows[:, 24:26] = _PAIRS[fraction % 100]
        flat = rows.tobytes() if not whole.any() else _without_fractions(rows, whole)
    return flat[:-1].decode("ascii").split("\n")


def _without_fractions(rows: NDArray[np.uint8], whole: NDArray[np.bool_]) -> bytes:
    keep = np.ones(rows.shape, np.bool_)
    keep[whole, 19:26] = False
    return rows[keep].tobytes()


def parse_many(texts: Sequence[str]) -> NDArray[np.int64]:
    """:func:`parse_rfc3339` of each; an error's ``place`` is the number of the first text that is wrong."""
    out = np.empty(len(texts), np.int64)
    if not len(texts):
        return out
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    slow = [np.empty(0, np.intp)]
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        some = texts if len(rows) == len(texts) else [texts[i] for i in rows.tolist()]
        good, us = _parse_alike(some, length)
        out[rows[good]] = us[good]
        slow.append(rows[~good])
    for row in np.sort(np.concatenate(slow)).tolist():
        out[row] = parse_rfc3339(texts[row], place=(row,))
    return out


def _parse_alike(texts: Sequence[str], length: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Texts of one length, read as the first is laid out: which of them are so, and their times.

    What is not marked good here may be good all the same: the slow way decides, and words the error.
    """
    none = np.zeros(len(texts), np.bool_), np.zeros(len(texts), np.int64)
    joined = "".join(texts)
    layout = _RFC3339.fullmatch(texts[0])
    if length > 40 or layout is None or layout.group(6) is None or not joined.isascii():
        return none
    rows = np.frombuffer(joined.encode("ascii"), np.uint8).reshape(-1, length)
    digit = np.frombuffer(texts[0].encode("ascii"), np.uint8) - np.uint8(ord("0")) <= 9
    values = (rows - np.uint8(ord("0"))).T
    good: NDArray[np.bool_] = (values[digit] <= 9).all(axis=0) & (rows[:, ~digit] == rows[0, ~digit]).all(
        axis=1
    )

    def number(group: int) -> NDArray[np.int64]:
        start, end = layout.span(group)
        total = np.zeros(len(texts), np.int64)
        for column in values[start:end]:
            total = total * 10 + column
        return total

    year, month, day, hour, minute, second = map(number, range(1, 7))
    good &= (year > 1677) & (year < 2262) & (month - 1 < 12) & (month > 0) & (day > 0)
    good &= (hour < 24) & (minute < 60) & (second < 60)
    days, days_in_month = _days_since_1970(year, np.where(good, month, 1))
    good &= day <= days_in_month
    us = ((days + day - 1) * 24 + hour) * 60 + minute
    us = (us * 60 + second) * SECOND_US + _fraction(values, layout)
    if layout.group(8):
        off_hour, off_minute = number(9), number(10)
        good &= (off_hour < 24) & (off_minute < 60)
        us += (off_hour * 60 + off_minute) * (MINUTE_US if layout.group(8) == "-" else -MINUTE_US)
    return good, us


def _fraction(values: NDArray[np.uint8], layout: re.Match[str]) -> NDArray[np.int64]:
    start, end = layout.span(7)
    total = np.zeros(values.shape[1], np.int64)
    for column, weight in zip(values[start:end], (100_000, 10_000, 1000, 100, 10, 1), strict=False):
        total += column.astype(np.int64) * weight
    return total


def _days_since_1970(
    year: NDArray[np.int64], month: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The day on which each month begins, and how many days it has."""
    months = (year - 1970) * 12 + month - 1
    begins = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    ends = (months + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    return begins, ends - begins


# ----------------------------------------------------------------------------------------------------
# Other ways to say when.


def parse_bound(text: str, now_us: int, *, place: Place = ("query",)) -> int:
    """``start`` and ``end`` of a query: RFC 3339, epoch seconds (``1767225600.5``), ``now``, ``-1d``,
    ``now-1h``.

    A ``+`` that was not percent-encoded arrives as a space, and is taken for what it was.
    """
    relative = _RELATIVE.fullmatch(text)
    if relative is not None:
        sign, count, unit = relative.groups()
        shift = int(count) * UNITS_US[unit] if unit else 0
        return check_range(now_us - shift if sign == "-" else now_us + shift, place=place)
    seconds = _EPOCH_SECONDS.fullmatch(text)
    if seconds is not None:
        sign, whole, fraction = seconds.groups()
        fraction = (fraction or "").ljust(6, "0")
        us = int(whole + fraction[:6])
        if sign == "-":
            us = -us - (1 if fraction[6:].strip("0") else 0)
        return check_range(us, place=place)
    try:
        return parse_rfc3339(_LOST_PLUS.sub(r"\1+\2", text), place=place)
    except InvalidInputError as exc:
        if exc.code != "time-invalid":
            raise
        hint = "write 2026-01-31T12:00:00Z, seconds since 1970, now or -1d (us ms s m h d w)"
        raise _invalid(text, place, hint) from exc


@overload
def from_unit(time: int, precision: str, *, asked: bool = ...) -> int: ...
@overload
def from_unit(time: NDArray[np.integer], precision: str, *, asked: bool = ...) -> NDArray[np.int64]: ...
def from_unit(
    time: int | NDArray[np.integer], precision: str, *, asked: bool = False
) -> int | NDArray[np.int64]:
    """Integers since 1970 in ``s``, ``ms``, ``us`` or ``ns`` (floored). An array's error names the row as
    place. ``asked``: the door has a parameter ``precision``.
    """
    if precision not in _PRECISION:
        raise InvalidInputError(
            "precision-invalid",
            f"{excerpt(precision)} is not a precision: use s, ms, us or ns.",
            place=("query", "precision"),
        )
    times, per = _PRECISION[precision]
    if isinstance(time, int):
        return _check_unit(time * times // per, time, precision, asked=asked)
    # Compared in the unit it came in, so that nothing overflows before it is refused.
    outside = (time < -(-AT_FIRST_US * per // times)) | (time > ((AT_LAST_US + 1) * per - 1) // times)
    if outside.any():
        row = int(np.argmax(outside))
        _check_unit(AT_LAST_US + 1, int(time[row]), precision, place=(row,), asked=asked)
    scaled = time.astype(np.int64)
    return scaled // per if per > 1 else scaled * times


# What integers look like: from 2000 to 2100 their sizes tell the units apart, with room between.
_LOOK_FIRST: Final = 946_684_800
_LOOK_LAST: Final = 4_102_444_800
_PER_SECOND: Final = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}


def looks_like(time: int) -> str | None:
    """The unit in which an integer is a time of this century, or None."""
    for unit, per_second in _PER_SECOND.items():
        if _LOOK_FIRST * per_second <= time < _LOOK_LAST * per_second:
            return unit
    return None


_UNIT_WORDS: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def mistaken_unit(unit: str, other: str, *, asked: bool, place: Place = ("body",)) -> InvalidInputError:
    """For a time that is labelled with one unit and is of this century in another. ``asked``: see :func:`from_unit`."""
    advice = f", or add ?precision={other}" if asked else ""
    return InvalidInputError(
        "time-unit",
        f"The time is said to be in {unit} and looks like {other}: send {_UNIT_WORDS[unit]}{advice}.",
        place=place,
    )


def _check_unit(us: int, time: int, precision: str, *, place: Place = ("body",), asked: bool = False) -> int:
    """:func:`check_range`, and what the integer looks like where it is out of it."""
    if AT_FIRST_US <= us <= AT_LAST_US:
        return us
    other = looks_like(time)
    if other is not None and other != precision:
        raise mistaken_unit(precision, other, asked=asked, place=place)
    return check_range(us, place=place)


def check_seconds(us: int, *, place: Place = ("body",)) -> int:
    """:func:`check_range` of a time that came in seconds, and what it looks like where it is out of it."""
    return _check_unit(us, us // SECOND_US, "s", place=place)


def wrong_units(at_us: NDArray[np.int64], unit: str) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Which times, given as integers of ``unit``, are of this century in a larger one; by that unit.

    In a smaller one they were out of range, and refused where they were read.
    """
    if int(at_us.min()) >= _LOOK_LAST * 1000:
        return
    for other, per_second in _PER_SECOND.items():
        if per_second >= _PER_SECOND[unit]:
            return
        first, last = (
            look * per_second * SECOND_US // _PER_SECOND[unit] for look in (_LOOK_FIRST, _LOOK_LAST)
        )
        rows = (at_us >= first) & (at_us < last)
        if rows.any():
            yield other, rows
