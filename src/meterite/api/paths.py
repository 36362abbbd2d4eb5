"""Divides a metric's path before it is decoded, so that no code is unreachable.

What this file guarantees: below ``/metric/`` the last raw segment, where it is a word of :data:`ACTIONS` and
something precedes it, is the action; everything before it (or everything) is the code, percent-encoded UTF-8.
``/`` belongs to the code as it is and as ``%2F``; ``%2F`` never divides. So the code ``readings`` is
``/metric/readings``, and the code ``a/readings`` is ``/metric/a%2Freadings``. ``/metric`` and
``/metric/`` are the same place.

The framework routes decoded paths and would take an encoded slash for a divider. :class:`MetricPaths` hands
it the code as one percent-encoded segment instead, which :func:`decode_code` decodes in the handler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_to_bytes

from meterite.model.errors import InvalidInputError
from meterite.model.near import SLIP, near

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ACTIONS: Final = frozenset({b"activate", b"deactivate", b"readings", b"summary"})
_WORDS: Final = tuple(sorted(word.decode("ascii") for word in ACTIONS))
_COLLECTION: Final = (b"/metric", b"/metric/")
_BELOW: Final = b"/metric/"


def split(raw_path: bytes) -> tuple[str, str] | None:
    """Code (decoded) and action (empty: the metric itself) of a raw path; None where it names no metric."""
    parts = _divide(raw_path)
    if parts is None:
        return None
    code, action = parts
    return _decode(code), action


def _divide(raw_path: bytes) -> tuple[bytes, str] | None:
    if not raw_path.startswith(_BELOW) or len(raw_path) == len(_BELOW):
        return None
    rest = raw_path[len(_BELOW) :]
    code, _, last = rest.rpartition(b"/")
    if code and last in ACTIONS:
        return code, last.decode("ascii")
    return rest, ""


def _decode(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(
            "code-invalid", "Write the code in the path as percent-encoded UTF-8.", place=("path", "code")
        ) from exc


def decode_code(segment: str) -> str:
    """The code in the one segment that :class:`MetricPaths` made of it."""
    return _decode(segment.encode("utf-8", "surrogateescape"))


def metric_path(code: str, action: str = "") -> str:
    """The path of a metric, as links and tests write it."""
    return f"/metric/{quote(code, safe='')}" + (f"/{action}" if action else "")


def slip(code: str) -> str:
    """A sentence where the code, legal as it is, most likely came of a slip in the path; else empty."""
    for action in _WORDS:
        if code == f"/{action}":
            return f"The code before /{action} is empty."
        if code.endswith(f"/{action}/"):
            return f"If /{action} was meant, take the last slash away."
    before, _, last = code.rpartition("/")
    meant = near(last, _WORDS, SLIP) if before else None
    return f"If /{meant} was meant, spell it so." if meant else ""


class MetricPaths:
    """ASGI middleware: rewrites ``scope["path"]`` to ``/metric/{one quoted segment}[/action]``.

    What stands outside of it (logs, credentials) keeps the scope as it came.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = _rewritten(scope)
        await self._app(scope, receive, send)


def raw_path(scope: Scope) -> bytes:
    """As it was sent, from where the app's own places begin."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    raw = raw.partition(b"?")[0]
    prefix = quote(scope.get("root_path", "")).encode("ascii")
    return raw[len(prefix) :] if prefix and raw.startswith(prefix + b"/") else raw


def _rewritten(scope: Scope) -> Scope:
    root = scope.get("root_path", "")
    raw = raw_path(scope)
    if raw in _COLLECTION:
        return {**scope, "path": root + "/metric/"}
    parts = _divide(raw)
    if parts is None:
        # An encoded slash must not make a metric's path out of another one ("/metric%2Fa").
        return {**scope, "path": root + raw.decode("latin-1")} if b"%2f" in raw.lower() else scope
    code, action = parts
    segment = quote(unquote_to_bytes(code), safe="")
    return {**scope, "path": f"{root}/metric/{segment}" + (f"/{action}" if action else "")}
