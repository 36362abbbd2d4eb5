"""``log``: what is written."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from events.given import an_event
from meterite.events.handlers.log import LogHandler, LogOptions


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_an_entry_has_the_events_attributes(level):
    """One entry an event, at the level asked for."""
    event = an_event()
    with structlog.testing.capture_logs() as entries:
        asyncio.run(LogHandler(LogOptions(name="all", kind="log", level=level)).handle(event))
    wanted = event.to_dict()
    for name in ("specversion", "source", "datacontenttype"):
        del wanted[name]
    assert entries == [wanted | {"event": "event", "handler": "all", "log_level": level}]
