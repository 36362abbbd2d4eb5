"""What happened, told to people and programs: CloudEvents, with ids that sort as the events happened.

What this file guarantees: an event's id is a UUIDv7 (RFC 9562 section 5.7) made from where the event lies in the
store and when it was committed, so the same event has the same id for ever, on every worker and in every try, and
looking one up needs no index. An :class:`Event` has the attributes of CloudEvents 1.0 and never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping

SPEC_VERSION: Final = "1.0"
ORDINAL_BITS: Final = 16
"""Of an event within its row; a row has 65,536 at most."""
ROW_BITS: Final = 56
"""Of a row's id: ``seq << 16 | number in the commit``, 40 bits of seq."""
_VERSION: Final = 7
_VARIANT: Final = 2
_LOW_BITS: Final = 62
_SPARE_BITS: Final = 2
_MS_LAST: Final = (1 << 48) - 1


class EventType(StrEnum):
    """What an event may be. New ones may come; none ever changes its meaning."""

    ABOVE_MAX = "meterite.reading.above_max"
    BELOW_MIN = "meterite.reading.below_min"
    CLEARED = "meterite.limits.cleared"
    SILENT = "meterite.metric.silent"
    RESUMED = "meterite.metric.resumed"
    CHANGED = "meterite.metric.changed"
    DEAD = "meterite.delivery.dead"


TYPE_BITS: Final[dict[str, int]] = {
    EventType.ABOVE_MAX: 1,
    EventType.BELOW_MIN: 2,
    EventType.CLEARED: 4,
    EventType.SILENT: 8,
    EventType.RESUMED: 16,
    EventType.CHANGED: 32,
    EventType.DEAD: 64,
}
"""Kept in the file: an event row's ``types`` is the sum over its events."""


@dataclass(frozen=True, slots=True)
class EventPlace:
    """Where an event lies: its row's id, and its ordinal in the row."""

    row: int
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """CloudEvents 1.0 attributes, and the org. ``time`` is RFC 3339: when it was committed.

    ``data`` is plain JSON; its schema is in ``docs/events/`` by type.
    """

    id: str
    type: str
    source: str
    subject: str
    time: str
    org: str
    data: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The event in CloudEvents' JSON format (structured mode). ``org`` is an extension attribute."""
        return {
            "specversion": SPEC_VERSION,
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "subject": self.subject,
            "time": self.time,
            "org": self.org,
            "datacontenttype": "application/json",
            "data": self.data,
        }


def event_id(recorded_at_us: int, place: EventPlace) -> str:
    """48 bits of ms since 1970, then 56 of the row's id and 16 of the ordinal, around version and variant."""
    ms = min(max(recorded_at_us // 1000, 0), _MS_LAST)
    tail = (place.row << ORDINAL_BITS | place.ordinal) << _SPARE_BITS
    high, low = tail >> _LOW_BITS, tail & (1 << _LOW_BITS) - 1
    return str(UUID(int=ms << 80 | _VERSION << 76 | high << 64 | _VARIANT << 62 | low))


def parse_event_id(text: str) -> tuple[int, EventPlace] | None:
    """The ms and the place of an id that :func:`event_id` made; None for any other text."""
    try:
        number = UUID(text).int
    except ValueError:
        return None
    if number >> 76 & 0xF != _VERSION or number >> 62 & 0b11 != _VARIANT:
        return None
    tail = (number >> 64 & 0xFFF) << _LOW_BITS | number & (1 << _LOW_BITS) - 1
    if tail & (1 << _SPARE_BITS) - 1:
        return None
    tail >>= _SPARE_BITS
    return number >> 80, EventPlace(tail >> ORDINAL_BITS, tail & (1 << ORDINAL_BITS) - 1)
