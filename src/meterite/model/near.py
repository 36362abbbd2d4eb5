"""Which known name was meant: the hint in a refusal, and the difference between a slip and somebody's own field.

What this file guarantees: an answer in bounded time whatever is asked, since names are cut before they are compared;
asked again, it costs a look-up.
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from typing import Final

CHARACTERS_COMPARED: Final = 64
SLIP: Final = 0.82
"""So alike are ``on_conflct`` and ``on_conflict``, but not ``code`` and ``mode``."""
HINT: Final = 0.5
"""Enough to ask whether it was meant, where it is refused anyway."""


def near(name: str, known: tuple[str, ...], cutoff: float) -> str | None:
    """The name among ``known`` that is most like ``name``, whatever its case and dashes."""
    return _near(name[:CHARACTERS_COMPARED], known, cutoff)


@lru_cache(maxsize=1024)
def _near(name: str, known: tuple[str, ...], cutoff: float) -> str | None:
    found = difflib.get_close_matches(name.lower().replace("-", "_"), known, 1, cutoff)
    return found[0] if found else None
