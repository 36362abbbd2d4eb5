"""What comes from outside, made fit for logs, terminals and error documents.

Guaranteed: no address leaves :func:`redact_url` or :class:`Redactor` with a parameter that carries a token or a
password, and no text leaves :func:`escape` with anything a terminal, a log or a UTF-8 encoder would stumble over.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

# Parameters of protocols whose clients put credentials into the address (InfluxDB's u and p among them).
_CREDENTIALS: Final = frozenset({"u", "p", "pw", "pass", "auth", "sig", "signature", "jwt"})
_CREDENTIAL_PARTS: Final = ("token", "passw", "secret", "apikey", "credential", "authorization")
_PLAIN: Final = re.compile("[^a-z0-9]")
_USER_INFO: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@")
# Controls, surrogates, and the marks that turn the direction of a line or end it.
_UNFIT: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def escape(text: str) -> str:
    r"""``text`` with what isn't fit to be seen as ``\x1b`` or ``\u2028``."""
    return _UNFIT.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    number = ord(match.group())
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def clip(text: str, characters_max: int) -> str:
    """At most so many characters of ``text``, escaped; a cut one ends in an ellipsis."""
    return escape(text) if len(text) <= characters_max else escape(text[: max(0, characters_max - 1)]) + "…"


class Redactor:
    """Takes parameters that carry tokens out of addresses. ``api_key_name``: the one of the settings."""

    def __init__(self, api_key_name: str) -> None:
        self._own = _plain(api_key_name)

    def url(self, url: str) -> str:
        """The address without them, escaped."""
        address, hash_mark, fragment = _USER_INFO.sub(r"\1", url).partition("#")
        path, mark, query = address.partition("?")
        kept = [pair for pair in re.split("[&;]", query) if pair and not self._carries(pair)]
        if hash_mark and any(self._carries(pair) for pair in re.split("[&;]", fragment)):
            hash_mark = fragment = ""
        return escape(path + (mark + "&".join(kept) if kept else "") + hash_mark + fragment)

    def _carries(self, pair: str) -> bool:
        name = _plain(unquote_plus(pair.partition("=")[0]))
        return name == self._own or name in _CREDENTIALS or any(part in name for part in _CREDENTIAL_PARTS)


def _plain(name: str) -> str:
    return _PLAIN.sub("", name.lower())


def redact_url(url: str, api_key_name: str) -> str:
    """One address, redacted."""
    return Redactor(api_key_name).url(url)
