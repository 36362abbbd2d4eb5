"""Which media type a client gets (RFC 9110, section 12.5.1).

What this file guarantees: one of what is offered, whatever the header says; where nothing fits or all fit
alike, the first. A client that asks for what there isn't gets an answer it can read about, not a 406.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

RANGES_MAX: Final = 32


def choose(accept: str | None, offered: Sequence[str]) -> str:
    """The offered type with the highest quality; the most specific range decides the quality."""
    if not accept:
        return offered[0]
    ranges = [_parse(part) for part in accept.split(",", RANGES_MAX)[:RANGES_MAX]]
    return max(offered, key=lambda media: (_quality(media, ranges), -offered.index(media)))


def _parse(part: str) -> tuple[str, float]:
    media, *parameters = (text.strip().lower() for text in part.split(";"))
    quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        return media, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return media, 0.0


def _quality(media: str, ranges: list[tuple[str, float]]) -> float:
    kind = media.partition("/")[0]
    for pattern in (media, f"{kind}/*", "*/*"):
        found = [quality for name, quality in ranges if name == pattern]
        if found:
            return max(found)
    return 0.0
