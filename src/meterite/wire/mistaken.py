"""What a body most likely is that was sent as something else, for the sentence that refuses it.

What this file guarantees: a look at the beginning of the body, in bounded time; what is taken is decided elsewhere.
"""

from __future__ import annotations

from typing import Final

FORM_HINT: Final = "It is a form of several parts: send the file itself, with --data-binary."
CSV_HINT: Final = "For CSV, send Content-Type: text/csv, with --data-binary."
_LOOKED_AT_BYTES: Final = 1000
_BOM: Final = b"\xef\xbb\xbf"


def is_form(body: bytes) -> bool:
    """``multipart/form-data`` (RFC 7578), as ``curl -F`` sends it: a boundary, then a part's headers."""
    return body.startswith(b"--") and b"form-data" in body[:_LOOKED_AT_BYTES]


def is_csv(body: bytes) -> bool:
    """A header with metric and reading; ``curl -d`` glues the next line to its last name."""
    first = body[:_LOOKED_AT_BYTES].removeprefix(_BOM).partition(b"\n")[0]
    names = [name.strip(b' "\r').lower() for name in first.split(b",")]
    return all(any(name.startswith(column) for name in names) for column in (b"metric", b"reading"))
