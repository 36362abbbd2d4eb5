"""Events to a URL, as Standard Webhooks (https://www.standardwebhooks.com) with CloudEvents 1.0 inside.

What this file guarantees: ``webhook-id`` is the event's id, by which a receiver drops duplicates; every try sends the
same body, to the byte, and signs it anew with the time of the try; with several secrets it is signed by each, so
that a receiver can change from one to the next without missing an event.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from meterite.events.handler import Kind, several
from meterite.events.handlers.http import HttpHandler, HttpOptions
from meterite.events.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.model.event import Event

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with
SECRET_BYTES_MIN: Final = 24
SECRET_BYTES_MAX: Final = 64
SECRETS_MAX: Final = 8
STRUCTURED: Final = "application/cloudevents+json; charset=utf-8"
BINARY: Final = "application/json"
# What isn't percent-encoded by CloudEvents' HTTP binding, section 3.1.3.2: printable ASCII but these two.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def parse_secret(text: str) -> bytes:
    """The key in ``whsec_`` and base64. ValueError, which doesn't repeat it."""
    wanted = f"must be {SECRET_PREFIX} and base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random bytes"
    encoded = text.removeprefix(SECRET_PREFIX)
    if encoded == text:
        raise ValueError(wanted)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(wanted) from None
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ValueError(wanted)
    return key


def sign(keys: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> str:
    """The header ``webhook-signature``: one ``v1`` signature a key, divided by spaces."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)
    digests = (hmac.digest(key, signed, "sha256") for key in keys)
    return " ".join("v1," + base64.b64encode(digest).decode() for digest in digests)


def encode_structured(event: Event) -> tuple[bytes, dict[str, str]]:
    """All in the body."""
    return msgspec.json.encode(event.to_dict(), enc_hook=_plain), {"content-type": STRUCTURED}


def encode_binary(event: Event) -> tuple[bytes, dict[str, str]]:
    """Data in the body, attributes in headers ``ce-…``."""
    attributes = event.to_dict()
    data = attributes.pop("data")
    headers = {"content-type": str(attributes.pop("datacontenttype", BINARY))}
    headers |= {f"ce-{name}": quote(str(value), safe=_PLAIN) for name, value in attributes.items()}
    return msgspec.json.encode(data, enc_hook=_plain), headers


def _plain(value: Any) -> Any:
    """A mapping that isn't a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def _good(secret: SecretStr) -> SecretStr:
    parse_secret(secret.get_secret_value())
    return secret


class WebhookOptions(HttpOptions):
    """``secret``: one or several, the newest first; none sends without a signature."""

    secret: Annotated[
        tuple[Annotated[SecretStr, AfterValidator(_good)], ...],
        BeforeValidator(several),
        Field(max_length=SECRETS_MAX),
    ] = ()
    mode: Literal["structured", "binary"] = "structured"


class Webhook(HttpHandler):
    """The kind ``webhook``."""

    def __init__(self, options: WebhookOptions, **outside: Any) -> None:
        super().__init__(options, **outside)
        self._keys = [parse_secret(secret.get_secret_value()) for secret in options.secret]
        self._encode = encode_binary if options.mode == "binary" else encode_structured

    async def handle(self, event: Event) -> None:
        body, headers = self._encode(event)
        timestamp_s = int(self._clock())
        headers |= {"webhook-id": event.id, "webhook-timestamp": str(timestamp_s)}
        if self._keys:
            headers["webhook-signature"] = sign(self._keys, event.id, timestamp_s, body)
        await self.post(body, headers)


@hookimpl
def meterite_handler_kinds() -> Mapping[str, Kind[Any]]:
    return {"webhook": Kind(WebhookOptions, lambda options, _tools: Webhook(options))}
