"""The plug-in alone, without a service: it needs nothing but an event."""

from __future__ import annotations

import json

import pytest

from meterite.events.hooks import Event, Refused, Retry, Tools
from meterite_handler_example import plugin


def an_event(code: str = "boiler") -> Event:
    return Event(
        id="019b76da-a800-7000-8000-000000040000",
        type="meterite.reading.above_max",
        source="/orgs/org_01",
        subject=code,
        time="2026-01-01T00:00:00Z",
        org="org_01",
        data={"metric": {"id": 1, "code": code, "name": "Boiler", "unit": "°C"}},
    )


def test_a_line_an_event(tmp_path, monkeypatch):
    monkeypatch.setenv(plugin.VARIABLE, str(tmp_path / "events"))
    plugin.meterite_handle_event(an_event())
    plugin.meterite_handle_event(an_event("pump"))
    lines = (tmp_path / "events").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["subject"] for line in lines] == ["boiler", "pump"]


def test_without_the_variable_nothing_happens(monkeypatch):
    monkeypatch.delenv(plugin.VARIABLE, raising=False)
    plugin.meterite_handle_event(an_event())


def test_a_handler_of_the_kind(tmp_path):
    kind = plugin.meterite_handler_kinds()["example-file"]
    options = kind.options(name="file", kind="example-file", path=tmp_path / "events")
    kind.make(options, Tools(record=None)).handle(an_event())
    assert json.loads((tmp_path / "events").read_text(encoding="utf-8"))["org"] == "org_01"


def test_what_may_be_better_later_and_what_may_not(tmp_path):
    with pytest.raises(Retry):
        plugin.write_line(tmp_path / "missing" / "events", an_event())
    with pytest.raises(Refused):
        plugin.write_line(tmp_path, an_event())


def test_the_filter():
    assert plugin.meterite_filter_event(an_event("test.boiler")) is False
    assert plugin.meterite_filter_event(an_event()) is None
