"""What went wrong elsewhere, in one bounded line that a log, a table and a terminal can take."""

from __future__ import annotations

import re
from typing import Final

CHARACTERS_MAX: Final = 300
_UNFIT: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]+"
)


def one_line(what: BaseException | str) -> str:
    """A text, or an exception as ``ImportError: no module …``."""
    text = what if isinstance(what, str) else _told(what)
    text = " ".join(_UNFIT.sub(" ", text[: 4 * CHARACTERS_MAX]).split())
    return text if len(text) <= CHARACTERS_MAX else text[: CHARACTERS_MAX - 1] + "…"


def _told(error: BaseException) -> str:
    try:
        said = str(error)
    except BaseException:  # noqa: BLE001 - a plug-in's exception may fail even at this, and would end our thread
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
