"""Durations as users write them: a number with ``us ms s m h d w``."""

from __future__ import annotations

import re
from typing import Final

from meterite.model.errors import InvalidInputError
from meterite.model.time import UNITS_US, WEEK_US, Place, excerpt

DURATION_LAST_US: Final = 5300 * WEEK_US
"""About a hundred years."""
_DURATION: Final = re.compile(r"([0-9]{1,18})(us|ms|s|m|h|d|w)")


def parse_duration(text: object, *, place: Place) -> int:
    """µs, from 0 to a hundred years. InvalidInputError ``duration-invalid``."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        shown = excerpt(text) if isinstance(text, str) else type(text).__name__
        raise InvalidInputError(
            "duration-invalid", f"Write a duration like 30s, 5m or 1h, not {shown}.", place=place
        )
    length_us = int(match[1]) * UNITS_US[match[2]]
    if length_us > DURATION_LAST_US:
        raise InvalidInputError("duration-invalid", "A duration is a hundred years at most.", place=place)
    return length_us
