"""Which known name was meant: the hint in a refusal, and the difference between a slip and somebody's own field.

What this file guarantees: an answer in bounded time whatever is asked, since names are cut before they are compared;
asked again, it costs a look-up.
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final

from meterite.model.errors import InvalidInputError
from meterite.model.time import excerpt

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

CHARACTERS_COMPARED: Final = 64
SLIP: Final = 0.82
"""So alike are ``on_conflct`` and ``on_conflict``, but not ``code`` and ``mode``."""
WORD_CHARACTERS_MIN: Final = 3
"""``max`` and ``mute`` are as good as the fields that begin so; ``on`` is too short to tell."""
SLIPS_LOOKED_AT: Final = 64
"""Names of one document: each that is new costs some µs."""
HINT: Final = 0.5
"""Enough to ask whether it was meant, where it is refused anyway."""


def near(name: str, known: tuple[str, ...], cutoff: float) -> str | None:
    """The name among ``known`` that is most like ``name``, whatever its case and dashes."""
    return _near(name[:CHARACTERS_COMPARED], known, cutoff)


@lru_cache(maxsize=1024)
def _near(name: str, known: tuple[str, ...], cutoff: float) -> str | None:
    found = difflib.get_close_matches(name.lower().replace("-", "_"), known, 1, cutoff)
    return found[0] if found else None


def begun(name: str, known: tuple[str, ...]) -> str | None:
    """The first name among ``known`` whose first words are ``name``, whatever its case and dashes."""
    if not WORD_CHARACTERS_MIN <= len(name) <= CHARACTERS_COMPARED:
        return None
    words = name.lower().replace("-", "_") + "_"
    return next((one for one in known if one.startswith(words)), None)


def refuse_slips(names: Iterable[str], fields: tuple[str, ...], known: Collection[str]) -> None:
    """InvalidInputError at a name that is nearly one of ``fields``, or its first words; ``known`` and everybody's own
    names pass.
    """
    for name in islice((name for name in names if name not in known), SLIPS_LOOKED_AT):
        meant = begun(name, fields) or near(name, fields, SLIP)
        if meant is not None:
            raise InvalidInputError(
                "unknown-field",
                f"There is no field {excerpt(name)}: did you mean {meant}?",
                place=("body", name),
            )
