"""JSON read exactly (RFC 8259), for documents that the typed decoders doubt.

What this file guarantees: :func:`load_exact` takes any bytes whatever and answers plain data or raises
:class:`MalformedError`, :class:`TooLargeError` or :class:`InvalidInputError`, in time linear in their number.
Not UTF-8, nesting beyond :data:`DEPTH_MAX`, a key twice in one object: refused. Integers of more than
:data:`INTEGER_DIGITS_MAX` digits, ``NaN`` and ``Infinity`` come out as :data:`NO_NUMBER`, so that the reading
they stand for can be refused alone.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from meterite.model.errors import InvalidInputError, MalformedError, TooLargeError
from meterite.model.time import excerpt
from meterite.wire.mistaken import FORM_HINT, is_form

DEPTH_MAX: Final = 32
INTEGER_DIGITS_MAX: Final = 400

BOM: Final = b"\xef\xbb\xbf"
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'"[]{}'))
_STRINGS: Final = re.compile(rb'"[^"]*"?')


class NoNumber:
    """Stands where the document has a number that no float64 is near."""

    __slots__ = ()


NO_NUMBER: Final = NoNumber()


def check_depth(body: bytes) -> None:
    """Brackets within strings don't count. What isn't JSON at all may pass, to twice the bound."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    rest = _STRINGS.sub(b"", plain.translate(None, _NOT_STRUCTURE))
    # Each round takes away the innermost pairs, so there are as many rounds as levels.
    for _ in range(DEPTH_MAX):
        shorter = rest.replace(b"[]", b"").replace(b"{}", b"")
        if len(shorter) == len(rest):
            break
        rest = shorter
    unclosed = len(rest) - len(rest.lstrip(b"[{"))
    if unclosed > DEPTH_MAX or b"[]" in rest or b"{}" in rest:
        raise TooLargeError("json-too-deep", f"JSON may be nested {DEPTH_MAX} levels deep at most.")


def _integer(text: str) -> int | NoNumber:
    return int(text) if len(text) <= INTEGER_DIGITS_MAX else NO_NUMBER


def _no_number(_text: str) -> NoNumber:
    return NO_NUMBER


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # add() returns None, which is the point
        raise InvalidInputError("duplicate-key", f"The key {excerpt(twice)} stands twice in one object.")
    return found


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_constant=_no_number, strict=True
)


def load_exact(body: bytes, *, line: int = 1) -> Any:
    """The document: dict, list, str, int, float, bool, None, and :data:`NO_NUMBER`. ``line``: where it begins."""
    try:
        text = body.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedError("not-utf-8", f"The body must be UTF-8; byte {exc.start} is not.") from exc
    check_depth(body)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as exc:
        where = f"line {line + exc.lineno - 1}, column {exc.colno}"
        hint = f" {FORM_HINT}" if is_form(body) else ""
        raise MalformedError("json-invalid", f"The body is not JSON: {exc.msg} at {where}.{hint}") from exc
