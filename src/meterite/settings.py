"""The settings: read once, frozen.

Guaranteed: whatever can't be used, a name that is nearly one of ours included, is a :class:`SettingsError` with
one line that names the setting; neither that line nor the ``repr`` of settings ever shows a token or a secret.
A file ``.env`` in the working directory is read, the environment's variables of the same names win over it.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from meterite.listener_setting import ListenerSetting, parse_listener
from meterite.model.auto_create import AutoCreate
from meterite.model.duration import parse_duration
from meterite.model.errors import InvalidInputError, SettingsError
from meterite.model.time import HOUR_US
from meterite.model.unfit import WHOLE_NUMBER, why_unfit

if TYPE_CHECKING:
    from collections.abc import Iterable

ENV_FILE: Final = ".env"
MIB: Final = 1024 * 1024
SECRET_CHARACTERS_MIN: Final = 16
NAME_CHARACTERS_MAX: Final = 200

# RFC 9110 section 5.6.2 "token": a header's name and a cookie's name (RFC 6265 section 4.1.1) are both one.
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_TAKEN: Final = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length"),
        *("content-type", "cookie", "host", "origin", "referer", "transfer-encoding", "x-request-id"),
    }
)
_HOST: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# The environment is full of other programs' names, the file is ours.
_NEAR_IN_ENVIRONMENT: Final = 0.88
_NEAR_IN_FILE: Final = 0.75
_OUR_PREFIX: Final = "meterite_"

_OPENED: Final = re.compile(
    r"""\s*(?:export\s+)?(\w+)\s*=\s*(?:"(?:[^"\\\n]|\\.)*|'(?:[^'\\\n]|\\.)*)(?:\n|$)"""
)
"""Of a line whose value begins with a quote and goes on to the line's end without another."""

_HANDLER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_DOTTED: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")

Size = Annotated[int, Field(ge=1)]
SettingsT = TypeVar("SettingsT", bound="PluginSettings")


@dataclass(frozen=True, slots=True)
class HandlerSetting:
    """One of ``handlers``: the whole object is a secret, since any option of its kind may be one."""

    name: str
    kind: str
    options: SecretStr

    def in_clear(self) -> dict[str, Any]:
        """All that was written, ``name`` and ``kind`` included: for the making of handlers alone."""
        found: dict[str, Any] = json.loads(self.options.get_secret_value())
        return found


