"""Who asks: the credential of a request, and the org it stands for.

Guaranteed: an empty credential is none; of several the first one present decides (header, Authorization, query,
cookie), so that a wrong header isn't saved by a right cookie. Tokens are looked up by a hash whose key is
random for each process: no string is compared, and the time taken tells nothing. The cookie holds no token; it
is signed, good for 12 hours, and dies with its token or with the secret that signed it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets as random_secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

COOKIE_SECONDS: Final = 12 * 3600
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

Kind = Literal["header", "bearer", "token", "basic", "query", "cookie"]
RawHeaders: TypeAlias = "Iterable[tuple[bytes, bytes]]"

_COOKIE_VERSION: Final = "v1"
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
# No token can be this: settings refuse control characters.
_UNREADABLE: Final = b"\x00"


@dataclass(frozen=True, slots=True)
class Credential:
    """What came with a request, still to be believed. ``repr`` hides the value."""

    kind: Kind
    value: bytes

    def __repr__(self) -> str:
        return f"Credential(kind={self.kind!r})"


class Tokens:
    """The configured tokens, found by a keyed hash."""

    def __init__(self, mapping: Mapping[str, str], key: bytes | None = None) -> None:
        self._key = key or random_secrets.token_bytes(32)
        self._orgs = {self._digest(token.encode()): org for token, org in mapping.items()}

    def _digest(self, token: bytes) -> bytes:
        return hashlib.blake2b(token, digest_size=16, key=self._key).digest()

    def org_of(self, token: bytes | str) -> str | None:
        """The org a token stands for. On the way of every reading: one hash, one look-up."""
        raw = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token
        return self._orgs.get(hashlib.blake2b(raw, digest_size=16, key=self._key).digest())


def find_token(
    headers: RawHeaders, query_string: bytes, api_key_name: str, password: bytes | None = None
) -> Credential | None:
    """The first credential present. Names are compared without regard to case, as headers' are.

    ``password`` is a query parameter that may carry the token here, too.
    """
    name = api_key_name.lower().encode()
    authorization = b""
    cookies: list[bytes] = []
    for key, value in headers:
        if key == name and value.strip():
            return Credential("header", value.strip())
        if key == b"authorization":
            authorization = authorization or value.strip()
        elif key == b"cookie":
            cookies.append(value)
    names = (name,) if password is None else (name, password)
    return (
        _from_authorization(authorization) or _from_query(query_string, names) or _from_cookies(cookies, name)
    )


def _from_authorization(value: bytes) -> Credential | None:
    scheme, _, rest = value.partition(b" ")
    rest = rest.strip()
    match scheme.lower():
        case b"bearer" if rest:
            return Credential("bearer", rest)
        case b"token" if rest:
            return Credential("token", rest)
        case b"basic" if rest:
            return _from_basic(rest)
    return None


def _from_basic(encoded: bytes) -> Credential | None:
    try:
        _, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
    except binascii.Error:
        return Credential("basic", _UNREADABLE)
    if not colon:
        return Credential("basic", _UNREADABLE)
    return Credential("basic", password) if password else None


def _from_query(query_string: bytes, names: tuple[bytes, ...]) -> Credential | None:
    for pair in query_string.split(b"&") if query_string else ():
        key, _, value = pair.partition(b"=")
        if value and _unquoted(key).lower() in names:
            return Credential("query", _unquoted(value))
    return None


def _unquoted(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _from_cookies(cookies: list[bytes], name: bytes) -> Credential | None:
    for line in cookies:
        for pair in line.split(b";"):
            key, _, value = pair.partition(b"=")
            value = value.strip().strip(b'"')
            if value and key.strip().lower() == name:
                return Credential("cookie", value)
    return None


class CookieSigner:
    """Makes and reads the docs' cookie. ``secrets``: the first one signs, all of them are good."""

    def __init__(
        self,
        secrets: Sequence[bytes],
        tokens: Mapping[str, str],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        assert secrets, "a cookie needs a secret"
        self._keys = [
            hashlib.blake2b(secret, digest_size=32, person=b"meterite cookie").digest() for secret in secrets
        ]
        self._now = now
        # What a token's part of a cookie may be, for each secret: a cookie outlives neither.
        self._known = [
            {_mac(key, b"token", token.encode()): org for token, org in tokens.items()} for key in self._keys
        ]

    def issue(self, org: str, token: bytes) -> str:
        """A cookie's value for a token that was just found good."""
        key = self._keys[0]
        expires_s = int(self._now()) + COOKIE_SECONDS
        payload = _text(msgspec.json.encode([expires_s, org, _mac(key, b"token", token)]))
        return f"{_COOKIE_VERSION}.{payload}.{_mac(key, b'cookie', payload.encode())}"

    def read(self, value: bytes) -> str | None:
        """The org of a cookie that one of the secrets signed, that hasn't expired, and whose token still is."""
        version, _, rest = value.partition(b".")
        payload, _, signature = rest.partition(b".")
        if version != _COOKIE_VERSION.encode():
            return None
        for key, known in zip(self._keys, self._known, strict=True):
            if hmac.compare_digest(_mac(key, b"cookie", payload).encode(), signature):
                return self._believed(payload, known)
        return None

    def _believed(self, payload: bytes, known: Mapping[str, str]) -> str | None:
        padded = payload + b"=" * (-len(payload) % 4)
        expires_s, org, token_mac = msgspec.json.decode(
            base64.urlsafe_b64decode(padded), type=tuple[int, str, str]
        )
        return org if self._now() < expires_s and known.get(token_mac) == org else None


def _mac(key: bytes, purpose: bytes, message: bytes) -> str:
    return _text(hmac.digest(key, purpose + b"\x00" + message, "sha256"))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


@dataclass(frozen=True, slots=True)
class CookiePolicy:
    """How the cookie is set and taken away: the two must name the same domain."""

    name: str
    domain: str

    def set_header(self, value: str, *, host: str, https: bool) -> str:
        return f"{self.name}={value}; Max-Age={COOKIE_SECONDS}{self._attributes(host, https=https)}"

    def clear_headers(self, *, host: str, https: bool) -> list[str]:
        """One for the shared cookie, and one for a cookie of this host alone."""
        gone = f"{self.name}=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        attributes = {self._attributes(host, https=https), self._attributes("", https=https)}
        return [gone + each for each in sorted(attributes)]

    def _attributes(self, host: str, *, https: bool) -> str:
        return (
            "; Path=/; HttpOnly; SameSite=Lax"
            + ("; Secure" if https else "")
            + (f"; Domain={self.domain}" if self._shares(host) else "")
        )

    def _shares(self, host: str) -> bool:
        name = host_name(host)
        return bool(self.domain) and (name == self.domain or name.endswith("." + self.domain))


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit("//" + host).hostname or "").rstrip(".")
    except ValueError:
        return ""


def may_act(kind: Kind, method: str, headers: RawHeaders) -> bool:
    """Whether an unsafe request comes from a page of ours, where a browser may have added the credential itself."""
    if method in SAFE_METHODS or kind not in {"cookie", "basic"}:
        return True
    found = dict(headers)
    site = found.get(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    origin = found.get(b"origin")
    if origin is not None:
        return _is_origin_of(origin.decode("latin-1"), found.get(b"host", b"").decode("latin-1"))
    return kind == "basic"


def _is_origin_of(origin: str, host: str) -> bool:
    scheme, separator, authority = origin.partition("://")
    if not separator or not authority or not host:
        return False
    port = _DEFAULT_PORTS.get(scheme.lower(), "")
    return authority.lower().removesuffix(":" + port) == host.lower().removesuffix(":" + port)
