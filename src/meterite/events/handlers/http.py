"""What handlers that call a receiver over HTTP have in common: options, and the call.

What this file guarantees: what can't be called is refused at the start, where that can be seen without asking a
resolver; and neither a URL nor a header, which may hold tokens, is ever repeated.
"""

from __future__ import annotations

import re
import ssl
import time
from pathlib import Path  # noqa: TC003 - pydantic reads it when the class is made
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from yarl import URL

from meterite.events.handler import Handler, HandlerOptions
from meterite.events.handlers.addresses import Reach, reach
from meterite.events.handlers.net import Caller, Guard, look_up
from meterite.events.handlers.replies import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meterite.events.handlers.net import Lookup

URL_CHARACTERS_MAX: Final = 2000
_CONTROL: Final = re.compile("[\x00-\x20\x7f-\x9f\ud800-\udfff]")
_IN_VALUE: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
# RFC 9110 section 5.6.2 "token".
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_TAKEN: Final = frozenset(
    {
        *("accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie"),
        *("expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
_TAKEN_BEGINNINGS: Final = ("ce-", "proxy-", "webhook-")
_LOCAL: Final = re.compile(r"(.*\.)?localhost\.?", re.IGNORECASE)


def parse_url(text: str) -> URL:
    """ValueError for what no call could be made to; its text doesn't repeat the URL."""
    if len(text) > URL_CHARACTERS_MAX or _CONTROL.search(text):
        raise ValueError(f"must have {URL_CHARACTERS_MAX} characters at most, and no spaces")
    try:
        url = URL(text)
        usable = url.scheme in {"http", "https"} and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be like https://example.com/hook") from None
    return url.with_fragment(None)


def check_host(url: URL, *, allow_private: bool) -> None:
    """What an address, or localhost, tells without a resolver. All else is seen at the call."""
    host = url.host or ""
    try:
        verdict = reach(host)
    except ValueError:
        verdict = Reach.INNER if _LOCAL.fullmatch(host) else Reach.OPEN
    if verdict is Reach.NEVER:
        raise ValueError("leads to a link-local address, which is never called")
    if verdict is Reach.INNER and not allow_private:
        raise ValueError("leads into the own network; allow_private allows that")


def _headers(headers: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    for name, value in headers.items():
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name) or lower in _TAKEN or lower.startswith(_TAKEN_BEGINNINGS):
            raise ValueError("must not have a name that is none, or that the call itself sets")
        if _IN_VALUE.search(value.get_secret_value()):
            raise ValueError("must not have control characters")
    return headers


class HttpOptions(HandlerOptions):
    """Of kinds that call a URL."""

    allow_private: bool = False
    url: SecretStr
    headers: Annotated[dict[str, SecretStr], Field(max_length=32), AfterValidator(_headers)] = Field(
        default_factory=dict
    )
    ca_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _url(cls, url: SecretStr, others: ValidationInfo) -> SecretStr:
        check_host(parse_url(url.get_secret_value()), allow_private=others.data.get("allow_private", False))
        return url


class HttpHandler(Handler):
    """Posts; a kind says what."""

    def __init__(
        self,
        options: HttpOptions,
        *,
        path: str = "",
        lookup: Lookup = look_up,
        clock: Callable[[], float] = time.time,
    ) -> None:
        url = parse_url(options.url.get_secret_value())
        self._url = url.joinpath(path) if path else url
        self._headers = {name: value.get_secret_value() for name, value in options.headers.items()}
        self._timeout_s = options.timeout
        self._connections = options.concurrency
        self._guard = Guard(allow_private=options.allow_private)
        self._tls = _tls(options.ca_file)
        self._lookup = lookup
        self._clock = clock
        self._caller: Caller | None = None

    async def open(self) -> None:
        self._caller = Caller(self._guard, connections=self._connections, tls=self._tls, lookup=self._lookup)

    async def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Returns where the receiver took it; else Retry or Refused."""
        if self._caller is None:
            raise AssertionError("open() comes first")
        reply = await self._caller.post(
            self._url, body, {**self._headers, **headers}, timeout_s=self._timeout_s
        )
        settle(reply, self._clock())

    async def close(self) -> None:
        if self._caller is not None:
            await self._caller.close()


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """With the file's authorities alone, else with the system's."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError):
        raise ValueError("can't read certificates from ca_file") from None