class PluginSettings(BaseSettings):
    """Where plug-ins come from: what the command line reads even where there are no tokens yet."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    plugins: Annotated[tuple[str, ...], NoDecode] = ()
    plugins_dir: Path | None = None
    strict_plugins: bool = False

    @field_validator("plugins", mode="before")
    @classmethod
    def _plugins(cls, value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            paths = (
                _json(value)
                if value.lstrip().startswith("[")
                else [part.strip() for part in value.split(",")]
            )
        else:
            paths = list(value)
        paths = [path for path in paths if path != ""]
        if not all(isinstance(path, str) and _DOTTED.fullmatch(path) for path in paths):
            raise ValueError('must be dotted paths such as acme.alerts or ["acme.alerts:plugin"]')
        return tuple(dict.fromkeys(paths))

    @field_validator("plugins_dir", mode="before")
    @classmethod
    def _plugins_dir(cls, value: Any) -> Any:
        return None if value == "" else value


class Settings(PluginSettings):
    """Every setting; docs/settings.md says what each does."""

    database_url: str = Field(default="sqlite:///meterite.db", min_length=1)
    api_key_name: str = "x-auth-token"
    cookie_domain: str = "localtest.me"
    api_tokens: Annotated[dict[SecretStr, str], NoDecode]
    cookie_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    docs: bool = True
    access_log: bool = False
    log_format: Literal["auto", "json", "console"] = "auto"
    body_bytes_max: Size = 32 * MIB
    unpacked_bytes_max: Size = 64 * MIB
    ratio_max: Size = 200
    body_wait: str = "30s"
    readings_max: Size = 1_000_000
    queue_bytes_max: Size = 64 * MIB
    cache_bytes: Annotated[int, Field(ge=0)] = 64 * MIB
    handlers: Annotated[tuple[HandlerSetting, ...], NoDecode] = ()
    listeners: Annotated[tuple[ListenerSetting, ...], NoDecode] = ()
    journal_rows_max: Size = 1024
    events_keep: str = "90d"
    auto_create: Annotated[AutoCreate, NoDecode] = AutoCreate()
    org_series_max: Size = 1_000_000
    metric_series_max: Size = 100_000
    max_future: str = "1d"
    trust_timestamps: bool = False

    def tokens(self) -> dict[str, str]:
        """Token to org, in the clear: for the door alone."""
        return {token.get_secret_value(): org for token, org in self.api_tokens.items()}

    def cookie_secrets(self) -> list[bytes]:
        """The secrets that override the database's; the first one signs."""
        return [secret.get_secret_value().encode() for secret in self.cookie_secret]

    @field_validator("api_key_name")
    @classmethod
    def _api_key_name(cls, name: str) -> str:
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError("must be a legal name of a header and a cookie, such as x-auth-token")
        if name.lower() in _TAKEN:
            raise ValueError("must not be a header that means something else already")
        return name

    @field_validator("cookie_domain")
    @classmethod
    def _cookie_domain(cls, domain: str) -> str:
        domain = domain.lower().removeprefix(".")
        if domain and not _HOST.fullmatch(domain):
            raise ValueError("must be a host name such as localtest.me, or empty")
        return domain

    @field_validator("api_tokens", mode="before")
    @classmethod
    def _api_tokens(cls, value: Any) -> dict[SecretStr, str]:
        pairs = _pairs(value) if isinstance(value, str) else list(dict(value).items())
        tokens: dict[str, str] = {}
        for token, org in pairs:
            _check_token(token)
            _check_org(org)
            if tokens.setdefault(token, org) != org:
                raise ValueError("names one token for two orgs; give each org a token of its own")
        if not tokens:
            raise ValueError('names no token; write api_tokens={"a-long-random-token": "org_01"}')
        return {SecretStr(token): org for token, org in tokens.items()}

    @field_validator("cookie_secret", mode="before")
    @classmethod
    def _cookie_secret(cls, value: Any) -> tuple[SecretStr, ...]:
        secrets = _json(value) if isinstance(value, str) else list(value)
        if not isinstance(secrets, list) or not all(isinstance(secret, str) for secret in secrets):
            raise ValueError('must be a JSON list of strings, such as ["new secret", "old secret"]')
        if any(len(secret) < SECRET_CHARACTERS_MIN or not _is_unicode(secret) for secret in secrets):
            raise ValueError(f"must have at least {SECRET_CHARACTERS_MIN} characters in each of its secrets")
        return tuple(SecretStr(secret) for secret in secrets)

    @field_validator("events_keep")
    @classmethod
    def _events_keep(cls, value: str) -> str:
        try:
            least = not value or parse_duration(value, place=()) >= HOUR_US
        except InvalidInputError:
            least = False
        if not least:
            raise ValueError("must be a duration of an hour or more, such as 90d, or empty: for ever")
        return value

    @field_validator("auto_create", mode="before")
    @classmethod
    def _auto_create(cls, value: Any) -> AutoCreate:
        if isinstance(value, AutoCreate):
            return value
        is_json = isinstance(value, str) and value.lstrip()[:1] in {"{", "["}
        return AutoCreate.of(_json(value) if is_json else value)

    @field_validator("body_wait")
    @classmethod
    def _body_wait(cls, value: str) -> str:
        try:
            some = parse_duration(value, place=()) > 0
        except InvalidInputError:
            some = False
        if not some:
            raise ValueError("must be a duration such as 30s")
        return value

    def body_wait_s(self) -> float:
        return parse_duration(self.body_wait, place=()) / 1e6

    @field_validator("max_future")
    @classmethod
    def _max_future(cls, value: str) -> str:
        try:
            if value:
                parse_duration(value, place=())
        except InvalidInputError:
            raise ValueError("must be a duration such as 1d, or empty: any time may be") from None
        return value

    def future_us_max(self) -> int | None:
        """None: any time may be."""
        return parse_duration(self.max_future, place=()) if self.max_future else None

    def events_keep_s(self) -> float | None:
        """None: for ever."""
        return parse_duration(self.events_keep, place=()) / 1e6 if self.events_keep else None

    @field_validator("handlers", mode="before")
    @classmethod
    def _handlers(cls, value: Any) -> tuple[HandlerSetting, ...]:
        objects = _json(value) if isinstance(value, str) else list(value)
        if not isinstance(objects, list):
            raise ValueError('must be a JSON list such as [{"name": "ops", "kind": "log"}]')  # noqa: TRY004 - pydantic makes its line of ValueError only
        handlers = [_handler(found, number) for number, found in enumerate(objects, 1)]
        names = [handler.name for handler in handlers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"names two handlers {name!r}; their deliveries would mix")
        return tuple(handlers)

    @field_validator("listeners", mode="before")
    @classmethod
    def _listeners(cls, value: Any) -> tuple[ListenerSetting, ...]:
        objects = _json(value) if isinstance(value, str) else list(value)
        if not isinstance(objects, list):
            raise ValueError("must be a JSON list, as docs/doors/graphite.md shows")  # noqa: TRY004 - pydantic makes its line of ValueError only
        return tuple(parse_listener(found, number) for number, found in enumerate(objects, 1))

    @field_validator("listeners")
    @classmethod
    def _listeners_orgs(
        cls, listeners: tuple[ListenerSetting, ...], info: ValidationInfo
    ) -> tuple[ListenerSetting, ...]:
        orgs = set(info.data.get("api_tokens", {}).values())
        for number, listener in enumerate(listeners, 1):
            if listener.org not in orgs:
                raise ValueError(f"number {number} names an org that no token of api_tokens belongs to")
        return listeners


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with nothing lost: the second of two equal keys is kept beside the first."""


def _json(text: str, **options: Any) -> Any:
    """Decode; what fails must not be repeated, since it may hold tokens, so the cause is cut off."""
    try:
        return json.loads(text, **options)
    except (ValueError, RecursionError):
        pass
    raise ValueError("is not JSON; write it in one line, with double quotes inside")


def _pairs(text: str) -> list[tuple[str, Any]]:
    value = _json(text, object_pairs_hook=_Pairs)
    if not isinstance(value, _Pairs):
        raise ValueError('must be a JSON object from token to org, such as {"a-long-random-token": "org_01"}')  # noqa: TRY004 - pydantic makes its line of ValueError only
    return value


def _handler(found: Any, number: int) -> HandlerSetting:
    if isinstance(found, HandlerSetting):
        return found
    if not isinstance(found, dict):
        raise ValueError(f"number {number} must be a JSON object with a name and a kind")  # noqa: TRY004 - pydantic makes its line of ValueError only
    name, kind = found.get("name"), found.get("kind")
    if not isinstance(name, str) or not _HANDLER_NAME.fullmatch(name):
        raise ValueError(f"number {number} needs a name of 1 to 100 letters, digits, dots, colons, _ and -")
    if not isinstance(kind, str) or not _HANDLER_NAME.fullmatch(kind):
        raise ValueError(f"{name!r} needs a kind, such as webhook")
    return HandlerSetting(name, kind, SecretStr(json.dumps(found)))


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _check_token(token: str) -> None:
    if not token.strip():
        raise ValueError("names an empty token")
    if token != token.strip() or _CONTROL.search(token):
        raise ValueError("names a token that starts or ends with a space or holds a control character")


def _check_org(org: object) -> None:
    if not isinstance(org, str):
        raise ValueError("must name an org, a string, for every token")  # noqa: TRY004 - pydantic makes its line of ValueError only
    if not org.strip():
        raise ValueError("names an empty org")
    if len(org) > NAME_CHARACTERS_MAX or _CONTROL.search(org):
        raise ValueError(
            f"names an org with control characters or more than {NAME_CHARACTERS_MAX} characters"
        )


def load_settings() -> Settings:
    """Read ``.env`` and the environment."""
    return _load(Settings)


def load_plugin_settings() -> PluginSettings:
    """The same, of where plug-ins come from alone."""
    return _load(PluginSettings)


def _load(model: type[SettingsT]) -> SettingsT:
    in_file = _names_in_file(Path(ENV_FILE))
    _refuse_near(in_file, _NEAR_IN_FILE, f"in {ENV_FILE}")
    _refuse_near(os.environ, _NEAR_IN_ENVIRONMENT, "in the environment")
    try:
        return model()
    except ValidationError as error:
        name, why = _first(error)
    # Outside of the handler: the original error must not travel along, its traceback could show values.
    raise SettingsError(name.replace("_", "-"), f"{name} {why}")


def _names_in_file(path: Path) -> list[str]:
    """Reads it before the framework does, which would warn of a line that it can't read, and go on without it."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError("env-file", f"{ENV_FILE} can't be read: {type(exc).__name__}") from None
    names: list[str] = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise _unreadable(binding.original.string, binding.original.line, names)
        if binding.key is not None:
            names.append(binding.key)
    return names


