"""``POST /metric/{code}/readings``: plain numbers, as shells and cron jobs have them.

    line = reading [SP time]      42
                                  42.5 2026-01-31T12:00:00Z
                                  43 1769860800               with ?precision=s

What this file guarantees: the metric and the labels stand in the request's address, so a line is a number and, where it
has one, a time (RFC 3339 or, with ``?precision``, an integer); a line that isn't is rejected by its number, from 1.
Lines end with LF or CR LF; empty ones (of any white space) don't count, nor does a byte order mark, but a body without
any number is refused, since a job whose program said nothing is to hear of it. JSON is refused with the place that
takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meterite.model.errors import InvalidInputError, MalformedError
from meterite.model.time import from_unit
from meterite.wire.gather import Gathered, too_many
from meterite.wire.json_exact import BOM
from meterite.wire.mistaken import FORM_HINT, is_form
from meterite.wire.readings_exact import exact_reading, text_time

if TYPE_CHECKING:
    from meterite.model.columns import Decoded, Labels

_LINES_FREE: Final = 1000
_JSON_OPENS: Final = ("{", "[", '"')


def decode_plain(
    body: bytes, *, precision: str | None, readings_max: int, code: str, labels: Labels = ()
) -> Decoded:
    """The readings of one series."""
    if precision is not None:
        from_unit(0, precision)
    if body.count(b"\n") > 2 * readings_max + _LINES_FREE:  # empty lines cost time, too
        raise too_many(readings_max)
    gathered = Gathered(readings_max, counted="line", unit=precision, unit_asked=True)
    key = gathered.key(code, dict(labels))
    lines = _lines(body)
    if not lines:
        raise InvalidInputError("shape-invalid", "The body has no number: send one, as in curl -d 42.")
    for row, line in lines:
        reading, *time = line.split(None, 1)
        try:
            at_us = text_time(time[0] if time else "", precision)
            gathered.add(key, at_us, exact_reading(reading), row)
        except InvalidInputError as exc:
            gathered.reject(row, exc.code, exc.message)
    return gathered.decoded()


def _lines(body: bytes) -> list[tuple[int, str]]:
    """Those that aren't empty, with their numbers."""
    try:
        text = body.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as exc:
        line = body.count(b"\n", 0, exc.start) + 1
        raise MalformedError("not-utf-8", f"The body must be UTF-8; line {line} is not.") from exc
    stripped = ((row, line.strip()) for row, line in enumerate(text.split("\n"), 1))
    lines = [(row, line) for row, line in stripped if line]
    if is_form(body):
        raise InvalidInputError("shape-invalid", f"Plain numbers are taken here, such as 42. {FORM_HINT}")
    if lines and lines[0][1].startswith(_JSON_OPENS):
        raise InvalidInputError(
            "shape-invalid",
            "Plain numbers are taken here, such as 42: send JSON to /readings, or one reading to /metric/{code}.",
        )
    return lines
