"""Events to people: mail, chats, SMS and whatever else Apprise knows (https://github.com/caronc/apprise).

What this file guarantees: the library is asked for where a handler of this kind is made, and not before, since it is
an extra. One service a handler, so that trying again tells nobody twice but
that service. Apprise says that it failed and not why: every failure is tried again. It connects by itself: what
:mod:`.net` guarantees does not hold here, but that redirects aren't followed unless the URL says so.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field, SecretStr

from meterite.events.handler import Handler, HandlerOptions, Kind, Retry, Seconds
from meterite.events.handlers.words import GOOD, URGENT, details, title
from meterite.events.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    import apprise

    from meterite.model.event import Event

URL_CHARACTERS_MAX: Final = 4000
_LACKING: Final = "Apprise: pip install 'apprise>=2'"


class AppriseOptions(HandlerOptions):
    """``url`` as Apprise writes them, with the service's secrets in it. One call at a time: services count them, and
    Apprise waits between two as long as a service asks for.
    """

    url: Annotated[SecretStr, Field(min_length=1, max_length=URL_CHARACTERS_MAX)]
    timeout: Annotated[Seconds, Field(gt=0, le=300)] = 60.0
    concurrency: Annotated[int, Field(ge=1, le=1)] = 1


class AppriseHandler(Handler):
    """The kind ``apprise``; told in a thread."""

    def __init__(self, options: AppriseOptions) -> None:
        self._services = _services(options.url.get_secret_value())

    def handle(self, event: Event) -> None:
        urgency = "warning" if event.type in URGENT else "success" if event.type in GOOD else "info"
        if not self._services.notify(
            body=details(event), title=title(event), notify_type=urgency, body_format="text"
        ):
            raise Retry("Apprise could not deliver it; its log says why")


def _services(url: str) -> apprise.Apprise:
    """ValueError where the library isn't there, or knows no such service."""
    try:
        import apprise
    except ImportError:
        raise ValueError(f"needs {_LACKING}") from None
    asset = apprise.AppriseAsset(
        app_id="Meterite",
        app_desc="Meterite",
        storage_mode="memory",
        async_mode=False,
        http_redirects=False,
        secure_logging=True,
        service_timeout=0,  # else it starts threads that are waited for at the end; the dispatcher has its own timeout
    )
    services = apprise.Apprise(asset=asset)
    if not services.add(url) or len(services) != 1:
        raise ValueError("has a url that is no service of Apprise's")
    return services


@hookimpl
def meterite_handler_kinds() -> Mapping[str, Kind[Any]]:
    lacks = "" if find_spec("apprise") else _LACKING
    return {"apprise": Kind(AppriseOptions, lambda options, _tools: AppriseHandler(options), lacks)}