def _unreadable(text: str, line: int, before: list[str]) -> SettingsError:
    """A quote that isn't closed in its line; else, most likely, the setting before it goes on there."""
    opened = _OPENED.match(text)
    if opened and opened[1].lower() in Settings.model_fields:
        name = opened[1].lower()
        return SettingsError(
            name.replace("_", "-"), f"{name} in {ENV_FILE} lacks its closing quote in line {line}"
        )
    if before and before[-1].lower() in Settings.model_fields:
        name = before[-1].lower()
        return SettingsError(
            name.replace("_", "-"), f"{name} in {ENV_FILE} can't go on in line {line}: write it in one line"
        )
    return SettingsError("env-file", f"{ENV_FILE} can't be read in line {line}: write name=value in one line")


def _refuse_near(names: Iterable[str], cutoff: float, where: str) -> None:
    """A name that is nearly ours is a slip, and a setting that silently doesn't hold is worse than no start."""
    known = list(Settings.model_fields)
    for name in names:
        plain = name.lower().replace("-", "_")
        if name.lower() in known:
            continue
        near = difflib.get_close_matches(plain.removeprefix(_OUR_PREFIX), known, n=1, cutoff=cutoff)
        if near:
            shown = _CONTROL.sub("?", name)[:NAME_CHARACTERS_MAX]
            raise SettingsError(
                "setting-unknown", f"{shown} {where} is no setting; {near[0]} is meant, or take it away"
            )


def _first(error: ValidationError) -> tuple[str, str]:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return name, f'is missing; write {name}={{"a-long-random-token": "org_01"}} into {ENV_FILE}'
    if first["type"] == "value_error":
        return name, first["msg"].removeprefix("Value error, ")
    why = why_unfit(first["type"], first.get("ctx", {}), first["msg"])
    if why == WHOLE_NUMBER:
        what = " of bytes" if "bytes" in name.split("_") else ""
        why = f"{why}{what}, in digits alone, such as {Settings.model_fields[name].default}"
    return name, why
