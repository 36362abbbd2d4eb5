"""``meterite events``: tail, retry. On the database file itself, beside a service that runs or without one.

Guaranteed: ``tail`` writes an event a line, as CloudEvents in JSON, in the order in which they happened, and goes on
behind the last one it wrote when it is given its id; nothing but events goes to stdout.
"""

from __future__ import annotations

import heapq
import sys
import time
from contextlib import closing
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from meterite.cli import starting
from meterite.model.errors import SettingsError
from meterite.model.event import EventType  # noqa: TC001 - typer reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from meterite.model.event import Event
    from meterite.settings import Settings
    from meterite.storage.event_interface import Events
    from meterite.storage.interface import Store

PAGE_EVENTS: Final = 1000
LOOK_S: Final = 1.0

events = typer.Typer(help="Events, from the database file itself.", no_args_is_help=True)


@events.command()
def tail(
    org: Annotated[
        list[str] | None, typer.Option(help="Of this org; repeatable. Without it all of the settings.")
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            help="Behind the event with this id; without it from now on, with --no-follow from the first."
        ),
    ] = None,
    type_: Annotated[list[EventType] | None, typer.Option("--type", help="Of this type; repeatable.")] = None,
    metric: Annotated[str | None, typer.Option(help="Of the metric with this code.")] = None,
    *,
    follow: Annotated[bool, typer.Option(help="Wait for more, until Ctrl-C.")] = True,
) -> None:
    """Print events as they happen, one JSON object a line."""
    settings, store = _opened()
    with closing(store):
        orgs = _known(org, settings)
        found = followed(
            store.events, orgs, after=after, types=type_ or (), metric=metric, wait=_wait if follow else None
        )
        try:
            for event in found:
                sys.stdout.buffer.write(msgspec.json.encode(event.to_dict()) + b"\n")
                sys.stdout.buffer.flush()
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:
            sys.stderr.close()  # nobody reads any more; Python would complain about stdout at the end


@events.command()
def retry(
    *,
    dead: Annotated[bool, typer.Option("--dead", help="All that were given up.")] = False,
    handler: Annotated[str | None, typer.Option(help="Of this handler only.")] = None,
) -> None:
    """Try deliveries again that were given up, as if they had never been tried."""
    if not dead:
        raise typer.BadParameter("say which deliveries: --dead")
    _, store = _opened()
    with closing(store):
        count = store.outbox.retry_dead(handler)
    typer.echo(f"{count} deliveries will be tried again.")


def _opened() -> tuple[Settings, Store]:
    """Of a file that is there."""
    from meterite.settings import load_settings
    from meterite.storage.database import sqlite_path
    from meterite.storage.store import SqliteStore

    store = SqliteStore(sqlite_path(starting.database_url()))
    store.open()
    return load_settings(), store


def _known(orgs: Sequence[str] | None, settings: Settings) -> list[str]:
    """Those asked for; an org is made by its first use, and this is none."""
    known = sorted(set(settings.api_tokens.values()))
    for one in orgs or ():
        if one not in known:
            raise SettingsError("org-unknown", f"No token of api_tokens is for an org {one[:200]!r}.")
    return list(orgs or known)


def _wait() -> None:
    time.sleep(LOOK_S)


def followed(
    store: Events,
    orgs: Sequence[str],
    *,
    after: str | None,
    types: Sequence[str] = (),
    metric: str | None = None,
    wait: Callable[[], None] | None,
) -> Iterator[Event]:
    """Events of the orgs, oldest first; then, where one may ``wait``, what comes: without ``after`` that alone."""
    newest = store.newest()
    cursors = dict.fromkeys(orgs, newest if after is None and wait is not None else after)

    def behind(org: str) -> Iterator[Event]:
        while True:
            page = store.select(org, after=cursors[org], types=types, metric=metric, limit=PAGE_EVENTS)
            yield from page.events
            if page.next is None:
                return
            cursors[org] = page.next

    while True:
        yield from heapq.merge(*map(behind, orgs), key=attrgetter("id"))
        if wait is None:
            return
        wait()
        while (now := store.newest()) == newest:
            wait()
        newest = now
