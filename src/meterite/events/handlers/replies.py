"""What a receiver's answer means for a delivery: pure.

2xx: delivered. 408, 425, 429 and 5xx: later, as the receiver says in ``Retry-After`` (RFC 9110 section 10.2.3, both
forms). All else never: redirects aren't followed, and a 4xx says that the request itself is at fault.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from meterite.events.handler import Refused, Retry

RETRY_AFTER_S_MAX: Final = 3600.0
"""A receiver can't put off a delivery for longer: it may have meant another client, or another year."""
LATER: Final = frozenset({408, 425, 429})
_SECONDS: Final = re.compile(r"[0-9]+")
_DIGITS_MAX: Final = 9


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    retry_after: str | None = None
    body: bytes = b""
    """What was read of it: the beginning, at most."""


def settle(reply: Reply, now_s: float) -> None:
    """Returns where it is delivered, raises Retry or Refused where it isn't. ``now_s`` is seconds since 1970."""
    status = reply.status
    if 200 <= status < 300:
        return
    if status in LATER or status >= 500:
        raise Retry(f"answered {describe(status)}", after_s=parse_retry_after(reply.retry_after, now_s))
    if 300 <= status < 400:
        raise Refused(f"answered {describe(status)}; redirects aren't followed, set url to where it leads")
    raise Refused(f"answered {describe(status)}")


def describe(status: int) -> str:
    """The number with its own name; what the receiver wrote beside it is not repeated."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def parse_retry_after(text: str | None, now_s: float) -> float | None:
    """Seconds from now on, 0 to RETRY_AFTER_S_MAX; None where there is nothing that could be understood."""
    text = (text or "").strip()
    if _SECONDS.fullmatch(text):
        return RETRY_AFTER_S_MAX if len(text) > _DIGITS_MAX else min(float(text), RETRY_AFTER_S_MAX)
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:  # asctime's form has no zone, and is in GMT
            date = date.replace(tzinfo=UTC)
        return min(max(date.timestamp() - now_s, 0.0), RETRY_AFTER_S_MAX)
    except (ValueError, OverflowError):
        return None
