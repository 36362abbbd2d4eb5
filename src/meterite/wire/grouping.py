"""What a Pushgateway's path groups by: ``job/<job>{/<label>/<value>}``.

https://github.com/prometheus/pushgateway/blob/v1.11.0/README.md#url, and what its program does beside.

What this file guarantees: the path is divided before it is decoded, so ``%2F`` belongs to a value, and ``+`` is a plus.
``@base64`` behind ``job`` or a label's name says that the value is base64 for URLs (RFC 4648 section 5), padded or not.
Of a label that is named twice the last counts, and ``job`` is what stands in front. The order of labels makes no other
group; a label with an empty value is none, and takes away the body's.
"""

from __future__ import annotations

import base64
import binascii
import functools
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from meterite.model.check import canonical_labels, check_labels
from meterite.model.errors import InvalidInputError
from meterite.model.time import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

INVALID: Final = "grouping-invalid"
GROUPINGS_KEPT: Final = 4096
GROUPING_BYTES_KEPT: Final = 256
"""A longer path is decoded each time, so that what is kept is bounded by a few megabytes."""
_BASE64: Final = "@base64"
_RESERVED: Final = "__"


@dataclass(frozen=True, slots=True)
class Grouping:
    """``labels`` stand above those of a body, the empty ones too; ``name`` is the group's."""

    labels: Mapping[str, str]
    name: str


def decode_grouping(raw: bytes) -> Grouping:
    """Of the raw path from ``job`` on; a job pushes to the same one again and again. InvalidInputError."""
    return _kept(raw) if len(raw) <= GROUPING_BYTES_KEPT else _decode(raw)


@functools.lru_cache(GROUPINGS_KEPT)
def _kept(raw: bytes) -> Grouping:
    return _decode(raw)


def _decode(raw: bytes) -> Grouping:
    parts = [_decoded(part) for part in raw.split(b"/")]
    if len(parts) % 2 and not parts[-1]:
        parts.pop()  # a slash at the end
    if not parts or len(parts) % 2 or parts[0] not in {"job", "job" + _BASE64}:
        raise _invalid("write it as job/NAME, and then pairs of a label's name and value")
    pairs = dict(_pair(name, value) for name, value in zip(parts[2::2], parts[3::2], strict=True))
    _, job = _pair(parts[0], parts[1])
    if not job:
        raise _invalid("a job's name is required")
    labels = pairs | {"job": job}
    return Grouping(
        MappingProxyType(labels), canonical_labels(check_labels(labels, place=("path", "grouping")))
    )


def _pair(name: str, value: str) -> tuple[str, str]:
    plain = name.removesuffix(_BASE64)
    if not plain or plain.startswith(_RESERVED):
        raise _invalid(f"{excerpt(plain)} can't be a label's name")
    return plain, value if plain == name else _from_base64(value)


def _from_base64(value: str) -> str:
    text = value.rstrip("=")
    try:
        if not text.isascii() or "+" in text or "/" in text:
            raise _invalid(f"{excerpt(value)} is no base64 for URLs")
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise _invalid(f"{excerpt(value)} is no base64 of UTF-8") from exc


def _decoded(part: bytes) -> str:
    try:
        return unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise _invalid("it is not percent-encoded UTF-8") from exc


def _invalid(what: str) -> InvalidInputError:
    return InvalidInputError(INVALID, f"The path names no group: {what}.", place=("path", "grouping"))
